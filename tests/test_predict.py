"""Prediction from the command line: which prompts make which regions, what is printed, what is refused."""

import json
import pathlib
import subprocess
import sys
import types

import dicom_cases
import numpy as np
import pydicom
import pytest
import tiny_run
from PIL import Image

from medp_clip_jax import mask_images, overlay, predict
from medp_clip_jax.errors import InputError
from medp_clip_jax.results import NOTICE

DEFAULTS = dict(
    box=[],
    point=[],
    negative_point=[],
    mask=None,
    prompts=None,
    segment=False,
    dicom_seg=None,
    identified=False,
    labels=[],
    top=5,
    json=False,
    output=None,
    window=None,
    plane="axial",
    index=None,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """A picture of 60 x 40 px in the current folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save("scan.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 10:30] = 255
    Image.fromarray(mask).save("mask.png")
    return "scan.png"


@pytest.fixture
def ask(run, scan, monkeypatch, capsys):
    """Runs the command with some flags and returns what it printed."""

    def call(image=scan, **flags):
        options = types.SimpleNamespace(**{**DEFAULTS, "checkpoint": str(run), **flags})
        monkeypatch.setattr(predict, "FLAGS", options)
        predict.main(["predict", str(image)])
        return capsys.readouterr().out

    return call


def _scores(printed: str) -> list[dict[str, float]]:
    return [{e["label"]: e["score"] for e in region["ranking"]} for region in json.loads(printed)["regions"]]


def test_without_labels_the_whole_bank_is_ranked_and_scores_add_up(ask):
    found = json.loads(ask(json=True))
    ranking = found["regions"][0]["ranking"]
    assert {entry["id"] for entry in ranking} == set(tiny_run.LABELS) and found["labels"] == len(tiny_run.LABELS)
    scores = [entry["score"] for entry in ranking]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-4)
    assert found["notice"] == NOTICE and found["size"] == [60, 40]


def test_several_boxes_are_separate_regions_each_as_if_asked_alone(ask):
    both = _scores(ask(json=True, box=["1,2,30,20", "20,10,60,40"]))
    alone = [_scores(ask(json=True, box=[box]))[0] for box in ("1,2,30,20", "20,10,60,40")]
    assert len(both) == 2 and both[0] != both[1]
    for together, single in zip(both, alone, strict=True):
        assert together == pytest.approx(single, abs=1e-4)


def test_one_box_with_clicks_and_a_mask_is_one_region_and_each_counts(ask):
    steps = [
        dict(box=["1,2,30,20"]),
        dict(box=["1,2,30,20"], point=["5,5", "9,9"]),
        dict(box=["1,2,30,20"], point=["5,5", "9,9"], negative_point=["25,15"]),
        dict(box=["1,2,30,20"], point=["5,5", "9,9"], negative_point=["25,15"], mask="mask.png"),
    ]
    answers = [_scores(ask(json=True, **flags)) for flags in steps]
    assert all(len(regions) == 1 for regions in answers)
    assert len({tuple(sorted(regions[0].items())) for regions in answers}) == len(steps)


def test_labels_keep_the_users_words_and_unknown_ones_are_read_as_plain_words(ask, capsys):
    printed = ask(json=True, labels=["Left Kidney", " spleen", "pineapple", "Spleen"])
    found = json.loads(printed)
    assert found["labels"] == 3
    assert {e["label"]: e["id"] for e in found["regions"][0]["ranking"]} == {
        "Left Kidney": "kidney_left",
        "spleen": "spleen",
        "pineapple": "pineapple",
    }


def test_the_table_names_prompts_labels_and_what_this_is_not(ask):
    printed = ask(box=["1,2,30,20"], point=["5,5.5"], negative_point=["7,7"], mask="mask.png", top=2)
    assert "box 1,2,30,20, point 5,5.5, not at 7,7, mask of 200 px" in printed
    assert NOTICE in printed and "overlay: scan_regions.png" in printed
    assert sum(line.strip()[:1].isdigit() for line in printed.splitlines()) == 2
    assert "region 2: box 3,3,9,9" in ask(box=["1,2,30,20", "3,3,9,9"])
    assert "whole image" in ask()


def test_an_overlay_is_written(ask):
    ask(box=["1,2,30,20"], output="out.png")
    picture = np.asarray(Image.open("out.png"))
    assert picture.shape == (40 * 13, 60 * 13, 3)  # enlarged by a whole factor
    assert (picture == overlay.COLOURS[0]).all(-1).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (dict(box=["10,10,5,20"]), r"scan\.png: box 0 .*x1 > x0"),
        (dict(box=["10,10,70,20"]), r"scan\.png: box 0 .*outside the 60 x 40 image"),
        (dict(point=["10,41"]), r"scan\.png: point 0 .*outside the 60 x 40 image"),
        (dict(box=["1,2,3"]), "--box=1,2,3: expected x0,y0,x1,y1"),
        (dict(point=["a,b"]), "--point=a,b: expected x,y"),
        (dict(box=["nan,0,1,1"]), "--box=nan"),
        (dict(box=["1,1,9,9", "2,2,9,9"], point=["3,3"]), "2 boxes together with points"),
        (dict(window="bright"), "--window=bright"),
        (dict(window="40,400"), "a window applies to values with units"),
        (dict(mask="absent.png"), r"absent\.png: no such file"),
        (dict(checkpoint=""), "--checkpoint"),
        (dict(checkpoint="nowhere"), "nowhere: no such directory"),
        (dict(output="no/such/folder.png"), "cannot write the overlay"),
        (dict(labels=["!!"]), "label '!!'"),
    ],
)
def test_bad_input_is_one_line_that_names_it(ask, flags, message):
    with pytest.raises(InputError, match=message) as caught:
        ask(**flags)
    assert "\n" not in str(caught.value)


def test_a_mask_of_another_size_and_an_empty_mask(ask):
    Image.fromarray(np.ones((40, 61), np.uint8)).save("wide.png")
    Image.fromarray(np.zeros((40, 60), np.uint8)).save("empty.png")
    with pytest.raises(InputError, match=r"wide\.png: a mask of 61 x 40 px for an image of 60 x 40 px"):
        ask(mask="wide.png")
    with pytest.raises(InputError, match=r"empty\.png: the mask is empty"):
        ask(mask="empty.png")


def test_a_run_without_its_list_of_labels_is_named(run, tmp_path):
    (tmp_path / "ontology.json").write_bytes((run / "ontology.json").read_bytes())
    with pytest.raises(InputError, match=r"labels\.json"):
        predict.run_labels(tmp_path, [])


def test_more_or_fewer_images_than_one(monkeypatch):
    for argv in (["predict"], ["predict", "a.png", "b.png"]):
        with pytest.raises(InputError, match="expected one image"):
            predict.main(argv)


def test_the_command_itself(run, scan):
    command = [sys.executable, "-m", "medp_clip_jax.predict", scan, "--box", "1,2,30,20", "--point", "5,5"]
    command += ["--labels", "liver,spleen", "--checkpoint", str(run)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(_scores(done.stdout)[0]) == {"liver", "spleen"}
    failed = subprocess.run([*command, "--mask=absent.png"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2 and not failed.stdout
    assert failed.stderr.strip().splitlines()[-1].startswith("error: absent.png: no such file")


def test_captions_stay_inside_the_picture():
    for box in ((0, 0, 4, 4), (90, 0, 100, 9), (95, 45, 100, 50), (0, 40, 100, 50)):
        picture = overlay.draw(np.zeros((50, 100, 3), np.uint8), [overlay.Shape("a rather long caption 0.99", box)])
        dark = (np.asarray(picture) == (20, 20, 20)).all(-1)  # the caption's background
        assert dark.sum() > 500


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory):
    """A run with a mask decoder."""
    made = tiny_run.config()
    made.model.segmenter.update(width=16, depth=1, heads=2, stride=4, detail=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_run, "config", lambda: made)
        return tiny_run.write_run(tmp_path_factory.mktemp("segmenting") / "run")


def test_segment_writes_a_mask_per_region_that_its_run_lengths_repeat(ask, segmenting):
    regions = [{"box": [1, 2, 30, 20]}, {"points": [[40, 30], [42, 31]], "negative_points": [[5, 5]]}]
    with open("prompts.json", "w") as file:
        json.dump(regions, file)
    found = json.loads(ask(checkpoint=str(segmenting), json=True, segment=True, prompts="prompts.json"))
    assert len(found["regions"]) == 2
    for region in found["regions"]:
        pixels = np.asarray(Image.open(region["mask"]["file"]))
        mask = mask_images.from_rle(region["mask"]["rle"])
        assert pixels.shape == mask.shape == (40, 60) and np.array_equal(pixels > 0, mask)
        assert region["mask"]["area"] == mask.sum() and 0 <= region["mask"]["iou"] <= 1
    alone = json.loads(ask(checkpoint=str(segmenting), json=True, segment=True, box=["1,2,30,20"]))
    assert alone["regions"][0]["mask"]["rle"] == found["regions"][0]["mask"]["rle"]


@pytest.mark.parametrize(
    "content, message",
    [("{}", "list of regions"), ('[{"circle": 1}]', "region 1"), ('[{"box": [1, 2, 3]}]', "4 numbers"), ("[", "JSON")],
)
def test_files_of_prompts_that_cannot_be_read_are_refused(ask, content, message):
    with open("prompts.json", "w") as file:
        file.write(content)
    with pytest.raises(InputError, match=message):
        ask(prompts="prompts.json")


def test_segment_needs_a_prompt_and_a_decoder(ask):
    with pytest.raises(InputError, match="expected a prompt"):
        ask(segment=True)
    with pytest.raises(InputError, match="no mask decoder"):
        ask(segment=True, box=["1,2,30,20"])


def test_a_dicom_seg_is_written_of_dicom_images_alone(ask, segmenting):
    with pytest.raises(InputError, match="expected --segment with it"):
        ask(dicom_seg="seg.dcm", box=["1,2,30,20"])
    with pytest.raises(InputError, match="not a DICOM file"):
        ask(checkpoint=str(segmenting), segment=True, dicom_seg="seg.dcm", box=["1,2,30,20"])
    path = dicom_cases.save(dicom_cases.slices()[3], pathlib.Path("slice.dcm"))
    printed = ask(path, checkpoint=str(segmenting), segment=True, dicom_seg="seg.dcm", box=["1,2,8,8"])
    assert "DICOM SEG: seg.dcm" in printed
    assert pydicom.dcmread("seg.dcm").SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
