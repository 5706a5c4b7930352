"""Inspecting a corpus: counts are the manifest's, a record becomes a picture, and damage of any kind is named."""

import dataclasses
import functools
import json
import subprocess
import sys

import numpy as np
import pytest
from corpus_cases import ONTOLOGY, build, write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_corpus import box_region, example, png, random_example, region

from data import inspect
from data.build import build_corpus
from data.report import Report
from data.sources import Items, Source
from data.verify import problems, verify
from medp_clip_jax.errors import InputError

LABELS = ("cell", "kidney", "left_kidney", "liver", "nodule")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("inspect")
    return build(write_folder(root / "first"), root / "corpus")


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "data.inspect", *map(str, arguments)], capture_output=True, text=True)


def test_the_command_line(corpus, tmp_path):
    counts = run(corpus.directory)
    assert counts.returncode == 0 and not counts.stderr, counts.stderr
    row = next(line for line in counts.stdout.splitlines() if line.startswith("first"))
    assert row.split() == ["first", "train", "6", "18", "12", "3", "2"]
    assert ["liver", "12"] in [line.split() for line in counts.stdout.splitlines()]
    shown = run(corpus.directory, "--record=first/train/2", f"--picture={tmp_path / 'out.png'}")
    assert shown.returncode == 0 and "i2" in shown.stdout and shown.stdout.count("liver: box") == 2
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (40 * 19, 30 * 19)
        assert len(picture.getcolors(1 << 20)) > 200  # the image is in it
    whole = run(corpus.directory, "--verify", "--workers=2")
    assert whole.returncode == 0 and "all 6 records are whole" in whole.stdout, whole.stderr
    wrong = run(tmp_path / "nothing")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["first/train/6", "first/val/0", "first/train", "first/train/-1", "second/train/0"])
def test_a_record_that_is_not_there_is_told(corpus, place):
    with pytest.raises(InputError, match="first|no source"):
        inspect.find_record(corpus, place)


def test_an_intact_corpus_has_no_damage(corpus):
    assert list(verify(corpus, 1)) == []


def test_damaged_files_and_counts_are_named(tmp_path):
    corpus = build(write_folder(tmp_path / "first"), tmp_path / "corpus")
    path = next(corpus.directory.rglob("*record-*"))
    whole = path.read_bytes()
    at = whole.index(b"\x89PNG") + 40
    path.write_bytes(whole[:at] + bytes(8) + whole[at + 8 :])  # of the same size
    told = list(verify(corpus, 1))
    assert "content has changed" in told[0]
    assert run(corpus.directory, "--verify").returncode == 1
    path.write_bytes(whole)
    manifest = json.loads((corpus.directory / "corpus.json").read_text())
    manifest["sources"]["first"]["splits"]["train"]["regions"] = 17
    assert list(verify(dataclasses.replace(corpus, manifest=manifest), 1)) == [
        "first/train: 18 regions, the manifest says 17"
    ]
    path.write_bytes(whole[:-1])
    assert "bytes instead of" in next(verify(corpus, 1))
    path.unlink()
    assert "is missing" in next(verify(corpus, 1))


MASK = np.zeros((40, 48), bool)
MASK[10:20, 5:9] = True
GOOD = region("liver", MASK)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(box=(5.0, 10.0, 9.0, 21.0)), "its mask fills"),
        (dict(box=(5.0, 10.0, 49.0, 20.0)), "does not lie in the image"),
        (dict(box=(9.0, 10.0, 5.0, 20.0)), "does not lie in the image"),
        (dict(area=41.0), "its area is 41 px"),
        (dict(label="lung"), "not in the ontology"),
        (dict(rle=b"0"), "run lengths"),
        (dict(rle=region("liver", MASK.T).rle), "its mask fills"),
        (dict(rle=b"", area=39.0), "its box has 40"),
    ],
)
def test_a_damaged_region_is_told(changes, told):
    assert list(problems(example([GOOD]), LABELS)) == []
    found = list(problems(example([GOOD, dataclasses.replace(GOOD, **changes)]), LABELS))
    assert any(told in line and line.startswith("region 1") for line in found), found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(image=b"\x89PNG"), "cannot read the image"),
        (dict(image=png(np.zeros((9, 9), np.uint8))), "the image is 9 x 9 px"),
        (dict(group=""), "group is empty"),
        (dict(image_labels=("lung",)), "image label 'lung'"),
    ],
)
def test_a_damaged_record_is_told(changes, told):
    found = list(problems(dataclasses.replace(example([GOOD]), **changes), LABELS))
    assert any(told in line for line in found), found


@given(st.integers(0, 2**32), st.integers(0, 4))
def test_what_the_library_makes_is_whole(seed, regions):
    record = random_example(np.random.default_rng(seed), "a", regions)
    boxed = dataclasses.replace(record, regions=(*record.regions, box_region("cell", (0.1, 0.2, 3.7, 9.4))))
    assert list(problems(boxed, LABELS)) == []


def one_wrong(index):
    record = example([dataclasses.replace(GOOD, area=GOOD.area + (index == 500))], image_id=str(index))
    yield record


def test_one_damaged_record_among_many_is_found_by_several_workers(tmp_path):
    items = {"test": Items(range(600), functools.partial(one_wrong))}
    source = Source("many", "test", "a", {"test": items["test"].stream}, {}, items=items)
    corpus = build_corpus(tmp_path / "corpus", [lambda _: source], ONTOLOGY, Report())
    told = list(verify(corpus, 2))
    assert len(told) == 1 and told[0].startswith("many/test/500: 500: region 0 (liver): its area"), told
