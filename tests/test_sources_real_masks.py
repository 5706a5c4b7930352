"""Label maps of real images through every volume format: identical masks, boxes and sides.

The pictures' masks are put into small volumes by SimpleITK, highdicom and pydicom in a temporary folder, and read back.
"""

import json
import pathlib

import numpy as np
import pytest
import SimpleITK
from dicom_cases import AXIAL, contours, save, seg, slices, write_series
from PIL import Image
from volume_cases import check_examples, nifti, open_all, stream

from data.sources.dicom import open_dicom
from data.sources.nifti import open_nifti_pairs

REGIONS = pathlib.Path(__file__).parents[2] / "shared" / "regions"
SETS = ("brain_hemorrhage_ct", "chase_db1", "hvsmr2_cardiac_mri", "msd_hepatic_vessel_ct", "spider_lumbar_mri", "idrid")

pytestmark = pytest.mark.skipif(not REGIONS.is_dir(), reason="the real images are not there")


def label_map(name: str) -> np.ndarray:
    """Labels [slice, row, column] of the first images of a set that have one size: 1 and 2 are its first two masks."""
    rows = [json.loads(line) for line in (REGIONS / name / "annotations.jsonl").read_text().splitlines()]
    by_image: dict[str, list] = {}
    for row in rows:
        if row.get("mask"):
            by_image.setdefault(row["image_id"], []).append(row)
    planes: list[np.ndarray] = []
    for annotations in by_image.values():
        masks = []
        for row in annotations[:2]:
            values = np.asarray(Image.open(REGIONS / name / row["mask"]))
            mask = values != 0 if row.get("mask_value") is None else values == row["mask_value"]
            step = -(-max(mask.shape) // 256)
            masks.append(mask[::step, ::step])
        plane = np.zeros(masks[0].shape, np.uint8)
        for value, mask in enumerate(masks, 1):
            plane[mask & (plane == 0)] = value
        if not planes or plane.shape == planes[0].shape:
            planes.append(plane)
        if len(planes) == 3:
            break
    return np.stack(planes)


def canonical(labels: np.ndarray) -> np.ndarray:
    """Pictures [slice, row, column] as voxels [right, front, head]."""
    return labels[:, ::-1, ::-1].transpose(2, 1, 0)


@pytest.fixture(params=SETS)
def labels(request):
    return label_map(request.param)


@pytest.fixture(autouse=True)
def salt(tmp_path, monkeypatch):
    (tmp_path / "salt").write_bytes(b"a secret of sixteen bytes or more")
    monkeypatch.setenv("MEDP_CLIP_SALT_FILE", str(tmp_path / "salt"))


def check(examples, labels):
    expected = dict(enumerate(labels))
    assert check_examples(examples, "axial", expected=expected) == sum(
        (plane == value).any() for plane in labels for value in (1, 2)
    )


@pytest.mark.parametrize("orientation", ["LPS", "RAI", "PIR", "ASL"])
def test_label_maps_written_by_simpleitk(tmp_path, labels, orientation):
    # An axial picture is stored as ITK does by default: columns run to the left, rows to the back, slices to the head.
    for folder, values in (("images", labels.astype(np.int16) * 300), ("labels", labels)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        turned = SimpleITK.DICOMOrient(SimpleITK.GetImageFromArray(values), orientation)
        SimpleITK.WriteImage(turned, str(tmp_path / "in" / folder / "case.nii.gz"))
    (tmp_path / "in/labels.json").write_text('{"1": "left kidney", "2": "liver"}')
    options = {"planes": "axial", "step_mm": "0", "modality": "ct"}
    check(stream(open_all(open_nifti_pairs, tmp_path / "in", **options)), labels)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "RTSTRUCT"])
def test_label_maps_written_as_dicom(tmp_path, labels, kind):
    datasets = slices(AXIAL, values=canonical(labels).astype(np.float32) * 300)
    write_series(tmp_path / "in", datasets)
    stored = np.asarray(nifti(canonical(labels), AXIAL).dataobj)
    np.testing.assert_array_equal(stored, labels)  # of an axial series, what is stored is the picture
    made = contours(datasets, stored, around=True) if kind == "RTSTRUCT" else seg(datasets, stored, kind)
    save(made, tmp_path / "in/annotation.dcm")
    check(stream(open_all(open_dicom, tmp_path / "in", planes="axial", step_mm="0", burned_in="off")), labels)
