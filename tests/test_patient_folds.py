"""Folds test every patient once and tear none apart; what may not be tested stays in training."""

import json

import pytest

from benchmarks import development_split, patient_folds
from medp_clip_jax.errors import InputError

LABELS = ("liver", "spleen", "kidney")


def write_data_set(folder, parts):
    """Images of `parts`, two of a patient; the first patient's are copies that a mirror distorted."""
    folder.mkdir()
    images = [f"{folder.name}_{number}" for number in range(len(parts))]
    rows = [
        {"image_id": image, "group": f"p{row // 2}", "augmented_by_mirror": row < 2} for row, image in enumerate(images)
    ]
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    marks = [{"image_id": image, "label": LABELS[row // 2 % 3]} for row, image in enumerate(images)]
    (folder / "annotations.jsonl").write_text("".join(json.dumps(mark) + "\n" for mark in marks))
    return dict(zip(images, parts, strict=True))


@pytest.mark.parametrize("draw", [0, 1, 2])
def test_folds_test_every_patient_once(tmp_path, draw):
    split = write_data_set(tmp_path / "scans", ["train", "train"] * 8 + ["val", "val"] * 3 + ["test", "test"] * 3)
    folds = [patient_folds.fold(tmp_path / "scans", split, number, draw) for number in range(development_split.PARTS)]
    for number, (image, _) in enumerate(split.items()):
        parts = sorted(fold[image] for fold in folds)
        assert parts == (["train"] * 3 if number < 2 else ["test", "train", "train"])
    for fold in folds:
        assert all(fold[f"scans_{row}"] == fold[f"scans_{row + 1}"] for row in range(0, len(split), 2))
        tested = {LABELS[row // 2 % 3] for row in range(len(split)) if fold[f"scans_{row}"] == "test"}
        assert tested == set(LABELS)


@pytest.mark.parametrize("alone", [False, True])
def test_another_draw_divides_the_patients_in_another_way(tmp_path, alone):
    split = write_data_set(tmp_path / "scans", ["train"] * 60)
    if alone:  # every patient has a label that no other one has
        marks = [{"image_id": image, "label": f"label {row // 2:02}"} for row, image in enumerate(split)]
        text = "".join(json.dumps(mark) + "\n" for mark in marks)
        (tmp_path / "scans" / "annotations.jsonl").write_text(text)
    thirds = [
        {frozenset(development_split.held(tmp_path / "scans", set(split), number, draw)) for number in range(3)}
        for draw in (0, 1, 2)
    ]
    assert len(set.union(*thirds)) == 9


def test_what_is_never_trained_on_and_what_is_test_are_left_out(tmp_path):
    alone = write_data_set(tmp_path / "alone", ["test"] * 6)
    assert set(patient_folds.fold(tmp_path / "alone", alone, 0).values()) == {"unused"}
    split = write_data_set(tmp_path / "scans", ["train"] * 12 + ["val"] * 6 + ["test"] * 4)
    developed = development_split.developed(tmp_path / "scans", split)
    assert {developed[image] for image, part in split.items() if part == "test"} == {"unused"}
    assert {developed[image] for image, part in split.items() if part != "test"} == {"train", "val"}


@pytest.mark.parametrize("line", ["{", "[]", '{"image_id": "scans_0"}'])
def test_a_damaged_listing_is_named_with_what_was_expected(tmp_path, line):
    split = write_data_set(tmp_path / "scans", ["train"] * 12)
    with (tmp_path / "scans" / "annotations.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(InputError, match="annotations.jsonl:13: expected a JSON object with image_id, label"):
        development_split.held(tmp_path / "scans", set(split), 0)


def test_an_image_that_the_listing_lacks_is_named(tmp_path):
    split = write_data_set(tmp_path / "scans", ["train"] * 12)
    with pytest.raises(InputError, match="split_only is split or annotated"):
        development_split.held(tmp_path / "scans", {*split, "split_only"}, 0)
    with (tmp_path / "scans" / "annotations.jsonl").open("a") as file:
        file.write('{"image_id": "marked_only", "label": "liver"}')
    with pytest.raises(InputError, match="marked_only is split or annotated"):
        development_split.held(tmp_path / "scans", set(split), 0)


@pytest.mark.parametrize("content", ["{", "[]", '{"scans": ["train"]}'])
def test_damaged_splits_are_named(tmp_path, content):
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(InputError, match=r"splits.json: (not JSON|expected data set -> image -> part)"):
        development_split.read_splits(tmp_path)
