"""Unknown labels are listed with their counts; suggestions are never applied."""

import json
import subprocess
import sys

import pytest

import data.ontology
from data import labels
from data.report import Report
from data.sources import labels as source_labels
from medp_clip_jax.errors import InputError

SHIPPED = data.ontology.load()


def test_unknown_labels_are_counted_most_frequent_first():
    rows = [
        ("s", "liver", ""),
        ("s", "livre", ""),
        ("s", "livre", ""),
        ("s", "flibber", ""),
        ("pannuke", "Background", ""),
    ]
    found = labels.of_labels(rows, SHIPPED)
    assert [(item.label, item.count) for item in found] == [("livre", 2), ("flibber", 1)]
    assert found[0].candidates[0][0] == "liver" and found[1].candidates == ()
    assert labels.of_labels([("s", "liver", "")], SHIPPED) == []


@pytest.mark.parametrize(("label", "best"), [("left kidny", "kidney_left"), ("kidny right", "kidney_right")])
def test_suggestions_keep_the_side(label, best):
    found = labels.candidates(SHIPPED, label)
    assert found[0][0] == best
    side = "left" if "left" in label else "right"
    assert all(SHIPPED[node_id].laterality == side for node_id, _ in found)


@pytest.mark.short
def test_suggestions_are_not_applied():
    assert SHIPPED.resolve("livre") is None
    resolved = source_labels.resolve({("livre", ""): "x"}, SHIPPED, SHIPPED, "s", Report())
    assert resolved.ids["livre", ""] == "livre" and "livre" not in SHIPPED


def test_what_a_table_leaves_out_becomes_no_node():
    found = {("Background", ""): "x", ("Dead", ""): "x"}
    resolved = source_labels.resolve(found, SHIPPED, SHIPPED, "pannuke", Report(strict=True))
    assert resolved.ids == {("Dead", ""): "dead_cell"} and "leaves it out" in resolved.refused["Background", ""]


def test_folders_and_files_are_read(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "images.jsonl").write_text(
        '{"image_id": "a", "image_labels": ["pneumonia", "zzz"], "dataset": "d"}\n[]\nx\n'
    )
    (folder / "annotations.jsonl").write_text(
        '{"image_id": "a", "label": "qqq"}\n{"image_id": "a", "label": "liver"}\n'
    )
    found = labels.of_path(tmp_path, "", SHIPPED)
    assert {(item.source, item.label) for item in found} == {("d", "zzz"), ("one", "qqq")}
    listing = tmp_path / "labels.txt"
    listing.write_text("liver\n\nqqq\nqqq\n")
    assert [(item.label, item.count) for item in labels.of_path(listing, "", SHIPPED)] == [("qqq", 2)]
    with pytest.raises(InputError, match="expected a corpus"):
        labels.of_path(folder.parent / "nowhere", "", SHIPPED)
    assert "2  -: qqq" in labels.as_text(labels.of_path(listing, "", SHIPPED))


@pytest.mark.slow
def test_the_command_prints_json(tmp_path):
    listing = tmp_path / "labels.txt"
    listing.write_text("livre\n")
    command = [sys.executable, "-m", "data.labels", str(listing), "--json"]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(line)["candidates"][0][0] == "liver"
    missing = subprocess.run([*command[:3], "nowhere"], capture_output=True, text=True)
    assert missing.returncode == 2 and missing.stderr.startswith("error: ") and missing.stderr.count("\n") == 1
