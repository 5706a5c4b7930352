"""Adapter for a table of images and their labels: one column that names them, or a column of 0 and 1 for each label.

ISIC 2018 Task 3: `image,MEL,NV,BCC,...` with images of those names; CheXpert 5x200: `Path`, then a column per finding;
ODIR-5K: full_df.csv with `filename` and `labels` such as ['N'].
"""

import pathlib
import re
from collections.abc import Iterator, Mapping

from data.report import Report
from data.sources import Source, rows, splits, tables
from data.sources.class_table import Classes, read_classes
from data.sources.files import Finder, matching, relative, shown
from data.sources.options import COMMON, ENCODING, GROUP, group_of, pattern, provenance
from data.sources.rows import Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

VERSION = 1
OPTIONS = (
    COMMON
    | GROUP
    | ENCODING
    | {
        "table": "the table, or a pattern of several, below --input; default: the only .csv",
        "images": "folder of the images, below --input; default: found by their names",
        "image": "column of the image's file; default: image, path, file_name, image_id and the like",
        "label": "column of the labels; default: a column for each of `classes`, where 1 says that it is there",
        "separator": "what stands between labels in a cell; default: |",
        "classes": "what labels or columns are called: a table, or MEL=melanoma,NV=nevus (nothing: left out)",
        "patient": "column of the patient; default: patient_id, subject_id and the like, else `group`",
        "split": "column of the split; default: the table's name, else by a hash of the group",
    }
)
_IMAGE = (
    "image", "imagepath", "path", "file", "filename", "filepath", "imagename", "imageindex", "imageid", "isicid", "id",
)  # fmt: skip
_PATIENT = ("patientid", "patient", "subjectid", "subject", "lesionid", "group")
_YES, _NO = ("1", "1.0", "true", "yes"), ("", "0", "0.0", "-1", "-1.0", "false", "no", "nan")


def open_image_table(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images that a table below the folder `path` gives labels; see `folder.open_folder`.

    Raises InputError if there is no table, a column is missing, or nothing says which columns are labels.
    """
    stated = options or {}
    classes = read_classes(stated.get("classes", ""), path, stated.get("encoding", ""))
    if not stated.get("label") and not classes.names:
        raise InputError(
            f"{shown(path)}: nothing says which columns are labels: give --option=label=COLUMN, or the columns as "
            "--option=classes=MEL=melanoma,NV=melanocytic nevus"
        )
    found = _rows(path, _tables(path, stated), stated, classes, report)
    gathered = rows.gather(found, path.resolve().name, path, only, stated, report)
    recipe = [VERSION, sorted(classes.names.items()), sorted(classes.values.items())]
    told = provenance(stated, annotation="unknown")
    return rows.open_source("image_table", gathered, rows.no_regions, recipe, stated, told, ontology, shipped, report)


def _tables(path: pathlib.Path, stated: Mapping[str, str]) -> list[pathlib.Path]:
    if not path.is_dir():
        raise InputError(f"{shown(path)}: no such folder: --input names the folder with the table and the images")
    found = matching(path, stated.get("table") or "*.csv")
    if not found or (len(found) > 1 and not stated.get("table")):
        hint = "no such file" if stated.get("table") else f"{len(found)} .csv files: name the table"
        raise InputError(f"{shown(path)}: {hint}: --option=table={stated.get('table') or 'FILE'}")
    return found


def _rows(
    folder: pathlib.Path, files: list[pathlib.Path], stated: Mapping[str, str], classes: Classes, report: Report
) -> Iterator[Row]:
    finder = Finder(folder, (folder / stated["images"],) if stated.get("images") else ())
    expression = pattern(stated, "group")
    unknown: set[str] = set()
    for file in files:
        for place, row in tables.read_table(file, report, encoding=stated.get("encoding", "")):
            column = tables.column(row, (stated["image"],) if stated.get("image") else _IMAGE, file, "the image")
            image, place = tables.cell(row, column), place.removeprefix(f"{shown(folder)}/")
            where = f"{shown(folder)}/{place}"
            if not image:
                report.skip(where, "no image path", f"column {column!r} is empty")
                continue
            if stated.get("label"):
                cell = tables.cell(row, tables.column(row, (stated["label"],), file, "the labels"))
                labels = _named(cell.split(stated.get("separator") or "|"), where, classes, unknown, report)
            else:
                labels = _marked(row, file, where, classes, report)
            if labels is None:
                continue
            column = tables.find_column(row, (stated["patient"],) if stated.get("patient") else _PATIENT)
            patient, split = tables.cell(row, column), file.stem
            if stated.get("split"):
                split = tables.cell(row, tables.column(row, (stated["split"],), file, "the split"))
            yield Row(
                place=place,
                image_id=shown(image),
                image=relative(finder.find(image), folder),
                group=group_of(expression, image, patient),
                split=splits.named(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", split)),
                image_labels=labels,
            )


def _named(texts: list[str], place: str, classes: Classes, unknown: set[str], report: Report) -> tuple[str, ...] | None:
    """Labels by their names in a cell; None where the image is left out. Unknown names are told once."""
    found = []
    for text in (text.strip() for text in texts if text.strip()):
        label = classes.names.get(text)
        if label is None and text.isdigit():
            label = classes.values.get(int(text))
        if label is None and (classes.names or classes.values):
            if text not in unknown:
                unknown.add(text)
                report.skip(place, "class absent from the table", f"{text!r}: its images are left out")
            return None
        found.append(text if label is None else label)
    return _kept(found)


def _marked(
    row: tables.Row, file: pathlib.Path, place: str, classes: Classes, report: Report
) -> tuple[str, ...] | None:
    """Labels whose columns say 1; None, told, where a cell says neither yes nor no. Uncertain, -1, is no."""
    found = []
    for name, label in classes.names.items():
        cell = tables.cell(row, tables.column(row, (name,), file, "a label")).lower()
        if cell not in (*_YES, *_NO):
            report.skip(place, "unreadable label", f"column {name!r} holds {cell!r}: expected 0 or 1")
            return None
        if cell in _YES:
            found.append(label)
    return _kept(found)


def _kept(labels: list[str]) -> tuple[str, ...] | None:
    """Each label once; None where all there are, are left out."""
    return None if labels and not any(labels) else tuple(dict.fromkeys(filter(None, labels)))
