"""Volumes as seen by a reader: slices in radiological orientation, whatever the order in which voxels are stored.

One convention for every format. Voxel axes are taken to the closest axes of the patient (right, front, head); in the
picture of a slice, head and front are up, the patient's right side is on the left and, in sagittal slices, the front
is on the left. Voxels are never resampled: a slice keeps its grid.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from medp_clip_jax.errors import InputError
from medp_clip_jax.intensity import display_range

PLANES = ("sagittal", "coronal", "axial")  # in the order of the axes of a volume in RAS+ orientation
SAMPLES = 64  # slices per axis that a volume's range of brightness is taken from, at most


@dataclasses.dataclass(frozen=True)
class Volume:
    """Voxels [right, front, head], of which one slice at a time is read.

    `read(axis, index)` gives the slice across an axis, the other two axes kept in order; `affine` [4, 4] takes voxel
    indices to millimetres, RAS+. `range_axis` is the axis whose slices are files of their own and so read fastest.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    read: Callable[[int, int], np.ndarray]
    range_axis: int | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxels in mm along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def tilt(self) -> float:
        """Largest angle in degrees between an axis of the voxels and the patient's axis that it stands for."""
        cosines = np.abs(np.diag(self.affine[:3, :3])) / np.maximum(self.spacing, 1e-12)
        return float(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))))

    def picture(self, plane: str, index: int) -> np.ndarray:
        """A slice in radiological orientation [height, width], counted from the patient's left, back or feet."""
        return as_picture(self.read(PLANES.index(plane), index))


def as_picture(values: np.ndarray) -> np.ndarray:
    """A slice of [right, front, head] axes as it is looked at: [height, width]."""
    return values.T[::-1, ::-1]


def from_stored(
    shape: tuple[int, ...], affine: np.ndarray, read: Callable[[int, int], np.ndarray], where: object
) -> Volume:
    """The volume of voxels stored in any order: `affine` [4, 4] takes stored indices to millimetres RAS+, `read(axis,
    index)` slices the stored array. Raises InputError, naming `where`, if the affine is no grid of the patient."""
    nibabel = optional("nibabel", where)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise InputError(f"{where}: its affine is no grid in space; write a valid sform or qform")
    orientation = nibabel.io_orientation(affine).astype(int)  # [stored axis] -> (patient's axis, direction)
    axes = np.argsort(orientation[:, 0])  # [patient's axis] -> stored axis
    flips = orientation[axes, 1]

    def read_canonical(axis: int, index: int) -> np.ndarray:
        stored = int(axes[axis])
        values = read(stored, index if flips[axis] > 0 else shape[stored] - 1 - index)
        others = [other for other in range(3) if other != axis]
        if axes[others[0]] > axes[others[1]]:
            values = values.T
        return values[:: flips[others[0]], :: flips[others[1]]]

    canonical = affine @ nibabel.orientations.inv_ornt_aff(orientation, shape)
    x, y, z = (int(shape[axis]) for axis in axes)
    return Volume((x, y, z), canonical, read_canonical)


def open_nifti(path: pathlib.Path, channel: int | None = None) -> Volume:
    """A 3-D volume of a NIfTI file, or number `channel` of a 4-D file, its values scaled slice by slice.

    Raises InputError if nibabel is not installed, the file is broken, or it holds no such volume.
    """
    nibabel = optional("nibabel", path)
    try:
        image = nibabel.load(path)
        sizes = (*image.shape, *(1,) * (4 - len(image.shape)))
        if (
            len(image.shape) < 3
            or 0 in sizes
            or any(size > 1 for size in sizes[4:])
            or (channel is None and sizes[3] > 1)
        ):
            raise InputError(f"{path}: expected a 3-D volume, got shape {image.shape}; choose one volume of it")
        if (channel or 0) >= sizes[3]:
            raise InputError(f"{path}: has no channel {channel}, its shape is {image.shape}; choose one that is there")
        at = ((slice(None),) * 3 + (channel or 0,) + (0,) * (len(sizes) - 4))[: len(image.shape)]
        stored = np.asanyarray(image.dataobj.get_unscaled())[at]  # in the file's own type; not read if uncompressed
        slope, shift = image.dataobj.slope, image.dataobj.inter
        if stored.dtype.kind not in "buif":
            raise InputError(f"{path}: expected one number per voxel, got {stored.dtype}; convert it")
    except (OSError, EOFError, ValueError, AttributeError, nibabel.filebasedimages.ImageFileError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not a readable NIfTI file ({one_line(error)}); give a complete .nii or .nii.gz"
        ) from error

    def read(axis: int, index: int) -> np.ndarray:
        values = np.asarray(stored[(slice(None),) * axis + (index,)])
        return values if (slope, shift) == (1, 0) else values.astype(np.float32) * np.float32(slope) + np.float32(shift)

    return from_stored(stored.shape, image.affine, read, path)


def volume_range(
    volume: Volume, window: tuple[float, float] | None, where: object, ct: bool = True
) -> tuple[float, float]:
    """Values shown as black and white in all slices of a volume alike (`display_range` of at most 64 slices of it).

    Slices that cannot be read (InputError) are left out; the error is raised again if none can.
    """
    if window is not None:
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    axis = int(np.argmax(np.asarray(volume.shape))) if volume.range_axis is None else volume.range_axis
    count = volume.shape[axis]
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(int))
    steps = [max(1, volume.shape[other] // 128) for other in range(3) if other != axis]
    parts, failed = [], None
    for index in chosen:
        try:
            parts.append(volume.read(axis, int(index))[:: steps[0], :: steps[1]].ravel())
        except InputError as error:
            failed = error
    if not parts and failed is not None:
        raise failed
    return display_range(np.concatenate(parts).astype(np.float32), None, where, ct=ct)


def optional(module: str, where: object, extra: str = "medical") -> Any:
    """Imports a library that only some formats need; InputError, naming `where`, says how to install it."""
    try:
        return __import__(module)
    except ImportError as error:
        raise InputError(
            f'{where}: needs {module}, which is not installed: pip install "medp-clip-jax[{extra}]"'
        ) from error


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
