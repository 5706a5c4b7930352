"""Adapter for tables of boxes: NIH ChestX-ray14 as it is published, and CSV files with a box a row.

RSNA Pneumonia Detection: stage_2_train_labels.csv with `patientId, x, y, width, height, Target`, DICOM images.
NIH ChestX-ray14 (Wang et al. 2017): BBox_List_2017.csv with `Image Index, Finding Label, Bbox [x, y, w, h]`, in pixels
of 1024 x 1024; Data_Entry_2017.csv with `Finding Labels` separated by `|`, `Patient ID` and `View Position` of all
images; train_val_list.txt and test_list.txt; PNG files in images_001/images to images_012/images.
"""

import functools
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data import privacy
from data.report import Report
from data.sources import Source, labels, regions, rows, splits, tables
from data.sources.files import Finder, relative, shown
from data.sources.options import COMMON, ENCODING, FRAME, GROUP, choice, group_of, pattern, provenance, source_name
from data.sources.pictures import BadRecord, Picture
from data.sources.rows import Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import Region

VERSION = 1
OPTIONS = (
    COMMON
    | GROUP
    | FRAME
    | ENCODING
    | {
        "boxes": "table of the boxes, below --input; default: BBox_List_2017.csv, else the only .csv",
        "entries": "table of the images with their labels; default: Data_Entry_2017.csv",
        "images": "folder of the images, below --input; default: found by their names",
        "label": "label of every box, where the table has no column for it",
        "present": "column that is 1 where the row's label is there, which is then the image's too, and 0 where not",
        "absent": "label of the images where it is not; default: none",
        "normal": "label of images that have no finding, such as No Finding: they are kept, without it; default: none",
        "separator": "what stands between the labels of an image; default: |",
        "ids": "hash (default): salted hashes in place of image names and patients; keep: as in the tables",
        "salt_file": "secret file that the hashes depend on; default: see docs/sources/csv_boxes.md",
    }
)
_IMAGE = ("image", "imageindex", "imageid", "imagename", "filename", "file", "path", "imagepath", "patientid")
_LABEL = ("findinglabel", "label", "class", "classname", "category", "finding", "name")
_LABELS = ("findinglabels", "labels", "findings", "label", "finding")
_GROUP = ("patientid", "patient", "subjectid", "group")
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"))
# The header of NIH's table is `Bbox [x,y,w,h]`: four columns, by its commas.
_EXTENTS = (
    ("bboxx", "y", "w", "h"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
)
_NIH = "BBox_List_2017"
_NIH_SIZE = (1024, 1024)
_VIEWS = {"PA": "posteroanterior", "AP": "anteroposterior"}


def open_csv_boxes(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images of a table of boxes, or of one of image labels, below the folder `path`; see `folder.open_folder`.

    Raises InputError if there is no table, a column is missing, or the salt cannot be read.
    """
    stated = options or {}
    boxes, entries = (
        _table(path, stated, "boxes", f"{_NIH}*.csv"),
        _table(path, stated, "entries", "Data_Entry_2017*.csv"),
    )
    if boxes is None and entries is None:
        found = sorted(path.glob("*.csv"))
        if len(found) != 1:
            raise InputError(f"{shown(path)}: holds {len(found)} .csv files: name the table by --option=boxes=FILE")
        boxes = found[0]
    nih = any(table and table.name.startswith((_NIH, "Data_Entry_2017")) for table in (boxes, entries))
    name = source_name(stated, "nih_cxr14" if nih else path.resolve().name)
    keep = choice(stated, "ids", ("hash", "keep")) == "keep"
    names = privacy.Names(name, None if keep else privacy.read_salt(stated.get("salt_file", "")))
    shapes = _boxes(path, boxes, stated, report) if boxes else {}
    found_rows = _rows(path, entries, shapes, stated, names, nih, report)
    gathered = rows.gather(found_rows, name, path, only, stated, report)
    frame = choice(stated, "exif", (regions.STORED, regions.SHOWN))
    read = functools.partial(_regions, path, frame, nih, report)
    told = _nih_facts(stated) if nih else provenance(stated, annotation="unknown")
    recipe = [VERSION, nih, names.fingerprint()]
    stated = ({"modality": "chest x-ray", "anatomy": "chest"} if nih else {}) | dict(stated)
    return rows.open_source(
        "csv_boxes", gathered, read, recipe, stated, told, ontology, shipped, report, private=not keep
    )


def _table(path: pathlib.Path, stated: Mapping[str, str], key: str, usual: str) -> pathlib.Path | None:
    if stated.get(key):
        if not (path / stated[key]).is_file():
            raise InputError(f"--option={key}={stated[key]}: no such file in {shown(path)}")
        return path / stated[key]
    return next(iter(sorted(path.glob(usual))), None)


def _boxes(
    folder: pathlib.Path, table: pathlib.Path, stated: Mapping[str, str], report: Report
) -> dict[str, list[tuple[str, str, Any, Any]]]:
    """Image -> place, label, box and kind of its rows, in their order; a row without numbers has no box."""
    found: dict[str, list[tuple[str, str, Any, Any]]] = {}
    columns: tuple[str, str | None, list[str], bool] | None = None
    for place, row in tables.read_table(table, report, encoding=stated.get("encoding", "")):
        if columns is None:
            columns = _columns(row, table, stated)
        image, label, sides, corners = columns
        place = place.removeprefix(f"{shown(folder)}/")
        name, there = tables.cell(row, image), _present(row, table, stated)
        texts = [tables.cell(row, side) for side in sides]
        if not name:
            report.skip(f"{shown(folder)}/{place}", "no image path", f"column {image!r} is empty")
            continue
        if there is None:
            report.skip(f"{shown(folder)}/{place}", "unreadable mark", f"column {stated['present']!r}: expected 0 or 1")
            continue
        text = _text(row, label, stated) if there else stated.get("absent", "")
        boxed = there and any(text.lower() not in ("", "nan") for text in texts)
        if not boxed or stated.get("present"):
            found.setdefault(name, []).append((place, text, None, None))
        if boxed:
            found.setdefault(name, []).append((place, text, texts, corners))
    return found


def _present(row: tables.Row, table: pathlib.Path, stated: Mapping[str, str]) -> bool | None:
    """Whether the row's label is there, as far as a column says so; None where it says neither 0 nor 1."""
    if not stated.get("present"):
        return True
    cell = tables.cell(row, tables.column(row, (stated["present"],), table, "the mark"))
    return {"1": True, "0": False}.get(cell)


def _columns(
    row: Mapping[str, Any], table: pathlib.Path, stated: Mapping[str, str]
) -> tuple[str, str | None, list[str], bool]:
    """The columns of image and label, the four of the box, and whether those are corners."""
    image = tables.column(row, _IMAGE, table, "the image")
    label = tables.find_column(row, _LABEL)
    if label is None and not stated.get("label"):
        raise InputError(f"{shown(table)}: no column for the label: name one `label`, or give --option=label=NAME")
    for names in (*_CORNERS, *_EXTENTS):
        found = [tables.find_column(row, [name]) for name in names]
        if all(found):
            return image, label, [side for side in found if side], names in _CORNERS
    raise InputError(
        f"{shown(table)}: no columns for the box: expected x, y, w, h or xmin, ymin, xmax, ymax, found {', '.join(row)}"
    )


def _text(row: Mapping[str, Any], label: str | None, stated: Mapping[str, str]) -> str:
    return tables.cell(row, label) or stated.get("label", "")


def _rows(
    folder: pathlib.Path,
    entries: pathlib.Path | None,
    shapes: dict[str, list[tuple[str, str, Any, Any]]],
    stated: Mapping[str, str],
    names: privacy.Names,
    nih: bool,
    report: Report,
) -> Iterator[Row]:
    finder = Finder(folder, (folder / stated["images"],) if stated.get("images") else ())
    expression = pattern(stated, "group")
    lists = _lists(folder) if nih else {}
    listed = _entries(folder, entries, stated, report) if entries else None
    for image, (place, image_labels, patient, view) in (listed or {name: ("", [], "", "") for name in shapes}).items():
        mine = shapes.pop(image, [])
        alone = [label for _, label, box, _ in mine if box is None and label]
        group = group_of(expression, image, patient)
        yield Row(
            place=place or mine[0][0],
            image_id=names.of(shown(image)),
            image=relative(finder.find(image), folder),
            group=names.of(group) if group else "",
            split=_official(lists.get(image, ""), names.of(group or image)),
            labels=tuple(dict.fromkeys(label for _, label, box, _ in mine if box is not None and label)),
            image_labels=tuple(
                dict.fromkeys(label for label in (*image_labels, *alone) if label != stated.get("normal"))
            ),
            view=view,
            detail=[[place, label, box, corners] for place, label, box, corners in mine if box is not None],
        )
    for mine in shapes.values() if listed is not None else ():
        report.skip(
            f"{shown(folder)}/{mine[0][0]}", "region of an unknown image", f"it is not in {entries and entries.name}"
        )


def _entries(
    folder: pathlib.Path, table: pathlib.Path, stated: Mapping[str, str], report: Report
) -> dict[str, tuple[str, list[str], str, str]]:
    """Image -> place, labels, patient and view."""
    found: dict[str, tuple[str, list[str], str, str]] = {}
    for place, row in tables.read_table(table, report, encoding=stated.get("encoding", "")):
        image = tables.cell(row, tables.column(row, _IMAGE, table, "the image"))
        texts = tables.cell(row, tables.column(row, _LABELS, table, "the labels")).split(stated.get("separator", "|"))
        patient = tables.cell(row, tables.find_column(row, _GROUP))
        view = tables.cell(row, tables.find_column(row, ("viewposition", "view")))
        if not image or image in found:
            reason = "image_id used twice" if image else "no image path"
            report.skip(place, reason, "the first row is kept" if image else "the row names no image")
            continue
        named = [text.strip() for text in texts if text.strip()]
        found[image] = place.removeprefix(f"{shown(folder)}/"), named, patient, _VIEWS.get(view, view)
    return found


def _lists(folder: pathlib.Path) -> dict[str, str]:
    """Image -> the list of NIH's official split that it is in."""
    found: dict[str, str] = {}
    for name, split in (("train_val_list.txt", "train"), ("test_list.txt", "test")):
        if (folder / name).is_file():
            with tables.open_text(folder / name) as file:
                found |= {line.strip(): split for line in file if line.strip()}
    return found


def _official(split: str, group: str) -> str:
    """Of NIH's train_val list a tenth of the patients becomes val: the list holds both."""
    hashed = splits.hashed("nih_cxr14", group)
    return "val" if split == "train" and hashed == "val" else split


def _nih_facts(stated: Mapping[str, str]) -> dict[str, str]:
    return provenance(
        stated,
        licence="free to use with attribution to the NIH Clinical Center and a link to the download site",
        origin="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        annotation="mixed",
        annotation_protocol="image labels mined from reports by a program; boxes drawn by hand",
        citation="Wang et al., ChestX-ray8, CVPR 2017",
    )


def _regions(
    folder: pathlib.Path, frame: str, nih: bool, report: Report, row: Row, picture: Picture, resolved: labels.Resolved
) -> Iterator[Region]:
    if nih and row.detail and picture.stored_size != _NIH_SIZE:
        detail = f"its boxes are for 1024 x 1024 px, it has {picture.width} x {picture.height}: take the original"
        report.skip(f"{shown(folder)}/{row.place}: {row.image_id}", "image of another size", detail)
        return
    turn = regions.turn_of(picture, None, frame)
    for place, label, texts, corners in row.detail:
        try:
            box = _numbers(texts, corners)
            if not label:
                raise BadRecord("region without a label", "the row names none")
            yield regions.of_box(resolved.node(label), regions.box_in(picture, box, turn))
        except BadRecord as bad:
            report.skip(f"{shown(folder)}/{place}: {row.image_id}, {shown(label)}", bad.reason, bad.detail)


def _numbers(texts: list[str], corners: bool) -> list[float]:
    try:
        x, y, a, b = (float(re.sub(r"[\[\]()\s]", "", text)) for text in texts)
    except ValueError as error:
        raise BadRecord("not a box", f"expected four numbers, got {', '.join(texts)}") from error
    return [x, y, a, b] if corners else [x, y, x + a, y + b]
