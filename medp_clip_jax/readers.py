"""One image from a file or an array, as it would be looked at: PNG, JPEG, DICOM, a NIfTI slice, .npy or numpy."""

import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image

Source = str | os.PathLike | np.ndarray
Window = str | tuple[float, float] | None

# CT windows (level, width) in Hounsfield units, as commonly used in reading rooms.
WINDOWS = {
    "brain": (40, 80),
    "subdural": (75, 215),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (40, 400),
    "liver": (30, 150),
    "bone": (400, 1800),
}
PLANES = ("sagittal", "coronal", "axial")  # in the order of the axes of a volume in RAS+ orientation
AIR = -500  # values below this are Hounsfield units: no other modality stores such numbers


def read_image(source: Source, window: Window = None, plane: str = "axial", index: int | None = None) -> np.ndarray:
    """Reads one image as uint8 [height, width, 3].

    `source` is a path to a PNG, JPEG, DICOM, NIfTI (.nii, .nii.gz) or .npy file, or an array [height, width] or
    [height, width, 1, 3 or 4] (alpha is dropped). `window` is a name of `WINDOWS` or (level, width) in the values' own
    units. Without one a DICOM file's own window is taken, CT values get the soft-tissue window, uint8 and floats in
    [0, 1] stay as they are and anything else is stretched from its 0.5 to its 99.5 percentile. `plane` and `index`
    choose the slice of a NIfTI volume, counted from the patient's left, back or feet and shown in radiological
    orientation, `index` also the frame of a DICOM file; by default the middle one. Slices keep their voxel grid.

    Raises:
      InputError: missing or unreadable file, an array of another shape, or an unknown window, plane or index.
    """
    level_width = _level_width(window)
    if isinstance(source, np.ndarray):
        return _rgb(source, level_width, "the array")
    path = pathlib.Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if _is_nifti(path):
        return _rgb(nifti_slice(path, plane, index), level_width, path, scaled=False)
    if path.suffix == ".npy":
        return _rgb(_load_npy(path), level_width, path)
    if _is_dicom(path):
        return _read_dicom(path, level_width, index)
    if window is not None:
        raise InputError(
            f"{path}: a window applies to values with units (DICOM, NIfTI, arrays); leave it out for PNG and JPEG"
        )
    try:
        return decode_image(path.read_bytes())
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
    if plane not in PLANES:
        raise InputError(f"plane: expected one of {', '.join(PLANES)}, got {plane!r}")
    nibabel = _optional("nibabel", path)
    try:
        image = nibabel.as_closest_canonical(
            nibabel.load(path)
        )  # RAS+: axes run to the right, to the front, to the head
        shape = tuple(size for size in image.shape[3:] if size > 1)
        if len(image.shape) < 3 or shape:
            raise InputError(f"{path}: expected a 3-D volume, got shape {image.shape}; choose one volume of it")
        axis = PLANES.index(plane)
        at = [slice(None)] * 3 + [0] * (len(image.shape) - 3)
        at[axis] = _checked(index, image.shape[axis], f"{path}: {plane} slice")
        values = np.asarray(image.dataobj[tuple(at)], np.float32)
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not a readable NIfTI file ({_line(error)}); give a complete .nii or .nii.gz"
        ) from error
    # Head and front up; the patient's right side, and in sagittal slices the front, on the left of the picture.
    return values.T[::-1, ::-1]


def _read_dicom(path: pathlib.Path, window: tuple[float, float] | None, index: int | None) -> np.ndarray:
    pydicom = _optional("pydicom", path)
    try:
        dataset = pydicom.dcmread(path)
        values = dataset.pixel_array  # colour comes as RGB
        photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames > 1:
            values = values[_checked(index, frames, f"{path}: frame")]
        if photometric == "PALETTE COLOR":
            values = pydicom.pixels.apply_color_lut(values, dataset)
        elif values.ndim == 2:
            values = pydicom.pixels.apply_modality_lut(values, dataset)
    except InputError:
        raise
    except Exception as error:  # pydicom raises whatever a broken field leads to
        raise InputError(f"{path}: not a readable DICOM image ({_line(error)}); give a file with pixel data") from error
    if values.ndim == 3:
        return _rgb(values, None, path, scaled=False)
    image = _rgb(values, window or _own_window(dataset), path, scaled=False)
    return 255 - image if photometric == "MONOCHROME1" else image  # there, high values are dark


def _own_window(dataset: Any) -> tuple[float, float] | None:
    level, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if level is None or width is None:
        return None
    level, width = (value if isinstance(value, (float, int)) else list(value)[0] for value in (level, width))
    return (float(level), float(width)) if float(width) > 0 else None


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
        low, high = _display_range(values, window, name, scaled)
        span = high - low if high > low else 1.0  # a constant image is black
        values = (np.nan_to_num(values.astype(np.float32), nan=low) - low) * (255 / span)
        values = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _display_range(
    values: np.ndarray, window: tuple[float, float] | None, name: object, scaled: bool
) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InputError(f"{name}: expected finite values, got only NaN or infinity")
    if window is None and finite.min() <= AIR:
        window = WINDOWS["soft_tissue"]
    if window is not None:
        level, width = window
        return level - width / 2, level + width / 2
    if scaled and values.dtype.kind == "f" and finite.min() >= 0 and finite.max() <= 1:
        return 0.0, 1.0
    low, high = np.percentile(finite, (0.5, 99.5))
    return float(low), float(high)


def _level_width(window: Window) -> tuple[float, float] | None:
    if window is None:
        return None
    if isinstance(window, str):
        if window not in WINDOWS:
            raise InputError(f"window: expected one of {', '.join(WINDOWS)} or (level, width), got {window!r}")
        return WINDOWS[window]
    level, width = map(float, window)
    if not width > 0:
        raise InputError(f"window: expected (level, width) with a width above 0, got {window}")
    return level, width


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
            f"{path}: not a readable .npy file ({_line(error)}); save one array with numpy.save"
        ) from error


def _mask_pixels(path: pathlib.Path) -> np.ndarray:
    if path.suffix == ".npy":
        return _load_npy(path)
    try:
        with Image.open(path) as image:
            # A palette's indices are the mask, not its colours.
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot read the mask ({_line(error)}); give a PNG, .npy or NIfTI file") from error


def _checked(index: int | None, count: int, what: str) -> int:
    if index is None:
        return count // 2
    if not 0 <= index < count:
        raise InputError(f"{what} {index}: expected 0 to {count - 1}")
    return index


def _optional(module: str, path: pathlib.Path) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise InputError(
            f'{path}: needs {module}, which is not installed: pip install "medp-clip-jax[medical]"'
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
