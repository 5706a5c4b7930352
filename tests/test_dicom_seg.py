"""Masks leave as DICOM SEG: pixel for pixel, in their place, and without the patient unless asked for."""

import dicom_cases
import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medp_clip_jax.dicom_seg import write_dicom_seg
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology_nodes import Node

LIVER = Node("liver", "liver", xrefs=("SCT:10200004",))
LESION = Node("liver_lesion", "liver lesion", kind="finding")


@pytest.fixture
def image(tmp_path):
    return dicom_cases.save(dicom_cases.slices()[3], tmp_path / "Quarzberg.dcm")


def masks(image):
    dataset = pydicom.dcmread(image)
    drawn = np.zeros((2, dataset.Rows, dataset.Columns), bool)
    drawn[0, 1:5, 2:7], drawn[1, 3:6, 5:8] = True, True  # they overlap
    return drawn


def uids(dataset):
    return {str(element.value) for element in dataset.iterall() if element.VR == "UI" and len(str(element.value)) > 30}


def test_masks_come_back_in_their_place_with_their_names(image, tmp_path):
    write_dicom_seg(tmp_path / "seg.dcm", image, masks(image), [LIVER, LESION])
    found, source = highdicom.seg.segread(tmp_path / "seg.dcm"), pydicom.dcmread(image)
    assert np.array_equal(
        found.get_volume().array[0] if found.number_of_segments == 1 else _pixels(found), masks(image)
    )
    liver, lesion = found.SegmentSequence
    assert (liver.SegmentLabel, lesion.SegmentLabel) == ("liver", "liver lesion")
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert liver.SegmentAlgorithmType == "SEMIAUTOMATIC"
    plane = found.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    assert plane.ImagePositionPatient == source.ImagePositionPatient


def _pixels(found):
    """The masks bool [segments, height, width]."""
    frames = found.pixel_array.reshape(-1, found.Rows, found.Columns)
    number = [
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for group in found.PerFrameFunctionalGroupsSequence
    ]
    return frames[np.argsort(number)].astype(bool)


def test_nothing_of_the_patient_leaves_unless_asked_for(image, tmp_path):
    source = pydicom.dcmread(image)
    write_dicom_seg(tmp_path / "seg.dcm", image, masks(image), [LIVER, LESION])
    data = (tmp_path / "seg.dcm").read_bytes()
    for secret in (*dicom_cases.SECRETS.values(), "20200102", *uids(source)):
        assert secret.encode() not in data, secret
    write_dicom_seg(tmp_path / "own.dcm", image, masks(image), [LIVER, LESION], identified=True)
    own = pydicom.dcmread(tmp_path / "own.dcm")
    assert own.PatientID == source.PatientID and own.StudyInstanceUID == source.StudyInstanceUID
    assert uids(source) <= uids(own) | {source.SeriesInstanceUID}


def test_an_empty_mask_is_left_out_and_a_frame_of_several_is_the_one_asked_about(image, tmp_path):
    drawn = masks(image)
    drawn[0] = False
    write_dicom_seg(tmp_path / "seg.dcm", image, drawn, [LIVER, LESION])
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["liver lesion"]
    slices = [dicom_cases.save(one, tmp_path / f"{k}.dcm") for k, one in enumerate(dicom_cases.slices()[:5])]
    source = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(path) for path in slices],
        generate_uid(),
        1,
        generate_uid(),
        1,
    )
    path, drawn = tmp_path / "several.dcm", masks(image)
    source.save_as(path)
    write_dicom_seg(tmp_path / "seg.dcm", path, drawn, [LIVER, LESION], index=2)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert np.array_equal(_pixels(found), drawn)
    shown = [group.PlanePositionSequence[0].ImagePositionPatient for group in found.PerFrameFunctionalGroupsSequence]
    there = source.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient
    assert len(shown) == 2 and all(np.allclose(place, there) for place in shown)


def test_what_cannot_be_written_is_one_line(image, tmp_path):
    (tmp_path / "scan.png").write_bytes(b"no DICOM")
    for source, drawn, message in (
        (tmp_path / "scan.png", masks(image), "not a DICOM file"),
        (image, np.zeros_like(masks(image)), "every mask is empty"),
        (image, np.ones((2, 3, 3), bool), "no DICOM SEG can refer"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            write_dicom_seg(tmp_path / "seg.dcm", source, drawn, [LIVER, LESION])
        assert "\n" not in str(caught.value) and not (tmp_path / "seg.dcm").exists()
    with pytest.raises(InputError, match="cannot be written"):
        write_dicom_seg(tmp_path / "nowhere" / "seg.dcm", image, masks(image), [LIVER, LESION])
