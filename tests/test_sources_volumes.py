"""Volumes of every NIfTI layout: the same slices, masks, sides and names out of each."""

import json

import nibabel
import numpy as np
import pytest
from volume_cases import (
    IDS,
    LABELS,
    ONTOLOGY,
    ORIENTATIONS,
    body,
    check_examples,
    nifti,
    open_all,
    pictures,
    stream,
)  # fmt: skip

from data.report import Report
from data.sources.amos import open_amos, open_btcv
from data.sources.decathlon import find_tasks, open_decathlon
from data.sources.isles import open_isles
from data.sources.nifti import open_nifti_pairs
from data.sources.totalsegmentator import open_totalsegmentator
from medp_clip_jax.errors import InputError
from medp_clip_jax.readers import read_image
from medp_clip_jax.records import decode_image

SALT = b"a secret of sixteen bytes or more"
EVERY = {"step_mm": "0", "ids": "keep"}


@pytest.fixture(autouse=True)
def salt(tmp_path, monkeypatch):
    (tmp_path / "salt").write_bytes(SALT)
    monkeypatch.setenv("MEDP_CLIP_SALT_FILE", str(tmp_path / "salt"))


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def write_pairs(root, orientation="RAS", tilt=0.0, labels_in=None, case="p1"):
    image, labels = body()
    save(nifti(image, orientation, tilt), root / f"images/{case}.nii.gz")
    save(nifti(labels, labels_in or orientation, tilt), root / f"labels/{case}.nii.gz")
    (root / "labels.json").write_text(json.dumps(LABELS))
    return root


def write_decathlon(root, orientation):
    image, labels = body()
    save(nifti(np.stack([image, image + 500], -1), orientation), root / "Task01_BrainTumour/imagesTr/B_1.nii.gz")
    save(nifti(labels, orientation), root / "Task01_BrainTumour/labelsTr/B_1.nii.gz")
    table = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", **{str(value): label for value, label in LABELS.items()}},
        "training": [{"image": "./imagesTr/B_1.nii.gz", "label": "./labelsTr/B_1.nii.gz"}],
    }
    (root / "Task01_BrainTumour/dataset.json").write_text(json.dumps(table))
    return root / "Task01_BrainTumour"


def write_totalsegmentator(root, orientation):
    image, labels = body()
    save(nifti(image, orientation), root / "s0001/ct.nii.gz")
    save(nifti((labels == 1).astype(np.uint8), orientation), root / "s0001/segmentations/kidney_left.nii.gz")
    save(nifti((labels == 2).astype(np.uint8), orientation), root / "s0001/segmentations/liver.nii.gz")
    save(nifti(np.zeros_like(labels), orientation), root / "s0001/segmentations/kidney_right.nii.gz")
    (root / "meta.csv").write_text("image_id;age;split\ns0001;60;val\n")
    return root


def write_isles(root, orientation):
    image, labels = body()
    name = "sub-strokecase0001"
    for sequence in ("dwi", "adc"):
        save(nifti(image, orientation), root / f"{name}/ses-0001/dwi/{name}_ses-0001_{sequence}.nii.gz")
    save(
        nifti((labels == 1).astype(np.uint8), orientation),
        root / f"derivatives/{name}/ses-0001/{name}_ses-0001_msk.nii.gz",
    )
    return root


def write_amos(root, orientation):
    image, labels = body()
    numbers = np.array([0, 3, 6], np.uint8)[labels]
    save(nifti(image, orientation), root / "imagesTr/amos_0001.nii.gz")
    save(nifti(numbers, orientation), root / "labelsTr/amos_0001.nii.gz")
    save(nifti(image, orientation), root / "imagesVa/amos_0507.nii.gz")
    save(nifti(numbers, orientation), root / "labelsVa/amos_0507.nii.gz")
    return root


def write_btcv(root, orientation):
    image, labels = body()
    save(nifti(image, orientation), root / "Training/img/img0001.nii.gz")
    save(nifti(np.array([0, 3, 6], np.uint8)[labels], orientation), root / "Training/label/label0001.nii.gz")
    return root


LAYOUTS = {
    "nifti": (write_pairs, open_nifti_pairs, IDS, 1),
    "decathlon": (write_decathlon, open_decathlon, IDS, 2),
    "totalsegmentator": (write_totalsegmentator, open_totalsegmentator, IDS, 1),
    "isles": (write_isles, open_isles, {"stroke_lesion": 1}, 2),
    "amos": (write_amos, open_amos, IDS, 2),
    "btcv": (write_btcv, open_btcv, IDS, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_every_layout_keeps_masks_boxes_and_sides(tmp_path, layout, orientation):
    write, open_source, values, volumes = LAYOUTS[layout]
    source = open_all(open_source, write(tmp_path / "in", orientation), planes="axial", **EVERY)
    examples = stream(source)
    seen = pictures("axial").values()
    assert len(examples) == volumes * sum(np.isin(labels, list(values.values())).any() for labels in seen)
    regions = check_examples(examples, "axial", values)
    assert regions == volumes * sum((labels == value).any() for labels in seen for value in values.values())
    for example in examples:
        for region in example.regions:
            left = region.box[0] >= example.width / 2  # the patient's left is on the right of the picture
            assert left == (region.label != "liver")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("tilt", [0.0, 8.0])
def test_every_orientation_gives_the_same_pictures_in_every_plane(tmp_path, orientation, tilt):
    write_pairs(tmp_path / "in", orientation, tilt, labels_in=ORIENTATIONS[0])
    examples = stream(
        open_all(open_nifti_pairs, tmp_path / "in", planes="axial,coronal,sagittal", modality="ct", **EVERY)
    )
    for plane in ("axial", "coronal", "sagittal"):
        of_plane = [example for example in examples if example.view == plane]
        assert check_examples(of_plane, plane) == sum(
            (labels == value).any() for labels in pictures(plane).values() for value in IDS.values()
        )


def test_pictures_are_those_of_prediction(tmp_path):
    for modality in ("ct", "mri"):
        write_pairs(tmp_path / "in", "LPS")
        if modality == "mri":  # without values that prediction, which is told no modality, must take for air
            save(nifti(body()[0].clip(-200), "LPS"), tmp_path / "in/images/p1.nii.gz")
        examples = stream(open_all(open_nifti_pairs, tmp_path / "in", planes="coronal", modality=modality, **EVERY))
        window = "soft_tissue" if modality == "ct" else None
        for example in examples[:3]:
            index = int(example.image_id[-4:])
            seen = read_image(tmp_path / "in/images/p1.nii.gz", window=window, plane="coronal", index=index)
            np.testing.assert_array_equal(decode_image(example.image), seen)


def test_the_thickest_axis_is_sliced_unless_a_plane_is_named(tmp_path):
    write_pairs(tmp_path / "in")
    assert {example.view for example in stream(open_all(open_nifti_pairs, tmp_path / "in"))} == {"axial"}
    thick = nibabel.Nifti1Image(body()[0], np.diag([6.0, 1, 1, 1]))
    save(thick, tmp_path / "in/images/p1.nii.gz")
    save(nibabel.Nifti1Image(body()[1], thick.affine), tmp_path / "in/labels/p1.nii.gz")
    assert {example.view for example in stream(open_all(open_nifti_pairs, tmp_path / "in"))} == {"sagittal"}


def test_the_stated_rule_chooses_the_slices(tmp_path):
    write_pairs(tmp_path / "in")
    _, labels = body()
    largest = {int(np.argmax((labels == value).sum((0, 1)))) for value in LABELS}
    labelled = {index for index in range(12) if labels[:, :, index].any()}
    for step_mm, largest_too, empty in (("0", "no", "no"), ("6", "no", "no"), ("9", "yes", "no"), ("9", "no", "yes")):
        options = dict(step_mm=step_mm, largest=largest_too, empty=empty, ids="keep")
        examples = stream(open_all(open_nifti_pairs, tmp_path / "in", **options))
        step = max(1, round(float(step_mm) / 3))
        expected = {index for index in range(6 % step, 12, step) if empty == "yes" or index in labelled}
        expected |= largest if largest_too == "yes" else set()
        assert [int(example.image_id[-4:]) for example in examples] == sorted(expected)
        told = open_all(open_nifti_pairs, tmp_path / "in", **options).provenance["slices"]
        assert told.startswith("every slice" if step_mm == "0" else f"the middle one and others every {step_mm} mm")


def test_windows_by_anatomy_and_by_name(tmp_path):
    write_pairs(tmp_path / "in")

    def shown(**options):
        return stream(open_all(open_nifti_pairs, tmp_path / "in", modality="ct", ids="keep", **options))

    for anatomy, window in (
        ("abdomen", "soft_tissue"),
        ("chest", "lung"),
        ("brain", "brain"),
        ("lumbar spine", "bone"),
    ):
        examples = shown(anatomy=anatomy)
        index = int(examples[0].image_id[-4:])
        seen = read_image(tmp_path / "in/images/p1.nii.gz", window=window, index=index)
        np.testing.assert_array_equal(decode_image(examples[0].image), seen)
    both = shown(windows="lung,bone")
    assert len(both) == 2 * len(shown())
    assert len({example.image_id for example in both}) == len(both)
    assert {example.image_id.rsplit("_", 1)[1] for example in both} == {"lung", "bone"}


def test_splits_follow_the_file_the_data_set_or_the_group(tmp_path):
    def splits(path, open_source, **options):
        return set(open_source(path, ONTOLOGY, ONTOLOGY, "", Report(), options).splits)

    write_totalsegmentator(tmp_path / "total", "RAS")
    assert splits(tmp_path / "total", open_totalsegmentator) == {"val"}
    write_amos(tmp_path / "amos", "RAS")
    assert splits(tmp_path / "amos", open_amos) == {"train", "val"}
    for case in ("p1", "p2"):
        write_pairs(tmp_path / "in", case=case)
    (tmp_path / "in/splits.json").write_text(json.dumps({"p1": "test", "p2": "train"}))
    assert splits(tmp_path / "in", open_nifti_pairs) == {"test", "train"}  # named by case, though ids are hashed
    (tmp_path / "in/splits.json").unlink()
    one_patient = splits(tmp_path / "in", open_nifti_pairs, group="(p).*")
    assert len(one_patient) == 1


def test_channels_of_a_4d_image_are_images_of_one_group(tmp_path):
    path = write_decathlon(tmp_path / "in", "RAS")
    examples = stream(open_all(open_decathlon, path))
    assert {example.modality for example in examples} == {"mri (flair)", "mri (t1w)"}
    assert len({example.group for example in examples}) == 1
    assert len({example.image_id for example in examples}) == len(examples)
    only = stream(open_all(open_decathlon, path, channels="T1w"))
    assert {example.modality for example in only} == {"mri (t1w)"} and len(only) * 2 == len(examples)
    assert find_tasks(tmp_path / "in") == [path] == find_tasks(path)
    with pytest.raises(InputError, match="channels=T9"):
        open_all(open_decathlon, path, channels="T9")


def test_modality_of_amos_is_in_the_number(tmp_path):
    examples = stream(open_all(open_amos, write_amos(tmp_path / "in", "RAS")))
    assert {example.modality for example in examples} == {"ct", "mri"}


def test_spacing_licence_and_rules_are_kept_with_the_source(tmp_path):
    write_pairs(tmp_path / "in", "PIR")
    kept = open_all(open_nifti_pairs, tmp_path / "in", licence="CC0").provenance
    assert kept["spacing_mm"].startswith("1 (1 to 1) x 1.5 (1.5 to 1.5) x 3 (3 to 3)") and kept["licence"] == "CC0"
    assert "right on the left" in kept["orientation"]
    assert (
        open_all(open_totalsegmentator, write_totalsegmentator(tmp_path / "t", "RAS")).provenance["licence"]
        == "CC BY 4.0"
    )


def test_what_decides_the_records_decides_the_fingerprint(tmp_path):
    write_pairs(tmp_path / "in")

    def mark(**options):
        return open_all(open_nifti_pairs, tmp_path / "in", **options).fingerprint

    first = mark()
    assert first == mark() and SALT.hex() not in first
    assert len({first, mark(step_mm="3"), mark(ids="keep"), mark(planes="coronal"), mark(modality="ct")}) == 5
    other = tmp_path / "other"
    other.write_bytes(SALT[::-1])
    assert mark(salt_file=str(other)) != first
    _, labels = body()
    labels[0, 0, 0] = 2
    save(nifti(labels), tmp_path / "in/labels/p1.nii.gz")
    assert mark() != first
