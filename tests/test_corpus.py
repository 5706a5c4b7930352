"""Reading a corpus: what was written comes back, from any thread or process, and damage is named."""

import concurrent.futures
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from corpus_cases import SIZE, build, write_folder

from medp_clip_jax.corpus import ensure_corpus, open_corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image, decode_mask


@pytest.fixture
def corpus(tmp_path):
    return build(write_folder(tmp_path / "first"), tmp_path / "corpus")


def record_file(corpus, split="train"):
    return next(corpus.directory.rglob(f"*-{split}.array_record*"))


def test_what_was_written_comes_back(corpus):
    examples = corpus.source("first", "train")
    assert len(examples) == 6 and [example.image_id for example in examples] == [f"i{i}" for i in range(6)]
    example = examples[3]
    assert (example.width, example.height) == SIZE and example.group == "p1" and example.dataset == "first"
    assert (example.modality, example.anatomy, example.view, example.caption) == ("ct", "abdomen", "", "")
    assert example.image_labels == ("no_finding",) and example.flips is False
    np.testing.assert_array_equal(
        decode_image(example.image)[..., 0], np.random.default_rng(3).integers(0, 255, SIZE[::-1], np.uint8)
    )
    assert [region.label for region in example.regions] == ["liver", "spleen", "liver"]
    mask, instance, box = example.regions
    assert mask.box == (4.0, 5.0, 15.0, 15.0) and mask.area == 110
    assert decode_mask(mask.rle, SIZE[1], SIZE[0])[5:15, 4:15].all()
    assert instance.box == (1.0, 26.0, 3.0, 29.0) and instance.area == 6
    assert box.box == (1.0, 2.0, 21.0, 12.0) and box.rle == b"" and box.area == 200


def test_indexing_follows_sequence_rules(corpus):
    examples = corpus.source("first", "train")
    assert examples[-1] == examples[5] and examples[1:4:2] == [examples[1], examples[3]]
    assert examples[np.int64(2)].image_id == "i2"
    with pytest.raises(IndexError):
        examples[6]


def test_counts_come_from_the_manifest(corpus):
    assert corpus.sources == ("first",) and corpus.labels == ("liver", "spleen") and corpus.splits == ("train",)
    assert corpus.label_counts("train") == {"liver": 12, "spleen": 6} and corpus.label_counts("val") == {}
    assert corpus.label_counts("train", corpus.sources[:0]) == {}
    assert corpus.count("first", "train") == 6 and corpus.count("first", "test") == 0
    assert len(corpus.source("first", "test")) == 0
    split = corpus.manifest["sources"]["first"]["splits"]["train"]
    assert split["modalities"] == {"ct": 6} and split["image_labels"] == {"no_finding": 6}
    assert (split["images"], split["regions"], split["masks"], split["groups"]) == (6, 18, 12, 3)
    assert "liver" in corpus.ontology and "organ" in corpus.ontology


def test_threads_and_pickles_read_the_same(corpus):
    examples = corpus.source("first", "train")
    wanted = list(corpus.source("first", "train"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(examples.__getitem__, list(range(6)) * 50)) == wanted * 50
    assert list(pickle.loads(pickle.dumps(examples))) == wanted
    assert repr(examples) == "first/train [6]"


def test_an_unknown_source_is_named(corpus):
    with pytest.raises(InputError, match="no source 'second', it has first"):
        corpus.source("second", "train")


def test_a_truncated_file_is_named(corpus):
    path = record_file(corpus)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{path.name}.*bytes instead of.*build this source again"):
        corpus.source("first", "train")
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        corpus.source("first", "train")


def test_a_damaged_record_is_named(corpus):
    path = record_file(corpus)
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(InputError, match="first.*record 0 of split 'train' is unreadable") as caught:
        corpus.source("first", "train")[0]
    assert "\n" not in str(caught.value)


def test_a_directory_without_a_corpus(tmp_path):
    for directory in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="not a corpus.*python -m data.build"):
            open_corpus(directory)
        with pytest.raises(InputError, match="not a corpus"):
            ensure_corpus(directory, ())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "sources": 3}'])
def test_a_broken_manifest(corpus, text):
    (corpus.directory / "corpus.json").write_text(text)
    with pytest.raises(InputError, match="corpus.json: not a corpus manifest"):
        open_corpus(corpus.directory)


def test_another_format_and_a_missing_ontology(corpus):
    (corpus.directory / "ontology.json").unlink()
    with pytest.raises(InputError, match="ontology.json"):
        open_corpus(corpus.directory)
    path = corpus.directory / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        open_corpus(corpus.directory)


def test_ensure_opens_or_builds_or_says_why_not(corpus, tmp_path, capfd):
    assert ensure_corpus(corpus.directory, ["--source=nonsense"]).manifest == corpus.manifest
    output = tmp_path / "made"
    with pytest.raises(InputError, match="failed: .*missing: no such directory.*--input") as caught:
        ensure_corpus(output, ["--source=folder", f"--input={tmp_path / 'missing'}"])
    assert "\n" not in str(caught.value) and not output.exists()
    folder = tmp_path / "first"
    made = ensure_corpus(output, ["--source=folder", f"--input={folder}", "--split=val"])
    assert made.sources == ("first",) and made.count("first", "val") == 6
    assert "error" not in capfd.readouterr().err


def test_building_and_reading_need_no_tensorflow(tmp_path):
    folder = write_folder(tmp_path / "first")
    code = f"""
import pathlib, sys
sys.path.insert(0, "tests")
from corpus_cases import build
corpus = build(pathlib.Path({str(folder)!r}), pathlib.Path({str(tmp_path / "corpus")!r}))
assert corpus.source("first", "train")[0].image_id == "i0"
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
assert "jax" not in sys.modules, "JAX was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # TFDS keeps its progress bars and warnings to itself
