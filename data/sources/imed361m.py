"""Adapter for IMed-361M in the layout of IMIS-Bench: dataset.json, image/, sparse mask stacks in label/, imask/.

After github.com/uni-medical/IMIS-Bench (README, data_loader.py): a label file holds a scipy sparse matrix, one row of
flattened pixels per class, and its shape in its name (`x.(13, 512, 512, 1).npz`); an interactive mask is an integer map
of segments that a model proposed, without classes; -1 belongs to none.
"""

import functools
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import sparse

from data.report import Report
from data.sources import Source, labels, regions, rows, tables
from data.sources.files import shown
from data.sources.options import COMMON, FRAME, GROUP, choice, group_of, number, pattern, provenance
from data.sources.pictures import BadRecord, Picture
from data.sources.rows import Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import Region

VERSION = 1
TABLE = "dataset.json"
OPTIONS = (
    COMMON
    | GROUP
    | FRAME
    | {
        "imask_label": "label for the segments of the interactive masks; default: they are left out, having no class",
        "imask_smallest": "share of the image that such a segment covers at least; default 0.0005, as in IMIS-Bench",
    }
)
_LISTS = {"training": "train", "validation": "val", "val": "val", "test": "test"}
_SLICE = re.compile(r"^(.+)_\d+$")
_MODALITIES = {"mr": "mri", "x_ray": "x-ray", "xray": "x-ray", "fundus_photography": "colour fundus photography"}


def find_imed361m(path: pathlib.Path) -> list[pathlib.Path]:
    """The data set folders at or directly below `path`, sorted; InputError if there are none."""
    if (path / TABLE).is_file():
        return [path]
    found = sorted(file.parent for file in path.glob(f"*/{TABLE}")) if path.is_dir() else []
    if not found:
        raise InputError(f"{shown(path)}: neither it nor a folder in it holds a {TABLE}: check --input")
    return found


def open_imed361m(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """One data set of IMed-361M, in the folder `path` with its dataset.json; see `folder.open_folder`.

    Raises InputError if the table cannot be used.
    """
    stated = options or {}
    head = _head(path / TABLE)
    names = [str(name) for name in head["labels"].values() if str(name) != "background"]
    found = _rows(path, pattern(stated, "group"), head, report)
    name = f"imed361m_{head.get('name') or path.resolve().name}"  # begins as the table of its labels is called
    gathered = rows.gather(found, name, path, only, stated, report)
    settings = (
        choice(stated, "exif", (regions.STORED, regions.SHOWN)),
        stated.get("imask_label", "").strip(),
        number(stated, "imask_smallest", 0.0005),
    )
    place = f"{shown(path / TABLE)}: labels"
    others = {labels.of_name(name): place for name in [*names, settings[1]] if name}
    read = functools.partial(_regions, path, names, settings, report)
    told = provenance(
        stated,
        origin="https://huggingface.co/datasets/General-Medical-AI/IMed-361M",
        annotation="mixed",
        citation="Cheng et al. 2025, arXiv 2411.12814",
    )
    recipe = [VERSION, names]
    return rows.open_source("imed361m", gathered, read, recipe, stated, told, ontology, shipped, report, others)


def _head(path: pathlib.Path) -> dict[str, Any]:
    """The table without its lists of images, which may have millions of entries."""
    head: dict[str, Any] = {"labels": {}, "modality": {}}
    for key in ("name", "labels", "modality"):
        for value in tables.stream_json(path, key):
            if key == "name" or isinstance(value, dict):
                head[key] = value
    if not head["labels"]:
        raise InputError(f"{shown(path)}: has no `labels`: expected the dataset.json of IMed-361M")
    return head


def _rows(
    folder: pathlib.Path, expression: re.Pattern[str] | None, head: Mapping[str, Any], report: Report
) -> Iterator[Row]:
    kinds = {str(kind).lower() for kind in head["modality"].values()}
    modality = kinds.pop() if len(kinds) == 1 else ""
    for listed, split in _LISTS.items():
        for position, entry in enumerate(tables.stream_json(folder / TABLE, f"{listed}.item")):
            place = f"{TABLE}: {listed}[{position}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
                report.skip(f"{shown(folder)}/{place}", "no image path", "each entry has image, label and imask")
                continue
            image_id = shown(pathlib.PurePosixPath(entry["image"]).stem)
            label, segments = str(entry.get("label") or ""), str(entry.get("imask") or "")
            yield Row(
                place=place,
                image_id=image_id,
                image=entry["image"],
                group=_group(expression, image_id, label),
                split=split,
                modality=_MODALITIES.get(modality, modality.replace("_", " ")),
                detail=[label, segments],
                files=tuple(filter(None, (label, segments))),
            )


def _group(expression: re.Pattern[str] | None, image_id: str, label: str) -> str:
    """The volume of a slice: labels of slices are called x___, y___ or z___ and then end in the slice's number."""
    if expression:
        return group_of(expression, image_id, "")
    sliced = re.match(r"[xyz]___", pathlib.PurePosixPath(label).name)
    return group_of(_SLICE, image_id, "") if sliced else ""


def _regions(
    folder: pathlib.Path,
    names: list[str],
    settings: tuple[str, str, float],
    report: Report,
    row: Row,
    picture: Picture,
    resolved: labels.Resolved,
) -> Iterator[Region]:
    frame, segment_label, smallest = settings
    place = f"{shown(folder)}/{row.place}: {row.image_id}"
    label, segments = row.detail
    try:
        for name, mask, where in _classes(folder / label, names) if label else ():
            try:
                yield regions.of_mask(resolved.node(name), regions.mask_in(picture, mask, where, frame), where)
            except BadRecord as bad:
                report.skip(f"{place}, {shown(name)}", bad.reason, bad.detail)
    except BadRecord as bad:  # the whole file
        report.skip(place, bad.reason, bad.detail)
    if not (segment_label and segments):
        return
    try:
        node, where = resolved.node(segment_label), shown(folder / segments)
        values = regions.mask_in(picture, _segments(folder / segments), where, frame)
        for segment, counts in regions.of_values(values):
            region = regions.of_rle(node, counts, *values.shape, where)
            if segment >= 0 and region.area >= smallest * values.size:
                yield region
    except BadRecord as bad:
        report.skip(f"{place}, {shown(segment_label)}", bad.reason, bad.detail)


def _classes(path: pathlib.Path, names: list[str]) -> Iterator[tuple[str, np.ndarray, str]]:
    """Name, mask [height, width] and place of each class that is there; BadRecord if the file cannot be used."""
    where = shown(path)
    try:
        matrix = sparse.load_npz(path)
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)  # compiled code would follow wrong indices anywhere
    except FileNotFoundError as error:
        raise BadRecord("missing mask", f"{where}: put the file there") from error
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        detail = " ".join(str(error).split())
        raise BadRecord("unreadable mask", f"{where} ({detail}): give a complete scipy sparse .npz") from error
    count, height, width = _shape(path, matrix.shape)
    flat = (count, height * width)
    stack = sparse.csr_matrix(matrix if matrix.shape == flat else matrix.reshape(flat))
    for index in range(count):
        begin, end = stack.indptr[index : index + 2]
        pixels = stack.indices[begin:end][stack.data[begin:end] != 0]
        if not pixels.size:
            continue
        if index >= len(names):
            raise BadRecord("class absent from the table", f"{where} has {count} classes, {TABLE} {len(names)}")
        mask = np.zeros(height * width, bool)
        mask[pixels] = True
        yield names[index], mask.reshape(height, width), where


def _shape(path: pathlib.Path, stored: tuple[int, ...]) -> tuple[int, int, int]:
    found = re.search(r"\(([\d, ]+)\)\.npz$", path.name)
    shape = tuple(int(side) for side in re.findall(r"\d+", found[1])) if found else ()
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3 or np.prod(shape) != np.prod(stored):
        detail = f"{shown(path)}: expected (classes, height, width, 1) in its name, and as many values; it has {stored}"
        raise BadRecord("mask of another size", detail)
    return shape


def _segments(path: pathlib.Path) -> np.ndarray:
    """The map of segments [height, width] of an interactive mask; BadRecord if the file cannot be used."""
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise BadRecord("missing mask", f"{shown(path)}: put the file there") from error
    except (OSError, EOFError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise BadRecord("unreadable mask", f"{shown(path)} ({detail}): give a complete .npy file") from error
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise BadRecord("unreadable mask", f"{shown(path)}: expected numbers [height, width, 1], got {values.shape}")
    return values
