"""Rows of tables: little memory, nothing read before it is asked for, the same in any process, splits and options."""

import json
import pickle
import tracemalloc

import cloudpickle
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from data.build import ADAPTERS, adapter_sources, build_corpus
from data.report import Report
from data.sources import pictures, regions, rows
from data.sources.class_folders import open_class_folders
from data.sources.options import COMMON
from data.sources.rows import Packed, Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import encode_mask
from tests.sources_cases import ONTOLOGY, examples, marked, opened, save, told

TEXT = st.text(max_size=9) | st.just("caf\udce9")
ROWS = st.builds(
    Row, TEXT, TEXT, TEXT, labels=st.lists(TEXT, max_size=3).map(tuple), caption=TEXT,
    detail=st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)  # fmt: skip


@hypothesis.given(st.lists(ROWS, max_size=6))
def test_packed_rows_come_back_as_they_were(listed):
    packed = Packed()
    for row in listed:
        packed.append(row)
    assert list(packed) == listed and len(packed) == len(listed) and packed[1:3] == listed[1:3]
    if listed:
        assert packed[-1] == listed[-1]
        with pytest.raises(IndexError):
            packed[len(listed)]


def test_rows_take_little_more_than_their_text():
    row = Row("table.jsonl:1234567", "PMC8253797_Fig4_41_3", "images/PMC8253797_Fig4_41_3.jpg", "PMC8253797")
    tracemalloc.start()
    packed = Packed()
    for _ in range(5_000):
        packed.append(row)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used / len(packed) < 300, "bytes a row"


def folder_of(path, count):
    for i in range(count):
        save(path / f"liver/{i:05}.png", marked(i % 3)[0])
    return path


def test_pixels_are_read_one_image_at_a_time(tmp_path, monkeypatch):
    read = []
    original = pictures.read_picture
    monkeypatch.setattr(rows, "read_picture", lambda path, where: read.append(path) or original(path, where))
    source = opened(open_class_folders, folder_of(tmp_path / "set", 20))
    assert not read, "opening reads no pixels"
    stream = source.splits["train"]()
    for count in range(1, 6):
        next(stream)
        assert len(read) == count


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    def peak(count):
        source = opened(open_class_folders, folder_of(tmp_path / f"{count}", count))
        tracemalloc.start()
        assert sum(1 for _ in source.splits["train"]()) == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(5)  # what is loaded once
    assert peak(120) < peak(20) + 50_000


def test_items_travel_to_other_processes_and_give_the_same(tmp_path):
    source = opened(open_class_folders, folder_of(tmp_path / "set", 4))
    part = source.items["train"]
    make, sent = pickle.loads(cloudpickle.dumps((part.make, [part.items[i] for i in range(4)])))
    assert [example for item in sent for example in make(item)] == examples(source)


def test_two_openings_agree_and_changes_are_noticed(tmp_path):
    folder = folder_of(tmp_path / "set", 3)
    first, second = (opened(open_class_folders, folder) for _ in range(2))
    assert first.fingerprint == second.fingerprint and examples(first) == examples(second)
    save(folder / "liver/00001.png", marked(7)[0])
    assert opened(open_class_folders, folder).fingerprint != first.fingerprint
    tables = opened(open_class_folders, folder, check="tables").fingerprint
    save(folder / "liver/00001.png", marked(8)[0])
    assert opened(open_class_folders, folder, check="tables").fingerprint == tables
    assert opened(open_class_folders, folder, modality="ct").fingerprint != first.fingerprint


def test_splits_json_goes_before_the_data_sets_own_splits(tmp_path, capsys):
    folder = tmp_path / "set"
    for path in ("train/liver/a.png", "train/liver/b.png", "test/liver/c.png", "test/liver/d.png"):
        save(folder / path, marked()[0])
    own = opened(open_class_folders, folder, only="")
    assert {split: len(part.items) for split, part in own.items.items()} == {"train": 2, "test": 2}
    table = {"train/liver/a.png": "val", "train/liver/b.png": "unused", "test/liver/c.png": "test"}
    (folder / "splits.json").write_text(json.dumps({"set": table}))
    stated = opened(open_class_folders, folder, only="")
    assert {split: [row.image_id for row in part.items] for split, part in stated.items.items()} == {
        "test": ["test/liver/c.png"], "val": ["train/liver/a.png"],
    }  # fmt: skip
    assert "d.png: image not in the splits" in told(capsys)[0]
    assert [len(part.items) for part in opened(open_class_folders, folder, only="x").items.values()] == [3]


def test_a_group_in_two_splits_is_told(tmp_path, capsys):
    folder = tmp_path / "set"
    for path in ("train/liver/p1_a.png", "test/liver/p1_b.png", "test/liver/p2_a.png"):
        save(folder / path, marked()[0])
    opened(open_class_folders, folder, only="", group=r"(p\d)_")
    (line,) = told(capsys)
    assert "1 of 2 groups lie in several splits, such as 'p1' in test and train" in line


def test_names_of_any_bytes_reach_a_corpus(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    folder = tmp_path / "set"
    (folder / "liver").mkdir(parents=True)
    (folder / "liver" / name).write_bytes(save(tmp_path / "a.png", marked()[0]).read_bytes())
    opener = [lambda ontology: open_class_folders(folder, ontology, ontology, "train", Report(), {})]
    corpus = build_corpus(tmp_path / "corpus", opener, ONTOLOGY, Report())
    assert corpus.source("set", "train")[0].image_id == r"liver/caf\xe9.png"


@pytest.mark.parametrize(
    "adapter", ["coco", "samed2d", "imed361m", "mask_png", "csv_boxes", "class_folders", "captions"]
)
def test_every_adapter_names_its_options(adapter, tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match=f"an option of {adapter}, which are .*modality: ") as caught:
        adapter_sources(adapter, tmp_path, ONTOLOGY, "", Report(), ["nonsense=1"])
    assert all(key in str(caught.value) for key in COMMON) and ADAPTERS[adapter]


def test_the_same_in_one_process_and_in_two(tmp_path):
    folder = folder_of(tmp_path / "set", 140)
    (folder / "liver/00007.png").write_bytes(b"no image")

    def made(name, workers):
        report = Report()
        opener = [lambda ontology: open_class_folders(folder, ontology, ontology, "train", report, {})]
        return build_corpus(tmp_path / name, opener, ONTOLOGY, report, workers=workers).manifest

    assert made("one", 1) == made("two", 2)


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.booleans())
def test_all_values_of_a_map_at_once_equal_each_alone(seed, height, width, values, blocks):
    maps = np.random.default_rng(seed).integers(-1, values, (height, width)).astype(np.int16)
    if blocks:
        maps = np.sort(maps.ravel()).reshape(height, width)
    found = dict(regions.of_values(maps))
    assert list(found) == np.unique(maps).tolist()
    for value, counts in found.items():
        assert counts == encode_mask(maps == value)
        assert regions.of_rle("x", counts, height, width, "").box == regions.tight_box(maps == value)
