"""One image from a file or an array, as it would be looked at: PNG, JPEG, DICOM, a NIfTI slice, .npy or numpy."""

import io
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from medp_clip_jax.errors import InputError
from medp_clip_jax.intensity import WINDOWS, Window, display_range, level_width, to_uint8
from medp_clip_jax.records import decode_image
from medp_clip_jax.volumes import PLANES, Volume, one_line, open_nifti, optional, volume_range

__all__ = ["PLANES", "WINDOWS", "Source", "Window", "nifti_slice", "read_image", "read_mask"]

Source = str | os.PathLike | np.ndarray


def read_image(source: Source, window: Window = None, plane: str = "axial", index: int | None = None) -> np.ndarray:
    """Reads one image as uint8 [height, width, 3], as it is shown: turned by its EXIF orientation.

    `source` is a path to a PNG, JPEG, DICOM, NIfTI (.nii, .nii.gz) or .npy file, or an array [height, width] or
    [height, width, 1, 3 or 4] (alpha is dropped). `window` is a name of `WINDOWS` or (level, width) in the values' own
    units. Without one a DICOM file's own window is taken, CT values get the soft-tissue window, uint8 and floats in
    [0, 1] stay as they are and anything else is stretched from its 0.5 to its 99.5 percentile (of a NIfTI volume as a
    whole, so that its slices can be compared). `plane` and `index` choose the slice of a NIfTI volume, counted from the
    patient's left, back or feet and shown in radiological orientation, `index` also the frame of a DICOM file; by
    default the middle one. Slices keep their voxel grid.

    Raises:
      InputError: missing or unreadable file, an array of another shape, or an unknown window, plane or index.
    """
    level_and_width = level_width(window)
    if isinstance(source, np.ndarray):
        return _rgb(source, level_and_width, "the array")
    path = pathlib.Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if _is_nifti(path):
        return _nifti_picture(path, plane, index, level_and_width)
    if path.suffix == ".npy":
        return _rgb(_load_npy(path), level_and_width, path)
    if _is_dicom(path):
        return _read_dicom(path, level_and_width, index)
    if window is not None:
        raise InputError(
            f"{path}: a window applies to values with units (DICOM, NIfTI, arrays); leave it out for PNG and JPEG"
        )
    try:
        data = path.read_bytes()
        return _upright(decode_image(data), data)
    except InputError as error:
        raise InputError(f"{path}: {error} (or a DICOM, NIfTI or .npy file)") from error


def read_mask(source: Source, size: tuple[int, int], plane: str = "axial", index: int | None = None) -> np.ndarray:
    """Reads the mask of an image of `size` (width, height) as bool [height, width]; every non-zero pixel belongs to it.

    `source` is a PNG, .npy or NIfTI file or an array; `plane` and `index` are as in `read_image`.

    Raises:
      InputError: missing, unreadable, of another size than the image, or empty.
    """
    name: object = "the mask"
    if isinstance(source, np.ndarray):
        values = source
    else:
        name = path = pathlib.Path(source)
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the path of the mask")
        values = nifti_slice(path, plane, index) if _is_nifti(path) else _mask_pixels(path)
    if values.ndim == 3:
        values = np.asarray(values[..., :3].any(-1))  # an alpha channel says nothing about the region
    width, height = size
    if values.shape != (height, width):
        got = " x ".join(map(str, values.shape[::-1]))
        raise InputError(
            f"{name}: a mask of {got} px for an image of {width} x {height} px; give one of the image's size"
        )
    if not values.any():
        raise InputError(f"{name}: the mask is empty; draw the region with non-zero pixels or leave the mask out")
    return values != 0


def nifti_slice(path: pathlib.Path, plane: str = "axial", index: int | None = None) -> np.ndarray:
    """A slice of a NIfTI volume in radiological orientation, float32 [height, width].

    Raises:
      InputError: nibabel is not installed, the file is broken, the volume is not 3-D, or there is no such slice.
    """
    volume, at = _open_slice(path, plane, index)
    return volume.picture(plane, at).astype(np.float32)


def _nifti_picture(path: pathlib.Path, plane: str, index: int | None, window: tuple[float, float] | None) -> np.ndarray:
    volume, at = _open_slice(path, plane, index)
    return _grey(to_uint8(volume.picture(plane, at), *volume_range(volume, window, path)))


def _open_slice(path: pathlib.Path, plane: str, index: int | None) -> tuple[Volume, int]:
    if plane not in PLANES:
        raise InputError(f"plane: expected one of {', '.join(PLANES)}, got {plane!r}")
    volume = open_nifti(path)
    return volume, _checked(index, volume.shape[PLANES.index(plane)], f"{path}: {plane} slice")


def _read_dicom(path: pathlib.Path, window: tuple[float, float] | None, index: int | None) -> np.ndarray:
    pydicom = optional("pydicom", path)
    try:
        return dicom_picture(pydicom.dcmread(path), window, index, path)
    except InputError:
        raise
    except Exception as error:  # pydicom raises whatever a broken field leads to
        raise InputError(
            f"{path}: not a readable DICOM image ({one_line(error)}); give a file with pixel data"
        ) from error


def dicom_picture(dataset: Any, window: tuple[float, float] | None, index: int | None, name: object) -> np.ndarray:
    """A frame of a pydicom dataset as it is shown, uint8 [height, width, 3]: `window` (level, width), else its own
    one, else as in `read_image`. Raises InputError, with `name`, for a frame that is not there, and whatever pydicom
    raises for pixels that cannot be decoded."""
    pydicom = optional("pydicom", name)
    values = dataset.pixel_array  # colour comes as RGB
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        values = values[_checked(index, frames, f"{name}: frame")]
    if photometric == "PALETTE COLOR":
        values = pydicom.pixels.apply_color_lut(values, dataset)
    elif values.ndim == 2:
        values = pydicom.pixels.apply_modality_lut(values, dataset)
    if values.ndim == 3:
        return _rgb(values, None, name, scaled=False)
    image = _rgb(values, window or _own_window(dataset), name, scaled=False)
    return 255 - image if photometric == "MONOCHROME1" else image  # there, high values are dark


def _own_window(dataset: Any) -> tuple[float, float] | None:
    level, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if level is None or width is None:
        return None
    level, width = (value if isinstance(value, (float, int)) else list(value)[0] for value in (level, width))
    return (float(level), float(width)) if float(width) > 0 else None


# EXIF orientation -> (whether x and y change places, then whether to mirror x, and y).
_TURNS = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def _upright(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """Pixels [height, width, 3] of an encoded image as viewers show them; EXIF that cannot be read says nothing."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            turn = _TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # whatever Pillow makes of damaged tags
        return pixels
    if turn is None:
        return pixels
    swap, across, down = turn
    pixels = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def _rgb(values: np.ndarray, window: tuple[float, float] | None, name: object, scaled: bool = True) -> np.ndarray:
    """Display values uint8 [height, width, 3]; `scaled` says that floats in [0, 1] are brightness already."""
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[-1] not in (1, 3, 4) or 0 in values.shape or values.dtype.kind not in "buif":
        raise InputError(
            f"{name}: expected numbers [height, width] or [height, width, 3], got {values.dtype} {values.shape}"
        )
    values = values[..., :3]
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype != np.uint8 or window is not None:
        values = to_uint8(values, *display_range(values, window, name, scaled))
    return _grey(values)


def _grey(values: np.ndarray) -> np.ndarray:
    """[height, width] or [height, width, 1 or 3] repeated to three channels."""
    values = values[..., None] if values.ndim == 2 else values
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _is_nifti(path: pathlib.Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _is_dicom(path: pathlib.Path) -> bool:
    """By the file's own mark: DICOM files often have no suffix, or an arbitrary one."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _load_npy(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable .npy file ({one_line(error)}); save one array with numpy.save"
        ) from error


def _mask_pixels(path: pathlib.Path) -> np.ndarray:
    if path.suffix == ".npy":
        return _load_npy(path)
    try:
        with Image.open(path) as image:
            # A palette's indices are the mask, not its colours.
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot read the mask ({one_line(error)}); give a PNG, .npy or NIfTI file") from error


def _checked(index: int | None, count: int, what: str) -> int:
    if index is None:
        return count // 2
    if not 0 <= index < count:
        raise InputError(f"{what} {index}: expected 0 to {count - 1}")
    return index
