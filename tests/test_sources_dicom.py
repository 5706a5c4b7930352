"""DICOM series with SEG and RTSTRUCT: masks, sides and places come out as they went in, whatever the orientation."""

import copy
import json
import pickle

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from dicom_cases import (
    AXIAL,
    CORONAL,
    PRONE,
    SAGITTAL,
    contours,
    save,
    seg,
    slices,
    stored_labels,
    write_series,
)  # fmt: skip
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from scipy import ndimage
from test_sources_volumes import write_pairs
from volume_cases import ONTOLOGY, check_examples, open_all, pictures, stream

from data.report import Report
from data.sources import polygons
from data.sources.dicom import open_dicom
from data.sources.nifti import open_nifti_pairs
from medp_clip_jax.readers import read_image
from medp_clip_jax.records import decode_image

PLANE = {AXIAL: "axial", PRONE: "axial", CORONAL: "coronal", SAGITTAL: "sagittal"}


@pytest.fixture(autouse=True)
def salt(tmp_path, monkeypatch):
    (tmp_path / "salt").write_bytes(b"another secret of the owner")
    monkeypatch.setenv("MEDP_CLIP_SALT_FILE", str(tmp_path / "salt"))


def count(plane):
    return sum((labels == value).any() for labels in pictures(plane).values() for value in (1, 2))


@pytest.mark.parametrize("orientation", PLANE)
@pytest.mark.parametrize("tilt", [0.0, 6.0])
@pytest.mark.parametrize("kind", ["BINARY", "RTSTRUCT"])
def test_regions_keep_place_and_side_in_every_orientation(tmp_path, orientation, tilt, kind):
    datasets = slices(orientation, tilt=tilt)
    write_series(tmp_path / "in", datasets)
    labels = stored_labels(orientation, tilt)
    annotation = contours(datasets, labels, around=True) if kind == "RTSTRUCT" else seg(datasets, labels, kind)
    save(annotation, tmp_path / "in/other/annotation.dcm")
    for plane in ("axial", "coronal", "sagittal"):
        examples = stream(open_all(open_dicom, tmp_path / "in", planes=plane, step_mm="0"))
        assert check_examples(examples, plane) == count(plane)
        assert {(example.modality, example.anatomy, example.view) for example in examples} == {("ct", "abdomen", plane)}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("seg_orientation", [AXIAL, PRONE])
def test_every_kind_of_segmentation(tmp_path, kind, seg_orientation):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets)
    other = slices(seg_orientation)  # a segmentation may store its pixels the other way round
    for one in other:
        one.SeriesInstanceUID, one.FrameOfReferenceUID = datasets[0].SeriesInstanceUID, datasets[0].FrameOfReferenceUID
        one.StudyInstanceUID = datasets[0].StudyInstanceUID
    save(seg(other, stored_labels(seg_orientation), kind), tmp_path / "in/seg.dcm")
    examples = stream(open_all(open_dicom, tmp_path / "in", step_mm="0"))
    assert check_examples(examples, "axial") == count("axial")


@pytest.mark.parametrize("around", [True, False])
def test_contours_around_pixels_and_through_their_centres(tmp_path, around):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets)
    save(contours(datasets, stored_labels(AXIAL), around), tmp_path / "in/rt.dcm")
    examples = stream(open_all(open_dicom, tmp_path / "in", step_mm="0"))
    assert check_examples(examples, "axial") == count("axial")


def test_dicom_and_nifti_of_one_volume_give_the_same_pictures(tmp_path):
    write_series(tmp_path / "in", slices(CORONAL))
    write_pairs(tmp_path / "nii", "PIR")
    options = {"planes": "axial", "step_mm": "0", "empty": "yes"}
    dicom = stream(open_all(open_dicom, tmp_path / "in", **options))
    nifti = stream(open_all(open_nifti_pairs, tmp_path / "nii", modality="ct", **options))
    assert len(dicom) == len(nifti) == 12
    for one, other in zip(dicom, nifti, strict=True):
        np.testing.assert_array_equal(decode_image(one.image), decode_image(other.image))


def test_fractions_below_a_half_are_not_in_the_mask(tmp_path):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets)
    made = seg(datasets, stored_labels(AXIAL), "FRACTIONAL")
    values = np.frombuffer(made.PixelData, np.uint8)
    made.PixelData = (values // 3).tobytes()  # 85 of 255
    save(made, tmp_path / "in/seg.dcm")
    report = Report()
    assert stream(open_dicom(tmp_path / "in", ONTOLOGY, ONTOLOGY, "train", report, {})) == []
    assert report.skipped == {"empty mask": 2}


def test_several_volumes_of_a_series_are_told_apart(tmp_path):
    datasets = slices(AXIAL, "MR")
    phases = []
    for one in slices(AXIAL, "MR"):
        one.SeriesInstanceUID = datasets[0].SeriesInstanceUID
        phases.append(one)
    write_series(tmp_path / "in", datasets)
    write_series(tmp_path / "in/later", phases)
    examples = stream(open_all(open_dicom, tmp_path / "in", step_mm="0"))
    assert len(examples) == 24 and len({example.image_id for example in examples}) == 24
    assert len({example.group for example in examples}) == 1
    assert {example.modality for example in examples} == {"mri"}


@pytest.mark.parametrize("kind", ["BINARY", "RTSTRUCT"])
def test_work_can_be_handed_to_other_processes(tmp_path, kind):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets[:6] + datasets[7:])  # with a gap, so that something is left out
    labels = stored_labels(AXIAL)
    save(contours(datasets, labels, True) if kind == "RTSTRUCT" else seg(datasets, labels), tmp_path / "in/a.dcm")
    report = Report()
    source = open_dicom(tmp_path / "in", ONTOLOGY, ONTOLOGY, "train", report, {"step_mm": "0"})
    items = pickle.loads(pickle.dumps(source.items["train"]))
    examples = list(items.stream())
    assert examples and examples == stream(source)
    assert report.skipped == {"annotation off the slices": 1}  # what a worker reports is counted by its shard


def test_names_of_structures_come_from_the_ontology_or_a_table(tmp_path, capsys):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets)
    made = contours(datasets, stored_labels(AXIAL), True, names=("Niere von Quarzberg", "GTV 1"))
    save(made, tmp_path / "in/rt.dcm")
    report = Report()
    key = tmp_path / "key.csv"
    open_dicom(tmp_path / "in", ONTOLOGY, ONTOLOGY, "train", report, {"key_file": str(key)})
    told = capsys.readouterr().err
    assert report.skipped == {"label not known": 2} and "Niere" not in told and "GTV" not in told
    named = {line.split(",", 1)[1]: line.split(",", 1)[0] for line in key.read_text().splitlines()}
    assert named["GTV 1"] in told and key.stat().st_mode & 0o077 == 0
    (tmp_path / "labels.json").write_text(json.dumps({"Niere von Quarzberg": "left kidney", "GTV 1": "liver"}))
    examples = stream(open_all(open_dicom, tmp_path / "in", step_mm="0", labels=str(tmp_path / "labels.json")))
    assert check_examples(examples, "axial") == count("axial")
    source = open_all(open_dicom, tmp_path / "in", new_labels="yes")
    assert [node.id for node in source.nodes] == ["niere_von_quarzberg", "gtv_1"] or len(source.nodes) == 2


def test_the_side_of_a_segment_may_stand_apart_from_its_type(tmp_path):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets)
    made = seg(datasets, stored_labels(AXIAL), names=("Segment 1", "Segment 2"))
    kind = made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    left = Dataset()
    left.CodeValue, left.CodingSchemeDesignator, left.CodeMeaning = "7771000", "SCT", "Left"
    kind.SegmentedPropertyTypeModifierCodeSequence = [left]
    save(made, tmp_path / "in/seg.dcm")
    examples = stream(open_all(open_dicom, tmp_path / "in", step_mm="0"))
    assert check_examples(examples, "axial") == count("axial")


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_palette.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_files_that_pydicom_ships(tmp_path, name):
    (tmp_path / "in").mkdir()
    path = get_testdata_file(name)
    (tmp_path / "in/IM0001").write_bytes(open(path, "rb").read())
    (example,) = stream(open_all(open_dicom, tmp_path / "in", burned_in="off"))
    seen = read_image(path, window="soft_tissue" if name.startswith("CT") else None)
    assert (example.height, example.width) == seen.shape[:2]
    if not name.startswith("MR"):
        np.testing.assert_array_equal(decode_image(example.image), seen)


@pytest.mark.parametrize(("orientation", "turned"), [(["L", "F"], 0), (["R", "F"], 1), (["R", "H"], 2), (None, 0)])
def test_single_images_are_turned_to_the_same_side(tmp_path, orientation, turned):
    one = slices(AXIAL)[3]
    del one.ImagePositionPatient, one.ImageOrientationPatient
    one.Modality, one.SOPClassUID = "DX", "1.2.840.10008.5.1.4.1.1.1.1"
    one.PatientOrientation = orientation
    path = save(one, tmp_path / "in/x.dcm")
    (example,) = stream(open_all(open_dicom, tmp_path / "in"))
    seen = read_image(path)
    seen = seen[:, ::-1] if turned else seen
    seen = seen[::-1] if turned == 2 else seen
    np.testing.assert_array_equal(decode_image(example.image), seen)
    assert example.modality == "x-ray" and example.regions == ()


def test_frames_of_an_enhanced_image_are_slices(tmp_path):
    datasets = slices(AXIAL)
    write_series(tmp_path / "plain", datasets)
    save(enhanced(datasets), tmp_path / "in/enhanced.dcm")
    examples = stream(open_all(open_dicom, tmp_path / "in", step_mm="0"))
    plain = stream(open_all(open_dicom, tmp_path / "plain", step_mm="0"))
    assert len(examples) == 12 and [one.image for one in examples] == [one.image for one in plain]


def enhanced(datasets) -> Dataset:
    """The slices as frames of one file."""
    made = copy.deepcopy(datasets[0])
    made.PerFrameFunctionalGroupsSequence = []
    for one in datasets:
        item, place = Dataset(), Dataset()
        place.ImagePositionPatient = one.ImagePositionPatient
        item.PlanePositionSequence = [place]
        made.PerFrameFunctionalGroupsSequence.append(item)
    shared, turn, sizes, scale = Dataset(), Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient, sizes.PixelSpacing = made.ImageOrientationPatient, made.PixelSpacing
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1, -1024, "HU"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [sizes]
    shared.PixelValueTransformationSequence = [scale]
    del made.ImagePositionPatient, made.ImageOrientationPatient, made.PixelSpacing
    del made.RescaleSlope, made.RescaleIntercept, made.RescaleType
    made.SOPClassUID, made.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.2.1", len(datasets)
    made.SharedFunctionalGroupsSequence = [shared]
    made.PixelData = b"".join(one.PixelData for one in datasets)
    return made


@st.composite
def blobs(draw):
    height, width = draw(st.integers(3, 24)), draw(st.integers(3, 24))
    seed = draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed).random((height, width))
    return ndimage.uniform_filter(noise, draw(st.integers(1, 5))) > draw(st.floats(0.3, 0.7))


@hypothesis.given(blobs())
def test_outlines_of_pixels_fill_to_the_same_mask(mask):
    """Every pixel's edges, joined to loops by the even-odd rule: holes, islands and touching corners included."""
    rows, columns = np.nonzero(mask)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    squares = [corners + at for at in np.stack([columns, rows], axis=1)]
    np.testing.assert_array_equal(polygons.fill(squares, *mask.shape), mask)


@hypothesis.given(blobs())
def test_contours_of_opencv_fill_to_the_same_mask(mask):
    found = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    filled = polygons.fill([points.reshape(-1, 2).astype(float) for points in found], *mask.shape)
    np.testing.assert_array_equal(filled, mask)


@hypothesis.given(st.integers(3, 9), st.floats(0, 1), st.floats(0, 6.3))
def test_polygons_fill_what_a_reference_fills(corners, offset, turn):
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + turn
    points = np.stack([15 + offset + 9 * np.cos(angles), 14 + offset + 7 * np.sin(angles)], axis=1)
    outline = points.astype(np.float32).reshape(-1, 1, 2)
    depth = np.array([[cv2.pointPolygonTest(outline, (x, y), True) for x in range(32)] for y in range(30)])
    filled, sure = polygons.fill([points], 30, 32), np.abs(depth) > 0.02
    np.testing.assert_array_equal(filled[sure], (depth > 0)[sure])
