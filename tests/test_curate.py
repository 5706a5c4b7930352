"""Curation: each rule finds what it names and nothing else, pairs are all pairs, and what stays is the new corpus."""

import dataclasses
import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_corpus import ONTOLOGY, box_region, example, png, region

from data.build import build_corpus
from data.curate import curate
from data.curation import config as curation
from data.curation import images, pairs, regions
from data.curation.balance import Cells, image_weights
from data.report import Report
from data.sources import Items, Source
from data.verify import verify
from medp_clip_jax.corpus import open_corpus
from medp_clip_jax.errors import InputError

SIZE = (40, 48)
CONFIG = curation.get_config()


def blob(rows=slice(10, 25), columns=slice(10, 25)):
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


def specks():
    mask = np.zeros(SIZE, bool)
    mask[4:36:4, 4:44:4] = True
    return mask


def broken():
    mask = np.zeros(SIZE, bool)
    for row, column in itertools.product(range(4, 36, 8), range(4, 44, 8)):
        mask[row : row + 3, column : column + 3] = True
    return mask


def related(a, b):
    return a in ONTOLOGY.ancestors(b) or b in ONTOLOGY.ancestors(a)


def rules(*found, config=CONFIG):
    return [(f.region, f.rule) for f in regions.findings(example(found), config, related)]


GOOD = region("liver", blob())
BAD = {
    "tiny": region("liver", blob(slice(10, 12), slice(10, 12))),
    "border": region("liver", blob(slice(0, 2), slice(0, 48))),
    "noise": region("liver", specks()),
    "fragments": region("liver", broken()),
    "whole": region("liver", blob(slice(None), slice(None))),
    "damaged": dataclasses.replace(GOOD, box=(9.0, 10.0, 25.0, 25.0)),
    "empty": dataclasses.replace(GOOD, area=0.0),
    "repeated": region("liver", blob(slice(11, 27), slice(30, 45))),
}


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_finds_its_own(rule):
    first = [BAD["repeated"]] if rule == "repeated" else [GOOD]
    assert rules(*first) == []
    assert rules(*first, BAD[rule]) == [(1, rule)]
    quiet = curation.get_config()
    quiet[rule].action = "keep"
    assert (1, rule) not in rules(*first, BAD[rule], config=quiet)


def test_overlaps_with_relatives_are_no_conflict():
    other = dataclasses.replace(GOOD, label="nodule")
    kidney, left = (dataclasses.replace(GOOD, label=label) for label in ("kidney", "left_kidney"))
    assert rules(GOOD, other) == [(1, "conflict")]
    assert rules(kidney, left) == rules(left, kidney) == []
    boxed = box_region("liver", GOOD.box)
    assert rules(GOOD, boxed) == [] and rules(boxed, boxed) == [(1, "repeated")]


def test_a_dropped_region_is_in_nobodys_way():
    damaged = BAD["tiny"]
    assert rules(damaged, damaged) == [(0, "tiny"), (1, "tiny")]


boxes = st.tuples(st.integers(0, 20), st.integers(1, 19), st.integers(0, 20), st.integers(1, 27))


@given(boxes, boxes)
def test_overlap_of_cut_masks_is_that_of_whole_ones(a, b):
    masks = [blob(slice(y, y + h), slice(x, x + w)) for y, h, x, w in (a, b)]
    made = [region("liver", mask) for mask in masks]
    cut = [m[int(r.box[1]) : int(r.box[3]), int(r.box[0]) : int(r.box[2])] for m, r in zip(masks, made, strict=True)]
    expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert regions.iou(made[0].box, cut[0], made[1].box, cut[1]) == pytest.approx(expected)
    assert regions.iou(made[0].box, None, made[1].box, None) == pytest.approx(expected)  # these masks are their boxes


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (example(pixels=noise(0)), None),
        (example(pixels=np.full(SIZE, 90, np.uint8)), "flat"),
        (example(pixels=noise(0, (20, 48))), "small"),
        (dataclasses.replace(example(), image=png(noise(0))[:300]), "corrupt"),
        (dataclasses.replace(example(pixels=noise(0)), width=47), "corrupt"),
    ],
)
def test_each_rule_for_images_finds_its_own(record, rule):
    finding, signature = images.look_at(record, CONFIG)
    assert (finding and finding.rule) == rule
    assert (signature is None) == (rule in ("flat", "corrupt"))


def test_a_signature_survives_scaling_and_encoding():
    base = Image.fromarray(noise(1, (9, 9))).resize((200, 160), Image.Resampling.BICUBIC)
    jpeg = io.BytesIO()
    base.resize((150, 120), Image.Resampling.BICUBIC).save(jpeg, "JPEG", quality=80)
    one = images.look_at(example(pixels=np.asarray(base)), CONFIG)[1]
    record = dataclasses.replace(example(), image=jpeg.getvalue(), width=150, height=120)
    other = images.look_at(record, CONFIG)[1]
    assert one.exact != other.exact
    assert (one.look ^ other.look).bit_count() <= CONFIG.near.distance
    assert np.abs(one.thumb.astype(int) - other.thumb).mean() <= CONFIG.near.difference


@given(st.lists(st.integers(0, 2**64 - 1), max_size=6), st.integers(0, 2**32), st.integers(0, 8))
@settings(max_examples=60)
def test_near_pairs_are_all_near_pairs(seeds, seed, distance):
    rng = np.random.default_rng(seed)
    hashes = [value ^ sum(1 << int(b) for b in rng.choice(64, rng.integers(6), False)) for value in seeds * 4]
    hashes = np.array(hashes, np.uint64)
    groups = rng.integers(0, 5, len(hashes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "BLOCK", 3)
        blocks = list(pairs.near_pairs(hashes, distance, groups))
    found = [tuple(pair) for block in blocks for pair in block.tolist()]
    expected = [
        (a, b)
        for a, b in itertools.combinations(range(len(hashes)), 2)
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= distance and groups[a] != groups[b]
    ]
    assert sorted(found) == expected


@given(st.lists(st.integers(0, 4), max_size=20))
def test_equal_pairs_name_the_first(values):
    found = pairs.equal_pairs(np.array(values, np.uint64)).tolist()
    assert found == [[values.index(v), i] for i, v in enumerate(values) if values.index(v) != i]


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=30), st.floats(0, 1))
def test_weights_balance(labels, temperature):
    owner = np.repeat(np.arange(len(labels)), [len(found) for found in labels])
    cells = Cells(np.concatenate(labels).astype(np.int64), owner, len(labels), (2, 3))
    assert np.allclose(image_weights(cells, 1.0, 8.0), 1.0)
    weights = image_weights(cells, temperature, 8.0)
    assert ((weights >= 1 / 8) & (weights <= 8)).all()
    alone = Cells(cells.cell, np.arange(len(cells.cell)), len(cells.cell), (2, 3))  # one region an image
    counts = alone.counts()
    drawn = alone.counts(image_weights(alone, temperature, 1e9))
    there = counts > 0
    ratio = drawn[there] / counts[there] ** temperature
    assert np.allclose(ratio, ratio[0], rtol=1e-4)
    assert drawn.sum() == pytest.approx(counts.sum(), rel=1e-4)


def made(split, index, group, seed, found=(GOOD,), **fields):
    return split, example(found, noise(seed), str(index), group=group, **fields)


RECORDS = {
    "first": [
        made("train", 0, "a", 0),
        made("train", 1, "b", 1, [GOOD, BAD["tiny"]]),
        made("train", 2, "c", 2),  # the patient is in test, too
        made("train", 3, "d", 0),  # the bytes of train/0
        made("train", 4, "e", 5),  # the bytes of a test image of the other source
        made("train", 5, "f", 1, [dataclasses.replace(GOOD, label="nodule")]),  # bytes of train/1, another label
        made("train", 6, "g", 6, [BAD["tiny"]], modality="mri"),  # loses all its regions
        ("train", example([GOOD], np.full(SIZE, 9, np.uint8), "7", group="h")),  # flat
        made("train", 8, "i", 8),  # in the evaluation corpus
        made("train", 9, "j", 9),  # its patient is there
        made("test", 0, "c", 20),
    ],
    "second": [made("test", 0, "z", 5), made("train", 0, "y", 30)],
}
EVALUATION = {"first": [made("test", 0, "j", 40), made("test", 1, "k", 8), made("train", 0, "l", 30)]}


def corpus(path, records):
    def source(name, found):
        items = {
            split: Items(range(len(chosen)), lambda i, chosen=chosen: iter([chosen[i]]))
            for split in sorted({split for split, _ in found})
            for chosen in [[dataclasses.replace(r, dataset=name) for s, r in found if s == split]]
        }
        streams = {split: part.stream for split, part in items.items()}
        return Source(name, "test", str(path), streams, {"licence": "CC0"}, items=items)

    openers = [lambda _, pair=pair: source(*pair) for pair in records.items()]
    return build_corpus(path, openers, ONTOLOGY, Report())


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    root = tmp_path_factory.mktemp("curate")
    (root / "work").mkdir()
    whole, evaluation = corpus(root / "whole", RECORDS), corpus(root / "evaluation", EVALUATION)
    report = curate(whole, [evaluation], CONFIG, 1, root / "work", root / "curated")
    return root, report


def test_what_stays_is_what_no_rule_drops(curated):
    root, _ = curated
    corpus = open_corpus(root / "curated")
    ids = {
        (name, split): [r.image_id for r in corpus.source(name, split)]
        for name in corpus.sources
        for split in corpus.splits
    }
    assert ids == {
        ("first", "train"): ["0", "1", "5", "6"],
        ("first", "test"): ["0"],
        ("second", "train"): ["0"],
        ("second", "test"): ["0"],
    }
    assert [len(record.regions) for record in corpus.source("first", "train")] == [1, 1, 1, 0]
    whole = open_corpus(root / "whole")
    assert corpus.source("first", "train")[0] == whole.source("first", "train")[0]
    assert corpus.source("first", "test")[0] == whole.source("first", "test")[0]
    assert corpus.manifest["sources"]["first"]["provenance"]["licence"] == "CC0"
    assert list(verify(corpus, 1)) == []


def test_the_report_names_each_finding(curated):
    root, report = curated
    found = {rule["rule"]: rule["found"] for rule in report["rules"] if rule["found"]}
    expected = {
        "flat": 1,
        "tiny": 2,
        "bare": 1,
        "groups": 1,
        "leak_group": 1,
        "leak_exact": 2,
        "exact": 1,
        "relabelled": 1,
    }
    assert found == expected
    corpus = open_corpus(root / "curated")
    assert json.loads((root / "curated/curation.json").read_text()) == report
    counted = sum(corpus.count(name, split) for name in corpus.sources for split in corpus.splits)
    assert report["after"]["images"] == counted == 7 and report["before"]["images"] == 13
    assert report["after"]["regions"] == sum(sum(corpus.label_counts(split).values()) for split in corpus.splits)
    lines = [json.loads(line) for line in (root / "curated/curation/findings.jsonl").read_text().splitlines()]
    assert len(lines) == sum(found.values())
    by_rule = {line["rule"]: line for line in lines}
    assert (
        by_rule["leak_group"]["record"] == "first/train/9"
        and by_rule["leak_group"]["partner"] == "evaluation:first/test/0"
    )
    assert by_rule["exact"]["record"] == "first/train/3" and by_rule["exact"]["partner"] == "first/train/0"
    leaks = [(line["record"], line["partner"]) for line in lines if line["rule"] == "leak_exact"]
    assert leaks == [("first/train/4", "second/test/0"), ("first/train/8", "evaluation:first/test/1")]
    pairs_told = {rule["rule"]: rule["pairs"] for rule in report["rules"]}
    assert pairs_told["leak_exact"] == [["first", "evaluation:first", 1], ["first", "second", 1]]


def test_weights_are_those_of_the_images_that_stay(curated):
    root, report = curated
    corpus = open_corpus(root / "curated")
    for name in corpus.sources:
        weights = corpus.weights(name, "train")
        assert len(weights) == corpus.count(name, "train") and (weights > 0).all()
        with pytest.raises(InputError, match="no weights of the images"):
            open_corpus(root / "whole").weights(name, "train")
    assert report["balance"]["before"] == {"ct": {"liver": 3.0, "nodule": 1.0}, "mri": {"": 1.0}}
    after = report["balance"]["after"]
    assert after["ct"]["nodule"] / after["ct"]["liver"] > 1 / 3  # what is rare is drawn more often


def test_the_same_corpus_from_two_workers_and_again(curated, tmp_path):
    root, report = curated
    command = [
        sys.executable, "-m", "data.curate", f"--corpus={root / 'whole'}", f"--evaluation={root / 'evaluation'}",
        f"--output={tmp_path / 'curated'}", f"--report={tmp_path / 'report.json'}", "--workers=2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert json.loads((tmp_path / "report.json").read_text()) == report
    for path in sorted((root / "curated").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(root)).read_bytes(), path
    wrong = subprocess.run([*command, "--config.near.distance=40"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "0 to 16 bits" in wrong.stderr


def test_a_missing_library_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(InputError, match=r"medp-clip-jax\[curate\]"):
        images.signature(b"", np.zeros((8, 8), np.float32))
