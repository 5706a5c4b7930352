"""Adapter for images in one folder per class, as of COVID-CT, Br35H, Chest CT-Scan and most classification sets.

Layouts: CLASS/x.png and SPLIT/CLASS/x.png, with any folders below, CLASS/SPLIT/x.png, and ANY/SPLIT/CLASS/x.png.
COVID-CT has its official splits as lists of file names in Data-split/*/*.txt, with the split in the list's name, and
its patients in tables of file names, COVID-CT-MetaInfo.csv and NonCOVID-CT-MetaInfo.csv.
"""

import fnmatch
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from data.report import Report
from data.sources import Source, rows, splits, tables
from data.sources.class_table import Classes, read_classes
from data.sources.files import matching, relative, shown, walk
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
        "images": "folder that holds the class folders, below --input; default: --input itself",
        "classes": "what the folders are called: a table, or yes=brain tumor,no=no tumor,pred= (nothing: left out)",
        "leave_out": "pattern of the names of files that are no images of a class, such as *_mask*",
        "patients": "tables of file names and their patients, a pattern below --input, in place of `group`",
        "lists": "text files that list the images of a split, below --input; default: Data-split/**/*.txt",
    }
)


_IMAGE = ("image", "imagename", "filename", "file", "name")
_PATIENT = ("patientid", "patient", "subjectid", "subject")


def open_class_folders(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images below `path` with the names of their folders as image labels; see `folder.open_folder`.

    Raises InputError if there are none, or a table or list cannot be read.
    """
    stated = options or {}
    classes = read_classes(stated.get("classes", ""), path, stated.get("encoding", ""))
    found = _rows(path, stated, classes, _lists(path, stated), _patients(path, stated, report), report)
    gathered = rows.gather(found, path.resolve().name, path, only, stated, report)
    recipe, told = (
        [VERSION, sorted(classes.names.items()), sorted(classes.values.items())],
        provenance(stated, annotation="unknown"),
    )
    return rows.open_source("class_folders", gathered, rows.no_regions, recipe, stated, told, ontology, shipped, report)


def _lists(path: pathlib.Path, stated: Mapping[str, str]) -> dict[str, str]:
    """File name -> split, from lists whose name has the split; InputError if a stated pattern finds none."""
    found: dict[str, str] = {}
    files = matching(path, stated.get("lists") or "Data-split/**/*.txt")
    if stated.get("lists") and not files:
        raise InputError(f"--option=lists={stated['lists']}: no such file in {shown(path)}")
    for file in files:
        split = splits.named(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", file.stem))  # trainCT_COVID -> train CT COVID
        if not split:
            raise InputError(f"{shown(file)}: its name says no split: expected train, val or test in it")
        with tables.open_text(file, stated.get("encoding", "")) as lines:
            found |= {line.strip(): split for line in lines if line.strip()}
    return found


def _patients(path: pathlib.Path, stated: Mapping[str, str], report: Report) -> dict[str, str]:
    """File name, with or without its suffix -> table and patient: numbers of two tables are not the same people.
    InputError if the stated pattern finds no table, or one lacks a column."""
    found: dict[str, str] = {}
    files = matching(path, stated["patients"]) if stated.get("patients") else []
    if stated.get("patients") and not files:
        raise InputError(f"--option=patients={stated['patients']}: no such file in {shown(path)}")
    for file in files:
        for _, row in tables.read_table(file, report, encoding=stated.get("encoding", "")):
            image = tables.cell(row, tables.column(row, _IMAGE, file, "the image"))
            patient = tables.cell(row, tables.column(row, _PATIENT, file, "the patient"))
            if image and patient:
                found[image] = f"{shown(file.stem)}/{patient}"
    return found


def _rows(
    path: pathlib.Path,
    stated: Mapping[str, str],
    classes: Classes,
    lists: Mapping[str, str],
    patients: Mapping[str, str],
    report: Report,
) -> Iterator[Row]:
    root = path / stated["images"] if stated.get("images") else path
    expression = pattern(stated, "group")
    told: set[str] = set()
    left_out = stated.get("leave_out", "")
    for file in walk(root):
        if left_out and fnmatch.fnmatchcase(file.name, left_out):
            continue
        place, below = relative(file, path), relative(file, root)
        folder, split = _class(os.path.dirname(below).split(os.sep))
        if not folder:
            report.skip(f"{shown(path)}/{shown(place)}", "image in no class", "put it into a folder of its class")
            continue
        label = _label(folder, classes)
        if label is None and folder not in told:
            told.add(folder)
            detail = f"{folder!r}: its images are left out"
            report.skip(f"{shown(path)}/{shown(place)}", "class absent from the table", detail)
        if not label:
            continue
        listed = lists.get(file.name, "")
        if lists and not listed:
            report.skip(f"{shown(path)}/{shown(place)}", "image not in the splits", "no list names it")
            continue
        yield Row(
            place=shown(place),
            image_id=shown(below),
            image=place,
            group=patients.get(file.name) or patients.get(file.stem) or group_of(expression, shown(below), ""),
            split=listed or split,
            image_labels=(label,),
        )


def _class(folders: list[str]) -> tuple[str, str]:
    """The folder of the class and the split among the folders of an image, "" where there is none."""
    first, second = (*folders, "", "")[:2]
    if split := _split_folder(first):
        return second, split
    if split := _split_folder(second):
        return (folders[2] if len(folders) > 2 else first), split
    return first, ""


def _split_folder(name: str) -> str:
    """The split that a folder is called, if its whole name is one: `test` is, `test tubes` is not."""
    return splits.named(name) if len(re.findall(r"[A-Za-z]+", re.sub(r"(?i)[-_ ]?set$", "", name))) == 1 else ""


def _label(folder: str, classes: Classes) -> str | None:
    """The label of a class folder: as the table has it, else, without a table, its name; None if the table lacks it."""
    if folder in classes.names:
        return classes.names[folder]
    if folder.isdigit() and int(folder) in classes.values:
        return classes.values[int(folder)]
    return None if classes.names or classes.values else folder
