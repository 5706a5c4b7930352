"""NIfTI files as volumes and layers of a case; what is wrong with a file is said without naming it."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from data.sources.cases import Case
from data.sources.labels import Label
from data.sources.regions import BadRecord
from data.sources.slices import Layer
from medp_clip_jax.errors import InputError
from medp_clip_jax.volumes import Volume, open_nifti, optional

SUFFIXES = (".nii.gz", ".nii")


def stem(path: pathlib.Path) -> str:
    """The file's name without .nii or .nii.gz."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def find(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The NIfTI file called `name` in a folder, compressed or not; the compressed one where there is neither."""
    plain = folder / f"{name}.nii"
    return plain if plain.is_file() else folder / f"{name}.nii.gz"


def volume(path: pathlib.Path, channel: int | None = None, unoriented: bool = False) -> Volume:
    """A volume of a file; BadRecord if it is missing, damaged, has no such channel, or states no orientation."""
    if not path.is_file():
        raise BadRecord("missing volume", f"its {_kind(path)} file is not there: put it there, or take the case out")
    nibabel = optional("nibabel", "reading NIfTI")
    try:
        header = nibabel.load(path).header
        stated = "sform_code" not in header or int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
        opened = open_nifti(path, channel)
    except Exception as error:  # nibabel raises whatever damaged bytes lead to, and its messages hold the path
        told = "no readable volume of one number per voxel" if isinstance(error, InputError) else "damaged"
        cause = type(error.__cause__ or error).__name__
        raise BadRecord(
            "unreadable volume", f"{told} in its {_kind(path)} file ({cause}): give a complete one"
        ) from None
    if not stated and not unoriented:
        raise BadRecord(
            "no orientation",
            "neither sform nor qform says where left is: write one, or accept nibabel's guess by unoriented=accept",
        )
    return opened


def spacing(path: pathlib.Path) -> tuple[float, ...]:
    """Voxel sizes in mm as the header says, in stored order; none if it cannot be read."""
    try:
        return tuple(float(size) for size in optional("nibabel", "reading NIfTI").load(path).header.get_zooms()[:3])
    except Exception:  # reported when the volume is read
        return ()


def case_of(
    image: pathlib.Path,
    layers: Sequence[Layer],
    masks: Sequence[pathlib.Path],
    unoriented: bool,
    channel: int | None = None,
    **facts: Any,
) -> Case:
    """A case of one image file and the files of its layers; `facts` are further fields of `Case`."""
    return Case(
        image=functools.partial(volume, image, channel, unoriented),
        layers=tuple(layers),
        files=(image, *masks),
        spacing=functools.partial(spacing, image),
        **facts,
    )


def layer(
    path: pathlib.Path,
    values: Mapping[int, Label],
    any_value: bool = False,
    title: str = "labels",
    unoriented: bool = False,
) -> Layer:
    """A label map, or with `any_value` the mask of one structure."""
    return Layer(functools.partial(volume, path, None, unoriented), dict(values), any_value, title=title)


def _kind(path: pathlib.Path) -> str:
    return ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
