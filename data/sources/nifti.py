"""Adapter for NIfTI images with label maps in any folders: which belong together is said by two patterns.

`images` and `labels` are patterns below the input with one `*` for the case, and `table` is a JSON file that names the
values of the label maps. See docs/sources/nifti.md.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping

from data.report import Report
from data.sources import Source, nifti_files
from data.sources.cases import open_cases
from data.sources.labels import Label
from data.sources.volume_options import COMMON, read_settings
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

OPTIONS = COMMON | {
    "images": "pattern of the images below --input, * for the case: images/*.nii.gz by default",
    "labels": "pattern of the label maps, its * the same text: labels/*.nii.gz by default",
    "table": "JSON file {value: label} or {value: [label, phrase]}; labels.json in --input by default",
    "group": "regular expression whose first group is the patient in the text of *; the whole text by default",
    "table_name": "whose table of the ontology reads the labels (btcv, amos ...); that of the name by default",
}


def open_nifti_pairs(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """Pairs every image with the label map of the same case and streams their slices. Raises InputError if the options
    cannot be used or nothing fits them."""
    settings = read_settings(options)
    name = settings.name or "nifti"
    images = _matches(path, options.get("images", "images/*.nii.gz"), "images")
    maps = _matches(path, options.get("labels", "labels/*.nii.gz"), "labels")
    table = pathlib.Path(options["table"]) if "table" in options else path / "labels.json"
    values = read_table(table)
    patient = _pattern(options.get("group", "(.*)"))
    cases = []
    for case, image in images.items():
        found = patient.search(case)
        masks = (maps[case],) if case in maps else ()
        layers = [nifti_files.layer(mask, values, unoriented=settings.unoriented) for mask in masks]
        patient_id = found.group(1) if found else case
        cases.append(
            nifti_files.case_of(
                image, layers, masks, settings.unoriented, identifier=case, group=patient_id, modality=""
            )
        )
    if images and not images.keys() & maps.keys():
        raise InputError(
            f"{path}: no label map fits an image: the text in place of * must be the same in images and labels"
        )
    return open_cases(
        cases, path, "nifti", name, settings, ontology, shipped, only, report, {}, options.get("table_name", name)
    )


def read_table(path: pathlib.Path) -> dict[int, Label]:
    """Value of a label map -> label, from {value: label}, {value: [label, phrase]} or nnU-Net's {label: value}."""
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: not a readable table of labels: give JSON such as {{"1": "liver"}}') from error
    if not isinstance(stated, dict):
        raise InputError(f"{path}: expected an object of values and labels, got a {type(stated).__name__}")
    values: dict[int, Label] = {}
    for key, entry in stated.items():
        value, label = (entry, key) if isinstance(entry, int) else (key, entry)
        words = label if isinstance(label, list) and len(label) == 2 else [label, ""]
        if (
            not str(value).lstrip("-").isdigit()
            or not all(isinstance(word, str) for word in words)
            or not words[0].strip()
        ):
            raise InputError(f"{path}: {key!r}: expected a whole number and a label, got {entry!r}")
        if int(value) in values:
            raise InputError(f"{path}: value {value} has two labels: keep one")
        values[int(value)] = (words[0].strip(), words[1].strip())
    return {value: label for value, label in values.items() if value != 0}


def _matches(folder: pathlib.Path, pattern: str, key: str) -> dict[str, pathlib.Path]:
    """What stands for the * of a pattern -> the file, sorted."""
    if pattern.count("*") != 1 or pattern.startswith("/") or ".." in pattern.split("/"):
        raise InputError(f"--option={key}={pattern}: expected a pattern below --input with one *")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such directory: --input names the folder of the volumes")
    before, after = pattern.split("*")
    shape = re.compile(re.escape(before) + "([^/]*)" + re.escape(after), re.DOTALL)
    # In a folder of its own per case, * may be the folder: glob matches it as it does files.
    found = {}
    for file in folder.glob(pattern):
        matched = shape.fullmatch(os.path.relpath(file, folder))
        if matched and file.is_file():
            found[matched.group(1)] = file
    return dict(sorted(found.items()))


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"--option=group={text}: not a regular expression ({error})") from error
    if pattern.groups < 1:
        raise InputError(f"--option=group={text}: expected a group in parentheses around the patient's part")
    return pattern
