"""What is wrong with a volume is one line that names no patient, and nothing damaged is passed on."""

import gzip
import json
import os

import nibabel
import numpy as np
import pytest
from test_sources_volumes import SALT, save, write_decathlon, write_pairs, write_totalsegmentator
from volume_cases import ONTOLOGY, affine, body, nifti, open_all, stream

from data.report import Report
from data.sources.decathlon import open_decathlon
from data.sources.isles import open_isles
from data.sources.nifti import open_nifti_pairs, read_table
from data.sources.totalsegmentator import open_totalsegmentator
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image

NAME = "Mueller_Erika_19520307"


@pytest.fixture(autouse=True)
def salt(tmp_path, monkeypatch):
    (tmp_path / "salt").write_bytes(SALT)
    monkeypatch.setenv("MEDP_CLIP_SALT_FILE", str(tmp_path / "salt"))


def sheared():
    grid = affine()
    grid[0, 2] = 1.0
    return grid


def cut(path, kept=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])


def unstated(path):
    image = nibabel.load(path)
    plain = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
    plain.header.set_zooms((1.5, 1, 3))
    nibabel.save(plain, path)


def damage(root, kind):
    """Damages the second of two cases."""
    image, labels = body()
    picture, mask = root / f"images/{NAME}.nii.gz", root / f"labels/{NAME}.nii.gz"
    if kind == "unreadable volume":
        cut(picture)
    elif kind == "unreadable mask":
        mask.write_bytes(gzip.compress(b"no volume"))
    elif kind == "mask of another size":
        save(nifti(labels[:-1]), mask)
    elif kind == "mask of another grid":
        grid = affine()
        grid[:3, 3] += 9
        save(nibabel.Nifti1Image(labels, grid), mask)
    elif kind == "sheared grid":
        save(nibabel.Nifti1Image(image, sheared()), picture)
        save(nibabel.Nifti1Image(labels, sheared()), mask)
    elif kind == "no orientation":
        unstated(picture)
        unstated(mask)
    elif kind == "empty mask":
        save(nifti(np.zeros_like(labels)), mask)
    elif kind == "not a label map":
        save(nifti(labels.astype(np.float32) * 0.4), mask)
    elif kind == "unusable volume":
        save(nifti(np.full_like(image, np.nan)), picture)
    elif kind == "missing volume":
        picture.unlink()
        picture.symlink_to(root / "nowhere.nii.gz")


KINDS = (
    "unreadable volume", "mask of another size", "mask of another grid", "sheared grid", "no orientation", "empty mask",
    "not a label map", "unusable volume",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_volume_is_one_line_and_no_record(tmp_path, capsys, kind):
    root = write_pairs(tmp_path / "in", case="p1")
    write_pairs(root, case=NAME)
    good = stream(open_all(open_nifti_pairs, write_pairs(tmp_path / "good", case="p1")))
    damage(root, kind)
    capsys.readouterr()
    report = Report()
    examples = stream(open_nifti_pairs(root, ONTOLOGY, ONTOLOGY, "train", report, {}))
    lines = capsys.readouterr().err.splitlines()
    assert report.skipped == {kind: 1} and len(lines) == 1 and kind in lines[0]
    assert NAME not in lines[0] and "Mueller" not in lines[0]
    assert [example.image for example in examples] == [example.image for example in good]
    assert [example.regions for example in examples] == [example.regions for example in good]
    with pytest.raises(InputError, match=kind) as caught:
        stream(open_nifti_pairs(root, ONTOLOGY, ONTOLOGY, "train", Report(strict=True), {}))
    assert NAME not in str(caught.value)


def test_a_damaged_mask_file_is_told(tmp_path, capsys):
    root = write_pairs(tmp_path / "in", case=NAME)
    damage(root, "unreadable mask")
    report = Report()
    assert stream(open_nifti_pairs(root, ONTOLOGY, ONTOLOGY, "train", report, {})) == []
    assert report.skipped == {"unreadable volume": 1} and NAME not in capsys.readouterr().err


def test_a_guessed_orientation_can_be_accepted(tmp_path):
    root = write_pairs(tmp_path / "in", case=NAME)
    damage(root, "no orientation")
    assert stream(open_all(open_nifti_pairs, root)) == []
    assert stream(open_all(open_nifti_pairs, root, unoriented="accept"))


def test_values_without_a_name_are_told_and_the_others_kept(tmp_path, capsys):
    root = write_pairs(tmp_path / "in")
    (root / "labels.json").write_text(json.dumps({"1": "left kidney"}))
    report = Report()
    examples = stream(open_nifti_pairs(root, ONTOLOGY, ONTOLOGY, "train", report, {}))
    assert report.skipped == {"label value without a name": 1} and "2 (" in capsys.readouterr().err
    assert {region.label for example in examples for region in example.regions} == {"kidney_left"}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_type_of_voxel_and_nan_becomes_an_image(tmp_path, dtype):
    image, labels = body()
    image = (image + 100).clip(0, 250).astype(dtype)
    if np.dtype(dtype).kind == "f":
        image[3, 3, :] = np.nan
    root = write_pairs(tmp_path / "in")
    save(nibabel.Nifti1Image(image, affine()), root / "images/p1.nii.gz")
    save(nibabel.Nifti1Image(labels.astype(np.float32), affine()), root / "labels/p1.nii.gz")  # whole numbers as floats
    examples = stream(open_all(open_nifti_pairs, root, step_mm="0"))
    assert len(examples) == 9
    assert all(decode_image(example.image).any() for example in examples)


def test_scaled_values_are_read_as_what_they_mean(tmp_path):
    root = write_pairs(tmp_path / "in")
    plain = stream(open_all(open_nifti_pairs, root, modality="ct"))
    scaled = nibabel.Nifti1Image((body()[0].round() + 50) / 0.5, affine())
    scaled.set_data_dtype(np.int16)
    scaled.header.set_slope_inter(0.5, -50.0)
    save(scaled, root / "images/p1.nii.gz")
    np.testing.assert_array_equal(nibabel.load(root / "images/p1.nii.gz").get_fdata(), body()[0])
    again = stream(open_all(open_nifti_pairs, root, modality="ct"))
    assert [example.image for example in again] == [example.image for example in plain]


def test_names_of_any_bytes(tmp_path, capfd):
    raw = os.fsencode(tmp_path / "in/images") + b"/M\xfcller.nii.gz"
    root = write_pairs(tmp_path / "in")
    for folder in ("images", "labels"):
        os.rename(root / f"{folder}/p1.nii.gz", raw.replace(b"images", os.fsencode(folder)))
    hashed = stream(open_all(open_nifti_pairs, root))
    kept = stream(open_all(open_nifti_pairs, root, ids="keep"))
    assert hashed and kept and kept[0].group == "M\\xfcller"
    for example in hashed + kept:
        assert example.image_id.encode("utf-8") and "ller" not in hashed[0].image_id
    assert capfd.readouterr().err == ""


def test_tables_that_cannot_be_meant(tmp_path):
    path = tmp_path / "labels.json"
    for content, message in (
        ("no", "not a readable table"),
        ("[1]", "expected an object"),
        ('{"a": "liver"}', "expected a whole number"),
        ('{"1": "liver", "01": "spleen"}', "two labels"),
        ('{"1": ""}', "expected a whole number and a label"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_table(path)
    path.write_text('{"background": 0, "liver": 1, "2": ["mass", "liver mass"]}')
    assert read_table(path) == {1: ("liver", ""), 2: ("mass", "liver mass")}


WRONG = [
    *(("planes", "oblique"), ("step_mm", "-1"), ("step_mm", "a"), ("windows", "lungs"), ("ids", "plain")),
    *(("largest", "1"), ("burned_in", "x"), ("images", "images"), ("images", "../*"), ("group", "(")),
    *(("group", "a"), ("unoriented", "yes")),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_options_that_cannot_be_meant(tmp_path, key, value):
    write_pairs(tmp_path / "in")
    with pytest.raises(InputError, match=f"--option={key}="):
        open_all(open_nifti_pairs, tmp_path / "in", **{key: value})


def test_folders_without_volumes_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    for open_source in (open_nifti_pairs, open_decathlon, open_totalsegmentator, open_isles):
        with pytest.raises(InputError):
            open_all(open_source, tmp_path / "empty")
        with pytest.raises(InputError):
            open_all(open_source, tmp_path / "absent")


def test_entries_and_structures_that_are_not_there(tmp_path, capsys):
    path = write_decathlon(tmp_path / "in", "RAS")
    table = json.loads((path / "dataset.json").read_text())
    table["training"] += ["./imagesTr/x.nii.gz", {"image": "./imagesTr/gone.nii.gz", "label": "./labelsTr/gone.nii.gz"}]
    (path / "dataset.json").write_text(json.dumps(table))
    report = Report()
    examples = stream(open_decathlon(path, ONTOLOGY, ONTOLOGY, "train", report, {"channels": "FLAIR"}))
    assert examples and report.skipped == {"no image and label": 1, "missing volume": 1}
    root = write_totalsegmentator(tmp_path / "total", "RAS")
    cut(root / "s0001/segmentations/liver.nii.gz")
    report = Report()
    examples = stream(open_totalsegmentator(root, ONTOLOGY, ONTOLOGY, "train", report, {}))
    assert report.skipped == {"unreadable volume": 1} and "liver" in capsys.readouterr().err
    assert {region.label for example in examples for region in example.regions} == {"kidney_left"}
