"""Shards: the same bytes from any number of processes and starts; what is finished is not done again; TFDS reads it."""

import dataclasses
import functools
import io
import pathlib
import resource
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.proto import tf_example_pb2
from tiny_corpus import ONTOLOGY, box_region, example, random_example

from data import manifest, shards
from data.build import build_corpus
from data.region_corpus import region_corpus
from data.report import Report
from data.sources import Items, Source
from medp_clip_jax.errors import InputError


def make(report: Report, fail: int, index: int):
    """Item i: two records of one group, but none where i is a multiple of 7, and a line where it is one of 5."""
    if index == fail:
        raise InputError(f"item {index}: broken")
    if index % 5 == 0:
        report.skip(f"item {index}", "odd", "it is")
    for half in range(2 if index % 7 else 0):
        rng = np.random.default_rng((index, half))
        yield random_example(rng, f"{index}_{half}", group=f"g{index // 3}", image_labels=("nodule",))


def source(report: Report, streamed: bool = False, fail: int = -1, fingerprint: str = "one") -> Source:
    items = Items(range(120), functools.partial(make, report, fail), 2)
    return Source("made", "test", fingerprint, {"train": items.stream}, {}, items={} if streamed else {"train": items})


def build(output: pathlib.Path, workers: int = 1, **changes):
    report = Report()
    return build_corpus(output, [lambda _: source(report, **changes)], ONTOLOGY, report, workers)


def content(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    """Several shards of few records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SMALLEST", 32)
        yield


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A corpus written by one process at once, and what it said."""
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", errors)
        corpus = build(tmp_path_factory.mktemp("one") / "corpus")
    return corpus, errors.getvalue()


def test_two_workers_write_the_same_bytes_and_say_the_same(one, tmp_path, capsys):
    corpus, told = one
    build(tmp_path / "corpus", workers=2)
    assert content(tmp_path / "corpus") == content(corpus.directory)
    assert len(corpus.manifest["sources"]["made"]["files"]) > 4
    assert capsys.readouterr().err == told
    assert [line.split(":")[1] for line in told.splitlines()] == [f" item {index}" for index in range(0, 120, 5)]
    assert list(tmp_path.iterdir()) == [tmp_path / "corpus"]


def test_tfds_reads_it_by_itself(one):
    corpus, _ = one
    entry = corpus.manifest["sources"]["made"]
    builder = tfds.builder_from_directory(corpus.directory / entry["path"])
    records = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    ids = [f"{index}_{half}" for index in range(120) if index % 7 for half in range(2)]
    assert [record["image_id"].decode() for record in records] == ids
    assert builder.info.splits["train"].num_examples == len(ids) == corpus.count("made", "train")
    assert sum(builder.info.splits["train"].shard_lengths) == len(ids)
    pixels = builder.as_data_source(split="train")[3]["image"]
    stored = corpus.source("made", "train")[3]
    assert pixels.shape == (stored.height, stored.width, 3)


def test_every_shard_has_its_checksum(one):
    corpus, _ = one
    entry = corpus.manifest["sources"]["made"]
    assert list(entry["checksums"]) == list(entry["files"])
    for name, checksum in entry["checksums"].items():
        assert shards.checksum(corpus.directory / name) == checksum


def test_counts_are_those_of_the_records(one):
    corpus, _ = one
    counts = manifest.SplitCounts()
    records = list(counts.watch(corpus.source("made", "train")))
    stored = corpus.manifest["sources"]["made"]["splits"]["train"]
    assert {name: stored[name] for name in counts.as_json()} == counts.as_json()
    assert stored["groups"] == len({record.group for record in records})
    for label, groups in stored["label_groups"].items():
        assert groups == len({r.group for r in records if label in {region.label for region in r.regions}})
    assert corpus.manifest["sources"]["made"]["skipped"] == {"odd": 24}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_finished_is_not_done_again(one, tmp_path, streamed, workers, monkeypatch, capsys):
    monkeypatch.setattr(shards, "STREAMED", 40)
    with pytest.raises(InputError, match="item 70: broken"):
        build(tmp_path / "corpus", workers, streamed=streamed, fail=70)
    parts = tmp_path / ".corpus.building/.unfinished_shards/made"
    done = [mark.with_name(mark.name.replace("done.json", "array_record")) for mark in parts.glob("*.done.json")]
    before = {path: path.stat().st_mtime_ns for path in done}
    assert before and not (tmp_path / "corpus").exists()
    assert not list(parts.glob("*incomplete*"))
    capsys.readouterr()
    kept = {}
    merge = manifest.merge

    def look(*arguments):
        kept.update({path: path.stat().st_mtime_ns for path in before})
        return merge(*arguments)

    monkeypatch.setattr(manifest, "merge", look)
    corpus = build(tmp_path / "corpus", workers, streamed=streamed)
    assert kept == before
    assert capsys.readouterr().err == one[1]  # all of it, also of what was made before
    assert list(corpus.source("made", "train")) == list(one[0].source("made", "train"))
    if not streamed:
        monkeypatch.undo()
        assert content(tmp_path / "corpus") == content(one[0].directory)
    assert list(tmp_path.iterdir()) == [tmp_path / "corpus"]


def growing(index):
    yield example(
        pixels=np.random.default_rng(index).integers(0, 255, (8 + 3 * index,) * 2, np.uint8), image_id=str(index)
    )


def test_a_full_disk_is_told_and_what_is_finished_stays(tmp_path):
    items = {"train": Items(range(96), growing)}
    source = Source("growing", "test", "one", {"train": items["train"].stream}, {}, items=items)

    def build(output):
        return build_corpus(output, [lambda _: source], ONTOLOGY, Report())

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))  # the first shard fits, the others do not
        with pytest.raises(InputError, match="growing cannot be written .*File too large.*room .*goes on") as caught:
            build(tmp_path / "corpus")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    left = sorted(path.name for path in (tmp_path / ".corpus.building").rglob("*.*") if path.is_file())
    assert left == ["plan.json", "train-00000.array_record", "train-00000.done.json", "train-00000.npz"]
    build(tmp_path / "corpus")
    build(tmp_path / "whole")
    assert content(tmp_path / "corpus") == content(tmp_path / "whole")


def test_shards_of_other_input_are_not_taken_over(one, tmp_path):
    with pytest.raises(InputError, match="broken"):
        build(tmp_path / "corpus", fail=100, fingerprint="another")
    build(tmp_path / "corpus")
    assert content(tmp_path / "corpus") == content(one[0].directory)


def test_a_strict_build_takes_over_no_shard_that_skipped(tmp_path):
    with pytest.raises(InputError, match="broken"):
        build(tmp_path / "corpus", fail=100)
    report = Report(strict=True)
    with pytest.raises(InputError, match="item 0: odd"):
        build_corpus(tmp_path / "corpus", [lambda _: source(report)], ONTOLOGY, report)


def test_a_fresh_build_throws_finished_shards_away(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="broken"):
        build(tmp_path / "corpus", fail=100)
    wrong = next((tmp_path / ".corpus.building").rglob("train-00001.done.json"))
    wrong.write_text(wrong.read_text().replace('"images"', '"imagez"'))
    report = Report()
    corpus = build_corpus(tmp_path / "corpus", [lambda _: source(report)], ONTOLOGY, report, fresh=True)
    assert corpus.count("made", "train") == 2 * (120 - 18)


def test_the_first_failure_in_order_is_told(tmp_path):
    report = Report()
    broken = source(report)

    def fail(index):
        if index in (40, 110):
            raise InputError(f"item {index}: broken")
        return make(report, -1, index)

    items = {"train": Items(range(120), fail, 2)}
    broken = dataclasses.replace(broken, items=items)
    with pytest.raises(InputError, match="item 40: broken"):
        build_corpus(tmp_path / "corpus", [lambda _: broken], ONTOLOGY, report, 2)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(
    st.lists(st.tuples(st.sampled_from(list(ONTOLOGY)), st.floats(0, 1e6), st.binary(max_size=4)), max_size=3),
    st.lists(texts, max_size=2),
    texts,
    st.booleans(),
)
@settings(max_examples=40)
def test_a_record_is_the_example_that_tfds_would_write(regions, image_labels, text, flips):
    made = [dataclasses.replace(box_region(label, (0, 1, 2.3, side)), rle=rle) for label, side, rle in regions]
    record = example(made, image_id=text, image_labels=tuple(image_labels), caption=text, flips=flips)
    features = region_corpus.RegionCorpus("made", "nowhere").info.features
    fields = {**dataclasses.asdict(record), "image": io.BytesIO(record.image)}
    encoded = features.encode_example(fields)
    theirs = example_serializer.ExampleSerializer(features.get_serialized_info()).serialize_example(encoded)
    theirs = tf_example_pb2.Example.FromString(theirs).SerializeToString(deterministic=True)
    assert region_corpus.serialize(record) == theirs


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=9), max_size=5))
@settings(max_examples=20)
def test_groups_of_several_shards_count_once(tmp_path_factory, parts):
    directory = tmp_path_factory.mktemp("hashes")
    paths, counts = [], []
    for number, part in enumerate(parts):
        counted = manifest.SplitCounts()
        for label, group in part:
            list(counted.watch([example([box_region(label, (0, 0, 1, 1))], group=str(group))]))
        paths.append(directory / f"{number}.npz")
        manifest.save_hashes(paths[-1], counted.hashes())
        counts.append(counted.as_json())
    for at_once in (manifest.AT_ONCE, 20):  # in one range, and in many
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest, "AT_ONCE", at_once)
            merged = manifest.merge(counts, paths)
        everything = [pair for part in parts for pair in part]
        assert merged["groups"] == len({group for _, group in everything})
        assert merged["label_groups"] == {
            label: len({g for name, g in everything if name == label})
            for label in sorted({name for name, _ in everything})
        }


@given(st.integers(0, 5000), st.floats(0.1, 3000))
def test_every_item_is_in_one_shard(count, records):
    made = Source("a", "a", "a", {"train": iter}, {}, items={"train": Items(range(count), iter, records)})
    tasks = shards.plan(made)
    assert [i for task in tasks for i in shards.items_of(made, task)] == list(range(count))
    assert [task.number for task in tasks] == list(range(len(tasks)))
    for task in tasks[:-1]:
        assert (task.end - task.begin) * records <= max(1.5 * shards.LARGEST, records)
