"""Building a corpus: bad records are named and left out, output appears whole or not at all, equal input is equal."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from corpus_cases import ONTOLOGY, build, change_line, read_lines, write_folder, write_lines
from PIL import Image

import data.build as build_module
import data.ontology
from data.build import adapter_sources, build_corpus, folder_sources
from data.report import Report
from data.sources.folder import open_folder
from data.sources.phantoms import phantom_source
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Node


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "first")


def spoil_image(folder):
    path = folder / "images/1.png"
    path.write_bytes(path.read_bytes()[:200])


def spoil_mask_size(folder):
    Image.new("1", (20, 20), 1).save(folder / "masks/1.png")


def spoil_mask(folder):
    (folder / "masks/1.png").write_bytes(b"no mask")


def append(name, line):
    def spoil(folder):
        with (folder / name).open("a") as file:
            file.write(line + "\n")

    return spoil


def images(number, **values):
    return lambda folder: change_line(folder / "images.jsonl", number, **values)


def regions(number, **values):
    return lambda folder: change_line(folder / "annotations.jsonl", number, **values)


# what is wrong, what is said, images and regions that remain of 6 and 18
BAD = {
    "missing image": (lambda f: (f / "images/1.png").unlink(), r"images.jsonl:2: i1: missing image: .*1\.png", 5, 15),
    "unreadable image": (spoil_image, r"images.jsonl:2: i1: unreadable image: .*1\.png", 5, 15),
    "image of another size": (images(1, width=41), r"i1: image of another size: .*40 x 30 px, .* 41 x 30", 5, 15),
    "no image path": (images(1, image=None), r"images.jsonl:2: no image path", 5, 15),
    "image_id used twice": (images(1, image_id="i0"), r"images.jsonl:2: image_id used twice", 5, 15),
    "not JSON": (append("images.jsonl", "{"), r"images.jsonl:7: not JSON", 6, 18),
    "no image_id": (append("images.jsonl", "{}"), r"images.jsonl:7: no image_id", 6, 18),
    "not an object": (append("annotations.jsonl", "[3]"), r"annotations.jsonl:19: no image_id", 6, 18),
    "unknown image": (regions(3, image_id="x"), r"annotations.jsonl:4: region of an unknown image: x", 6, 17),
    "no label": (regions(3, label=None), r"annotations.jsonl:4: region without a label", 6, 17),
    "two sides": (
        regions(3, label="left liver", label_text="right liver"),
        r"annotations.jsonl:4: .*label cannot be used",
        6,
        17,
    ),
    "missing mask": (lambda f: (f / "masks/1.png").unlink(), r"i1, liver: missing mask: .*masks/1.png", 6, 17),
    "unreadable mask": (spoil_mask, r"annotations.jsonl:4: i1, liver: unreadable mask", 6, 17),
    "mask of another size": (
        spoil_mask_size,
        r"i1, liver: mask of another size: .*20 x 20 px, the image 40 x 30",
        6,
        17,
    ),
    "empty mask": (regions(4, mask_value=9), r"annotations.jsonl:5: i1, lien: empty mask: .*instances.png.* 9", 6, 17),
    "mask value": (regions(4, mask_value="9"), r"i1, lien: not a mask value", 6, 17),
    "wrong mask value": (regions(4, box=[20, 20, 30, 25]), r"i1, lien: box and mask apart", 6, 17),
    "neither": (regions(3, mask=None), r"i1, liver: neither mask nor box", 6, 17),
    "box outside": (
        regions(5, box=[5, 5, 60, 20]),
        r"i1, liver: box outside the image: box \(5, 5, 60, 20\), image 40",
        6,
        17,
    ),
    "box beside": (regions(5, box=[40, 0, 40.5, 9]), r"i1, liver: box outside the image", 6, 17),
    "x1 <= x0": (regions(5, box=[5, 5, 5, 20]), r"i1, liver: empty box: .*x0 < x1", 6, 17),
    "three numbers": (regions(5, box=[5, 5, 5]), r"i1, liver: not a box", 6, 17),
    "not finite": (regions(5, box=[5, 5, float("nan"), 9]), r"i1, liver: not a box", 6, 17),
    "text as box": (regions(5, box="5 5 9 9"), r"i1, liver: not a box", 6, 17),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_named_and_left_out_or_stops_a_strict_build(name, folder, tmp_path, capsys):
    spoil, message, image_count, region_count = BAD[name]
    spoil(folder)
    corpus = build(folder, tmp_path / "corpus")
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("new label")]
    assert told and all(line.startswith("skipped: ") for line in told)
    assert re.search(message, told[0]), told
    examples = list(corpus.source("first", "train"))
    assert len(examples) == image_count and sum(len(example.regions) for example in examples) == region_count
    assert sum(corpus.manifest["sources"]["first"]["skipped"].values()) == len(told)
    for output in (tmp_path / "strict", tmp_path / "corpus"):  # also where a lenient build has been before
        with pytest.raises(InputError, match=message) as caught:
            build(folder, output, strict=True)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "first"]


def test_a_box_that_sticks_out_by_rounding_is_clipped(folder, tmp_path):
    change_line(folder / "annotations.jsonl", 2, box=[-0.4, 0, 40.6, 12])
    region = build(folder, tmp_path / "corpus").source("first", "train")[0].regions[2]
    assert region.box == (0.0, 0.0, 40.0, 12.0) and region.area == 480


def test_unknown_labels_become_nodes_and_are_reported(folder, tmp_path, capsys):
    change_line(folder / "annotations.jsonl", 0, label="accessory_liver", label_text="accessory liver")
    change_line(folder / "images.jsonl", 0, image_labels=["Odd finding"])
    corpus = build(folder, tmp_path / "corpus")
    told = capsys.readouterr().err
    assert "annotations.jsonl:1: label 'accessory_liver' is not in the ontology: added as" in told
    assert "images.jsonl:1: label 'Odd finding'" in told
    node = corpus.ontology["accessory_liver"]
    assert node.name == "accessory liver" and node.parents == ("liver",)
    example = corpus.source("first", "train")[0]
    assert example.regions[0].label == "accessory_liver" and example.image_labels[0] in corpus.ontology
    build(folder, tmp_path / "corpus")  # known by now
    assert "new label" not in capsys.readouterr().err
    with pytest.raises(InputError, match="without --strict"):
        build(folder, tmp_path / "corpus", strict=True)


def test_labels_of_no_source_leave_the_ontology_again(folder, tmp_path):
    change_line(folder / "annotations.jsonl", 0, label="tail")
    assert "tail" in build(folder, tmp_path / "corpus").ontology
    change_line(folder / "annotations.jsonl", 0, label="liver")
    assert "tail" not in build(folder, tmp_path / "corpus").ontology


def test_labels_that_the_ontology_has_learned_since_are_resolved_anew(tmp_path):
    root, output = tmp_path / "root", tmp_path / "corpus"
    for name in ("first", "second"):
        change_line(write_folder(root / name, images=2) / "annotations.jsonl", 0, label="tail")
    build(root, output)
    before = content(output)
    learned = ONTOLOGY.with_node(Node("cauda", "cauda", synonyms=("tail",)))
    with pytest.raises(InputError, match="corpus: second: built when 'tail' .* 'cauda': build again together") as error:
        build(root / "first", output, ontology=learned)
    assert "\n" not in str(error.value) and content(output) == before
    corpus = build(root, output, ontology=learned)
    assert "tail" not in corpus.ontology
    for name in corpus.sources:
        assert corpus.source(name, "train")[0].regions[0].label == "cauda"


def content(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_same_input_gives_the_same_bytes(folder, tmp_path):
    build(folder, tmp_path / "one")
    shutil.copytree(folder, tmp_path / "elsewhere" / "first")
    code = "import pathlib, sys; from corpus_cases import build; build(*map(pathlib.Path, sys.argv[1:]))"
    command = [sys.executable, "-c", code, tmp_path / "elsewhere" / "first", tmp_path / "two"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, "tests"])})
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_sources_are_added_kept_and_replaced(tmp_path, capsys):
    first, second = write_folder(tmp_path / "first"), write_folder(tmp_path / "second", images=2)
    output = tmp_path / "corpus"
    build(first, output)
    before = {path: path.stat() for path in output.rglob("*record-*")}
    both = build(second, output)
    assert both.sources == ("first", "second") and len(both.source("first", "train")) == 6
    assert all(
        path.stat().st_ino == stat.st_ino and path.stat().st_mtime == stat.st_mtime for path, stat in before.items()
    )
    directory = output.stat().st_ino
    capsys.readouterr()
    build(first, output)
    assert "unchanged" in capsys.readouterr().out and output.stat().st_ino == directory
    Image.new("L", (40, 30), 7).save(first / "images/0.png")
    changed = build(first, output)
    assert "replaced" in capsys.readouterr().out
    assert changed.sources == ("first", "second")
    assert changed.manifest["sources"]["second"] == both.manifest["sources"]["second"]
    assert changed.manifest["sources"]["first"]["checksum"] != both.manifest["sources"]["first"]["checksum"]


def test_a_damaged_source_is_built_again(folder, tmp_path):
    corpus = build(folder, tmp_path / "corpus")
    path = next(corpus.directory.rglob("*record-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    build(folder, tmp_path / "corpus")
    assert path.read_bytes() == whole


def test_a_root_of_folders_and_its_splits(tmp_path):
    root = tmp_path / "root"
    write_folder(root / "a", images=4)
    write_folder(root / "b", images=2)
    table = {"a": {"i0": "train", "i1": "unused", "i2": "test"}}
    (root / "splits.json").write_text(json.dumps(table))
    corpus = build(root, tmp_path / "corpus", only="")
    assert corpus.sources == ("a", "b")
    ids = {split: [example.image_id for example in corpus.source("a", split)] for split in ("train", "val", "test")}
    assert ids == {"train": ["i0"], "val": [], "test": ["i2"]}  # i3 is in no split
    assert corpus.manifest["sources"]["a"]["skipped"] == {"image not in the splits": 1}
    alone = build(root / "a", tmp_path / "alone", only="")
    assert alone.manifest["sources"]["a"] == corpus.manifest["sources"]["a"]
    forced = build(root / "a", tmp_path / "forced", only="test")
    assert [example.image_id for example in forced.source("a", "test")] == ["i0", "i2", "i3"]
    with pytest.raises(InputError, match="two folders hold data set 'a'"):
        shutil.copytree(root / "a", root / "c")
        build(root, tmp_path / "corpus", only="")


def test_without_splits_groups_stay_together_and_mirrored_copies_train(tmp_path):
    folder = write_folder(tmp_path / "lots", images=120)
    rows, mirrored = read_lines(folder / "images.jsonl"), {f"p{i}" for i in range(0, 60, 3)}
    write_lines(folder / "images.jsonl", [row | {"augmented_by_mirror": row["group"] in mirrored} for row in rows])
    corpus = build(folder, tmp_path / "corpus", only="")
    groups = {split: {example.group for example in corpus.source("lots", split)} for split in corpus.splits}
    assert set(groups) == {"train", "val", "test"}
    assert sum(len(group) for group in groups.values()) == 60 == len(set.union(*groups.values()))
    assert mirrored <= groups["train"]


def test_groups_in_two_splits_are_told(tmp_path, capsys):
    folder = write_folder(tmp_path / "first", images=6)
    table = {"i0": "train", "i1": "test", "i2": "train", "i3": "train", "i4": "val", "i5": "unused"}
    (folder / "splits.json").write_text(json.dumps(table))
    build(folder, tmp_path / "corpus", only="")
    told = capsys.readouterr().err
    assert told.startswith("warning: ") and told.count("\n") == 1
    assert "first: 1 of 3 groups lie in several splits, such as 'p0' in test and train" in told
    build(folder, tmp_path / "one", only="test")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{", "not readable as JSON"),
        ('{"first": 3}', "first: expected"),
        ('{"i0": "my split"}', "'my split' cannot be"),
    ],
)
def test_broken_splits_are_named(folder, tmp_path, table, message):
    (folder / "splits.json").write_text(table)
    with pytest.raises(InputError, match=f"splits.json: .*{message}"):
        build(folder, tmp_path / "corpus", only="")


def test_a_folder_of_images_alone(tmp_path):
    folder = tmp_path / "plain"
    (folder / "images").mkdir(parents=True)
    Image.effect_noise((50, 40), 80).save(folder / "images/x.bmp")
    write_lines(folder / "images.jsonl", [{"image_id": 5, "image": "images/x.bmp", "modality": "dermoscopy"}])
    (folder / "summary.json").write_text('{"licence": "CC0"}')
    (folder / "SOURCE.md").write_text("# plain\n\n- **citation**: nobody\n- **counts**: 1\n")
    corpus = build(folder, tmp_path / "corpus")
    example = corpus.source("plain", "train")[0]
    assert example.image.startswith(b"\x89PNG") and example.image_id == example.group == "5"
    assert example.regions == () and example.flips
    assert corpus.manifest["sources"]["plain"]["provenance"] == {"licence": "CC0", "citation": "nobody"}


def test_nothing_usable_writes_nothing(folder, tmp_path, capsys):
    shutil.rmtree(folder / "images")
    with pytest.raises(InputError, match="no usable image"):
        build(folder, tmp_path / "corpus")
    assert "left out: no usable image" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    for directory, message in ((tmp_path / "nothing", "no such directory"), (folder / "masks", "images.jsonl")):
        with pytest.raises(InputError, match=message):
            build(directory, tmp_path / "corpus")


def test_phantoms_follow_their_recipe(tmp_path):
    shipped = data.ontology.load()

    def made(name, **recipe):
        source = phantom_source({"train": 4}, recipe.get("seed", 0), recipe.get("size", 48))
        return build_corpus(tmp_path / name, [lambda _: source], shipped, Report())

    one, same, other = made("one"), made("same"), made("other", seed=1)
    assert content(one.directory) == content(same.directory)
    assert one.source("phantoms", "train")[0] != other.source("phantoms", "train")[0]
    pixels = {example.width for example in one.source("phantoms", "train")}
    assert pixels == {48}
    with pytest.raises(InputError, match="--size=8: expected"):
        phantom_source({"train": 4}, 0, 8)


def test_a_label_outside_the_ontology_stops_a_generated_source(tmp_path):
    source = phantom_source({"train": 2}, 0, 48)
    with pytest.raises(InputError, match="phantoms/.*is not in the ontology"):
        build_corpus(tmp_path / "corpus", [lambda _: source], ONTOLOGY, Report())
    assert not list(tmp_path.iterdir())


def test_every_region_of_an_instance_map_is_its_own(folder, tmp_path):
    values = np.zeros((30, 40), np.uint16)
    values[2:4, 2:6], values[10:20, 30:40] = 1, 65535
    Image.fromarray(values).save(folder / "masks/0_instances.png")
    change_line(folder / "annotations.jsonl", 1, mask_value=65535)
    corpus = build(folder, tmp_path / "corpus")
    assert corpus.source("first", "train")[0].regions[1].box == (30.0, 10.0, 40.0, 20.0)


def test_folder_names_are_found_at_the_root_or_below(tmp_path):
    write_folder(tmp_path / "root/b")
    write_folder(tmp_path / "root/a")
    (tmp_path / "root/other").mkdir()
    assert len(folder_sources(tmp_path / "root", ONTOLOGY, "", Report())) == 2
    assert len(folder_sources(pathlib.Path(tmp_path / "root/a"), ONTOLOGY, "", Report())) == 1


def test_options_reach_their_adapter_and_no_other(folder, tmp_path, monkeypatch):
    seen = []

    def open_with_options(path, ontology, shipped, only, report, *, options):
        seen.append(dict(options))
        return open_folder(path, ontology, shipped, only, report)

    monkeypatch.setitem(build_module.ADAPTERS, "slices", open_with_options)
    monkeypatch.setattr(sys.modules[__name__], "OPTIONS", {"axis": "0, 1 or 2", "window": "a name"}, raising=False)
    report = Report()
    sources = adapter_sources("slices", folder, ONTOLOGY, "train", report, ["axis=2", "window=a=b"])
    build_corpus(tmp_path / "corpus", sources, ONTOLOGY, report)
    assert seen == [{"axis": "2", "window": "a=b"}]
    for wrong, message in ((["axi=2"], "axis: 0, 1 or 2; window"), (["axis"], "key=value"), (["axis=1"] * 2, "twice")):
        with pytest.raises(InputError, match=message):
            adapter_sources("slices", folder, ONTOLOGY, "train", report, wrong)
    with pytest.raises(InputError, match="--option=axis=1: .* folder, which are none"):
        adapter_sources("folder", folder, ONTOLOGY, "train", report, ["axis=1"])
