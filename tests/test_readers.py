"""Images from every kind of file: what a person would see, at the file's own grid."""

import gzip
import pathlib

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from medp_clip_jax.errors import InputError
from medp_clip_jax.readers import PLANES, WINDOWS, read_image, read_mask


def _dicom(name: str) -> pathlib.Path:
    return pathlib.Path(get_testdata_file(name))


def _save_dicom(tmp_path, **changes) -> pathlib.Path:
    dataset = pydicom.dcmread(_dicom("CT_small.dcm"))
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(tmp_path / "changed.dcm")
    return tmp_path / "changed.dcm"


@pytest.fixture
def volume(tmp_path):
    """A volume of 4 x 5 x 6 voxels, stored left-posterior-superior, bright only at the patient's right, front, head."""
    ras = np.zeros((4, 5, 6), np.float32)
    ras[-1, -1, -1] = 100  # RAS+: the last voxels are the patient's right, front and head
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(ras[::-1, ::-1], np.diag([-1.0, -1, 1, 1])), path)
    return path


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (7, 5, 4)])
def test_uint8_arrays_stay_as_they_are(shape):
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = read_image(values)
    assert image.shape == (7, 5, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.broadcast_to(values.reshape(7, 5, -1)[..., :3], (7, 5, 3)))


@hypothesis.given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.uint16, np.uint8, bool]),
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
    ),
    st.sampled_from([None, *WINDOWS]),
)
@hypothesis.settings(deadline=None)
def test_any_finite_array_becomes_an_image_that_keeps_the_order_of_its_values(values, window):
    hypothesis.assume(np.isfinite(values).all() and np.abs(values.astype(np.float64)).max() < 1e30)
    image = read_image(values, window=window)
    assert image.shape == (*values.shape, 3) and image.dtype == np.uint8
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(image[..., 0].ravel()[order].astype(int)) >= 0).all()


def test_floats_in_the_unit_interval_are_brightness():
    np.testing.assert_array_equal(read_image(np.array([[0, 0.5, 0.25]]))[0, :, 0], [0, 128, 64])


def test_a_window_maps_its_ends_to_black_and_white():
    values = np.array([[-5000, -160, 40, 240, 5000]], np.int16)
    np.testing.assert_array_equal(read_image(values, window="soft_tissue")[0, :, 0], [0, 0, 128, 255, 255])
    np.testing.assert_array_equal(read_image(values, window=(40, 400)), read_image(values, window="soft_tissue"))


def test_hounsfield_units_get_the_soft_tissue_window():
    values = np.array([[-1000, 0, 60, 3000]], np.int16)
    np.testing.assert_array_equal(read_image(values), read_image(values, window="soft_tissue"))


def test_nan_is_black():
    assert read_image(np.array([[np.nan, 3.0, 9.0]]))[0, 0, 0] == 0


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_picture_files(tmp_path, suffix):
    values = np.full((9, 12, 3), (200, 100, 50), np.uint8)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / f"a.{suffix}").astype(int), values.astype(int), atol=3)
    np.testing.assert_array_equal(read_image(str(tmp_path / f"a.{suffix}")), read_image(tmp_path / f"a.{suffix}"))


def test_npy_files_are_read_as_arrays(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), read_image(values))


def test_dicom_applies_the_rescale_before_the_window():
    dataset = pydicom.dcmread(_dicom("CT_small.dcm"))
    units = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    image = read_image(_dicom("CT_small.dcm"), window="bone")
    np.testing.assert_array_equal(image, read_image(units, window="bone"))
    assert image.shape == (128, 128, 3)


def test_dicom_takes_its_own_window_unless_told_otherwise(tmp_path):
    path = _save_dicom(tmp_path, WindowCenter=[50, 400], WindowWidth=[350, 1800])
    np.testing.assert_array_equal(read_image(path), read_image(path, window="mediastinum"))
    assert (read_image(path, window="lung") != read_image(path)).any()


def test_monochrome1_is_inverted(tmp_path):
    plain = read_image(_dicom("CT_small.dcm"))
    np.testing.assert_array_equal(
        read_image(_save_dicom(tmp_path, PhotometricInterpretation="MONOCHROME1")), 255 - plain
    )


def test_dicom_is_recognised_without_its_suffix(tmp_path):
    (tmp_path / "IM0001").write_bytes(_dicom("MR_small.dcm").read_bytes())
    np.testing.assert_array_equal(read_image(tmp_path / "IM0001"), read_image(_dicom("MR_small.dcm")))


@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_colour_dicom_comes_as_rgb(name):
    image = read_image(_dicom(name))
    assert image.shape == (100, 100, 3)
    top = image[5, 50].astype(int)  # the test picture starts with a red band
    assert top[0] > 200 and top[1] < 60 and top[2] < 60


def test_palette_dicom_is_coloured():
    image = read_image(_dicom("examples_palette.dcm"))
    assert image.shape == (350, 800, 3) and (image[..., 0] != image[..., 2]).any()


def test_frames_of_a_dicom_file():
    first, second = (read_image(_dicom("SC_rgb_rle_2frame.dcm"), index=index) for index in (0, 1))
    assert (first != second).any()
    np.testing.assert_array_equal(read_image(_dicom("SC_rgb_rle_2frame.dcm")), second)
    with pytest.raises(InputError, match="frame 2: expected 0 to 1"):
        read_image(_dicom("SC_rgb_rle_2frame.dcm"), index=2)


def test_nifti_slices_are_in_radiological_orientation(volume):
    # The patient's right is on the left of the picture, front and head are up; in sagittal slices the front is left.
    for plane, shape in zip(PLANES, [(6, 5), (6, 4), (5, 4)], strict=True):
        last = {"sagittal": 3, "coronal": 4, "axial": 5}[plane]
        image = read_image(volume, plane=plane, index=last)
        assert image.shape == (*shape, 3)
        assert image[0, 0, 0] == 255 and (image[..., 0] == 255).sum() == 1
        assert read_image(volume, plane=plane, index=0).max() == 0


def test_nifti_takes_the_middle_slice_and_the_window(volume, tmp_path):
    np.testing.assert_array_equal(read_image(volume), read_image(volume, plane="axial", index=3))
    units = np.linspace(-1000, 1000, 60).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(units, np.eye(4)), tmp_path / "ct.nii")
    image = read_image(tmp_path / "ct.nii", index=0, window="lung")
    np.testing.assert_array_equal(image, read_image(units[:, :, 0].T[::-1, ::-1].astype(np.float32), window="lung"))


def test_broken_files_are_named_in_one_line(tmp_path):
    (tmp_path / "note.txt").write_text("not an image")
    (tmp_path / "cut.dcm").write_bytes(_dicom("MR_small.dcm").read_bytes()[:3000])
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(b"short"))
    (tmp_path / "text.npy").write_text("no")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("note.txt", "cut.dcm", "cut.nii.gz", "text.npy", "cut.png", "absent.png", "folder"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_other_wrong_input(tmp_path, volume):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2), np.float32), np.eye(4)), tmp_path / "4d.nii")
    cases = [
        (dict(source=tmp_path / "a.png", window="lung"), "a window applies to values with units"),
        (dict(source=volume, window="lungs"), "window: expected one of brain"),
        (dict(source=volume, window=(40, 0)), "width above 0"),
        (dict(source=volume, plane="oblique"), "plane: expected one of sagittal, coronal, axial"),
        (dict(source=volume, index=6), "axial slice 6: expected 0 to 5"),
        (dict(source=volume, index=-1), "axial slice -1"),
        (dict(source=tmp_path / "4d.nii"), "expected a 3-D volume"),
        (dict(source=np.zeros((2, 3, 4, 3))), "expected numbers"),
        (dict(source=np.zeros((0, 3))), "expected numbers"),
        (dict(source=np.array([["a"]])), "expected numbers"),
        (dict(source=np.full((2, 2), np.nan)), "only NaN"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            read_image(**arguments)


def test_a_missing_optional_reader_says_how_to_install_it(monkeypatch, volume):
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(InputError, match=r'pip install "medp-clip-jax\[medical\]"'):
        read_image(volume)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_masks_of_every_png_mode_are_non_zero_pixels(tmp_path, mode):
    mask = np.zeros((6, 9), bool)
    mask[2:4, 3:8] = True
    if mode == "I;16":
        picture = Image.fromarray(mask.astype(np.uint16) * 300)
    else:
        picture = Image.fromarray(mask.astype(np.uint8) * 255).convert(mode)
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (9, 6)), mask)


def test_masks_from_arrays_npy_and_nifti(tmp_path, volume):
    mask = np.eye(5, dtype=np.int32)
    np.save(tmp_path / "m.npy", mask)
    np.testing.assert_array_equal(read_mask(mask, (5, 5)), mask != 0)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.npy", (5, 5)), mask != 0)
    seen = read_mask(volume, (4, 5), plane="axial", index=5)
    assert seen[0, 0] and seen.sum() == 1


def test_masks_that_cannot_be_meant(tmp_path):
    Image.fromarray(np.ones((6, 9), np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "t.png").write_text("no")
    cases = [
        (tmp_path / "m.png", (6, 9), r"m\.png: a mask of 9 x 6 px for an image of 6 x 9 px"),
        (np.zeros((9, 6)), (6, 9), "the mask is empty"),
        (tmp_path / "absent.png", (6, 9), r"absent\.png: no such file"),
        (tmp_path / "t.png", (6, 9), r"t\.png: cannot read the mask"),
    ]
    for source, size, message in cases:
        with pytest.raises(InputError, match=message):
            read_mask(source, size)
