"""Adapter for images in arrays: MedMNIST's .npz files and PatchCamelyon's .h5 files.

MedMNIST (Yang et al., Sci Data 2023): pathmnist.npz and the like with `train_images` uint8 [n, side, side(, 3)] and
`train_labels` [n, 1], or [n, classes] of 0 and 1, for train, val and test; the images of its 3-D sets are volumes
[n, side, side, side], of which slices along the first side are read. PatchCamelyon (arXiv 1806.03962): files such
as camelyonpatch_level_2_split_test_x.h5 with `x` [n, 96, 96, 3] and _y.h5 with `y` [n, 1, 1, 1].
"""

import functools
import io
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from data.report import Report
from data.sources import Source, rows, splits
from data.sources.class_table import read_classes
from data.sources.files import matching, relative, shown
from data.sources.options import COMMON, number, provenance
from data.sources.pictures import BadRecord, Picture, picture_of
from data.sources.rows import Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

VERSION = 1
OPTIONS = COMMON | {
    "files": "the .npz file, or a pattern of the _x.h5 files, below --input; default: the only .npz, else **/*_x.h5",
    "slices": "of volumes: how many slices around the middle are images, which are a group then; default: no volumes",
    "classes": "what the numbers are called, as 0=adipose tissue,1=background (nothing: left out). Required",
}
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def open_arrays(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images of the arrays below the folder `path`; see `folder.open_folder`.

    Raises InputError if there is no file, it holds no images, or nothing says what the numbers of classes mean.
    """
    stated = options or {}
    classes = read_classes(stated.get("classes", ""), path)
    if not classes.values:
        raise InputError(f"{shown(path)}: nothing says what the classes are: give --option=classes=0=NAME,1=NAME")
    slices = int(number(stated, "slices", 0))
    found = _rows(path, _files(path, stated), classes.values, slices)
    gathered = rows.gather(found, path.resolve().name, path, only, stated, report)
    recipe, told = [VERSION, sorted(classes.values.items())], provenance(stated, annotation="unknown")
    return rows.open_source(
        "arrays", gathered, rows.no_regions, recipe, stated, told, ontology, shipped, report, read=_picture
    )


def _files(path: pathlib.Path, stated: Mapping[str, str]) -> list[pathlib.Path]:
    if not path.is_dir():
        raise InputError(f"{shown(path)}: no such folder: --input names the folder with the arrays")
    found = (
        matching(path, stated["files"])
        if stated.get("files")
        else matching(path, "*.npz") or matching(path, "**/*_x.h5")
    )
    packed = [file for file in found if file.suffix == ".npz"]
    if not found or len(packed) > 1:
        count = f"{len(packed)} .npz files" if packed else "no .npz and no _x.h5"
        raise InputError(f"{shown(path)}: {count} there: name the file by --option=files=NAME")
    return found


def _rows(folder: pathlib.Path, files: list[pathlib.Path], classes: Mapping[int, str], slices: int) -> Iterator[Row]:
    for file in files:
        place = shown(relative(file, folder))
        for split, key, labels in _labels(file):
            for index, row in enumerate(labels):
                numbers = row if row.size == 1 else np.flatnonzero(row)
                if unknown := [int(n) for n in numbers if int(n) not in classes]:
                    raise InputError(
                        f"{shown(file)}: class {unknown[0]} is not in --option=classes; expected all of them"
                    )
                named = [classes[int(n)] for n in numbers]
                if named and not any(named):
                    continue
                row_id = f"{key.removesuffix('_images')}/{index}"
                for at in range(slices or 1):
                    yield Row(
                        place=place,
                        image_id=f"{row_id}/{at}" if slices else row_id,
                        image=relative(file, folder),
                        group=row_id if slices else "",
                        split=split,
                        image_labels=tuple(dict.fromkeys(filter(None, named))),
                        detail=[key, index, *([at - slices // 2] if slices else [])],
                    )


def _labels(file: pathlib.Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """(split, name of its images, labels [n, 1 or classes]) of a file; InputError if it is damaged."""
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                for key in (name for name in arrays.files if name.endswith("_images")):
                    labels = arrays[key.replace("_images", "_labels")]
                    yield splits.named(key), key, labels.reshape(len(labels), -1)
        else:
            other = file.with_name(f"{file.stem.removesuffix('_x')}_y.h5")
            with _h5(other) as content:
                labels = content["y"][()]
            split = splits.named(file.stem)
            yield split, split or file.stem, labels.reshape(len(labels), -1)
    except _DAMAGED as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{shown(file)}: cannot be read ({detail}): take the original file, unpacked") from error


def _picture(path: pathlib.Path, row: Row, where: str) -> Picture:
    """An image of an array as a PNG; BadRecord if it cannot be used."""
    key, index, *offset = row.detail
    try:
        pixels = np.asarray(_images(str(path), key)[index])
        if offset and pixels.ndim == 3:
            at = len(pixels) // 2 + offset[0]
            if not 0 <= at < len(pixels):
                raise IndexError(f"it has {len(pixels)} slices, fewer than --option=slices")
            pixels = pixels[at]
    except (*_DAMAGED, IndexError) as error:
        raise BadRecord(
            "unreadable image", f"{where}: {' '.join(str(error).split())}: take the original file"
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] != 3):
        raise BadRecord(
            "unreadable image",
            f"{where}: expected uint8 [side, side(, 3)], got {pixels.dtype} {pixels.shape}; of volumes, which are "
            "[side, side, side], take slices by --option=slices=3",
        )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return picture_of(buffer.getvalue(), where)


@functools.lru_cache(maxsize=2)
def _images(path: str, key: str) -> Any:
    """The images of a split: in memory from an .npz, which is packed, and read one by one from an .h5."""
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]
    return _h5(pathlib.Path(path))["x"]


def _h5(path: pathlib.Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f'{shown(path)}: needs h5py: pip install "medp-clip-jax[corpora]"') from error
    return h5py.File(path)
