"""Adapter for DICOM: series of slices with DICOM SEG and RTSTRUCT objects, single images (docs/sources/dicom.md).

No identifier, name or free text of a header leaves this module but as a hash. Labels are the exception that cannot be
one: only those that the ontology, or a table of the user's, knows are taken.
"""

import collections
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from data import privacy
from data.report import Report
from data.sources import Source, dicom_files, dicom_masks, dicom_series
from data.sources.cases import Case, open_cases
from data.sources.dicom_files import RTSTRUCT, SEG, File
from data.sources.dicom_masks import Structure
from data.sources.dicom_series import Stack
from data.sources.labels import Label
from data.sources.options import choice
from data.sources.regions import BadRecord
from data.sources.slices import Layer
from data.sources.volume_options import COMMON, read_settings
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

OPTIONS = {key: told for key, told in COMMON.items() if key not in ("ids", "unoriented")} | {
    "labels": "JSON file {name of a segment or ROI: label}, for names that the ontology does not know",
    "new_labels": "no (default): names that nothing knows are left out, they may say anything; or yes: new labels",
    "table_name": "whose table of the ontology reads the names of segments and ROIs",
}
MODALITIES = {
    "CT": "ct", "MR": "mri", "PT": "pet", "US": "ultrasound", "CR": "x-ray", "DX": "x-ray", "MG": "mammography",
    "XA": "angiography", "RF": "fluoroscopy", "NM": "scintigraphy", "OP": "colour fundus photography",
    "OPT": "optical coherence tomography", "ES": "endoscopy", "XC": "photography", "IVUS": "ultrasound",
}  # fmt: skip
# Defined terms of Body Part Examined (PS3.16, annex L) that are taken; any other text stays where it is.
BODY_PARTS = (
    "abdomen", "ankle", "arm", "brain", "breast", "chest", "elbow", "eye", "foot", "hand", "head", "heart", "hip",
    "kidney", "knee", "leg", "liver", "neck", "pancreas", "pelvis", "prostate", "shoulder", "skull", "spine", "thorax",
    "thyroid", "uterus", "wrist",
)  # fmt: skip
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
RADIOTHERAPY = "1.2.840.10008.5.1.4.1.1.481."  # doses have pixels, too
SPINES = {"cspine": "cervical spine", "tspine": "thoracic spine", "lspine": "lumbar spine", "lsspine": "lumbar spine"}


def open_dicom(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """All images below a folder; annotations find theirs by the series or frame of reference that they name. Raises
    InputError if there is no image."""
    settings = read_settings(options, burned_in="flag")
    name = settings.name or "dicom"
    names = privacy.Names(name, settings.salt)
    files = dicom_files.scan(path, names, report)
    known = _Labels(ontology, options, names, report)
    annotations = [file for file in files if file.text("SOPClassUID") in (*SEG, RTSTRUCT)]
    images = [file for file in files if _is_image(file, names, report)]
    found: list[Case] = []
    used: set[pathlib.Path] = set()
    for series, members in _by_series(images).items():
        own = [one for one in annotations if _belongs(one, series, members[0])]
        used.update(one.path for one in own)
        found += _series(series, members, own, known, names, report)
    for file in annotations:
        if file.path not in used:
            place = f"{name}: annotation {names.of(file.text('SOPInstanceUID'))}"
            report.skip(place, "annotation without its images", "the series it refers to is not there: add it")
    if settings.key_file:
        privacy.write_key(settings.key_file, names, [*known.unknown, *_identifiers(path, files)])
        settings = dataclasses.replace(settings, key_file=None)  # written, with more than the volumes' identifiers
    return open_cases(
        found, path, "dicom", name, settings, ontology, shipped, only, report, {}, options.get("table_name", name)
    )


class _Labels:
    """Decides what names of segments and regions of interest mean, without letting any other text through."""

    def __init__(self, ontology: Ontology, options: Mapping[str, str], names: privacy.Names, report: Report):
        self._ontology, self._names, self._report = ontology, names, report
        self._table = options.get("table_name", names.source)
        self._stated = _read_labels(pathlib.Path(options["labels"])) if "labels" in options else {}
        self._new = choice(options, "new_labels", ("no", "yes")) == "yes"
        self.unknown: set[str] = set()

    def of(self, structure: Structure, place: str) -> Label | None:
        """The label of a structure, None (and a line) if there is none that may be used."""
        for text in structure.names:
            if text in self._stated:
                return (self._stated[text], "")
            if self._ontology.resolve(text, "", self._table) is not None:
                return (text, "")
        if structure.names and self._new:
            return (structure.names[0], "")
        self.unknown.update(structure.names)
        hashes = ", ".join(self._names.of(text) for text in structure.names) or "none"
        self._report.skip(
            f"{place}, structure {structure.number}",
            "label not known",
            f"no node of the ontology has its name (hashes {hashes}, see key_file): name it by --option=labels=FILE",
        )
        return None


def _read_labels(path: pathlib.Path) -> dict[str, str]:
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--option=labels={path}: not readable as JSON: give {{name: label}}") from error
    if not isinstance(stated, dict) or not all(isinstance(value, str) and value.strip() for value in stated.values()):
        raise InputError(f"--option=labels={path}: expected an object of names and labels")
    return {key.strip(): value.strip() for key, value in stated.items()}


def _is_image(file: File, names: privacy.Names, report: Report) -> bool:
    """Whether a file holds pictures of a patient that are read here."""
    kind = file.text("SOPClassUID")
    if kind == WHOLE_SLIDE:
        place = f"{names.source}: image {names.of(file.text('SOPInstanceUID'))}"
        report.skip(place, "whole-slide image", "not read here: export regions of it as pictures")
    return "Rows" in file.dataset and kind not in (*SEG, WHOLE_SLIDE) and not kind.startswith(RADIOTHERAPY)


def _by_series(images: Iterable[File]) -> dict[str, list[File]]:
    """Series Instance UID -> its files, by Instance Number."""

    def number(file: File) -> tuple[float, str]:
        text = file.text("InstanceNumber")
        return (float(text) if text.lstrip("-").isdigit() else float("inf"), os.fspath(file.path))

    found: dict[str, list[File]] = collections.defaultdict(list)
    for file in sorted(images, key=number):
        found[file.text("SeriesInstanceUID") or file.text("SOPInstanceUID")].append(file)
    return dict(sorted(found.items()))


def _belongs(annotation: File, series: str, image: File) -> bool:
    named = dicom_masks.series_of(annotation)
    if named:
        return series in named
    frame = annotation.text("FrameOfReferenceUID")
    return bool(frame) and frame == image.text("FrameOfReferenceUID")


def _series(
    series: str,
    members: Sequence[File],
    annotations: Sequence[File],
    known: _Labels,
    names: privacy.Names,
    report: Report,
) -> list[Case]:
    """The volumes of a series, and single images of what has no place in the patient."""
    place = f"{names.source}: series {names.of(series)}"
    placed, loose = [], []
    for file in members:
        try:
            slices = dicom_series.slices_of(file)
        except BadRecord as bad:
            report.skip(f"{place}: image {names.of(file.text('SOPInstanceUID'))}", bad.reason, bad.detail)
            continue
        placed += [(file, one) for one in slices]
        loose += [] if slices else [file]
    stacks = dicom_series.stacks(placed)
    layers_of = _layers(annotations, known, place, report)
    cases = []
    for number, stack in enumerate(stacks):
        if stack.problem and len(stack.slices) > 1:
            report.warn(place, f"{stack.problem}: its slices are used as they are, other planes are not made")
        variant = f"v{number}" if len(stacks) > 1 else ""
        cases.append(_volume(series, members[0], stack, variant, layers_of, annotations))
    if loose and annotations and not stacks:
        report.skip(place, "annotation without geometry", "its images state no place in the patient: no regions")
    return cases + [_single(file) for file in loose]


def _layers(annotations: Sequence[File], known: _Labels, place: str, report: Report) -> list[tuple]:
    """(function from file, number and stack to masks, file, structure number, label, title) of all structures."""
    found = []
    for count, file in enumerate(annotations, 1):
        contours = file.text("SOPClassUID") == RTSTRUCT
        kind = "RTSTRUCT" if contours else "SEG"
        try:
            with dicom_files.quiet():
                structures = dicom_masks.regions_of_interest(file) if contours else dicom_masks.segments(file)
        except Exception as error:
            told = f"its structures cannot be read ({type(error).__name__}): give a complete file"
            report.skip(f"{place}: {kind} {count}", "unreadable annotation", told)
            continue
        if not structures:
            report.skip(f"{place}: {kind} {count}", "empty annotation", "it names no structure: correct or remove it")
        masks = dicom_masks.contour_masks if contours else dicom_masks.segment_masks
        for structure in structures:
            label = known.of(structure, f"{place}: {kind} {count}")
            if label is not None:
                title = f"{kind} {count}, structure {structure.number}"
                found.append((masks, file.path, structure.number, label, title))
    return found


def _volume(
    series: str, file: File, stack: Stack, variant: str, layers_of: Sequence[tuple], annotations: Sequence[File]
) -> Case:
    layers = []
    for masks, path, number, label, title in layers_of:
        told: list[BadRecord] = []
        opened = functools.partial(dicom_masks.as_volume, masks, path, number, stack, told)
        layers.append(Layer(opened, {1: label}, any_value=True, title=title, told=told))
    return Case(
        identifier=series,
        group=patient_of(file),
        image=functools.partial(dicom_series.open_volume, stack),
        layers=tuple(layers),
        files=tuple(dict.fromkeys([*(one.path for one in stack.slices), *(one.path for one in annotations)])),
        modality=modality_of(file),
        anatomy=anatomy_of(file),
        variant=variant,
        planes=() if stack.even else (stack.plane(),),
        spacing=functools.partial(_spacing, stack),
        burned_in=file.text("BurnedInAnnotation").upper() == "YES",
    )


def _spacing(stack: Stack) -> tuple[float, ...]:
    return *stack.slices[0].spacing, stack.distance


def _single(file: File) -> Case:
    return Case(
        identifier=file.text("SOPInstanceUID"),
        group=patient_of(file),
        image=None,
        layers=(),
        files=(file.path,),
        modality=modality_of(file),
        anatomy=anatomy_of(file),
        picture=functools.partial(dicom_files.picture, file.path),
        burned_in=file.text("BurnedInAnnotation").upper() == "YES",
    )


def patient_of(file: File) -> str:
    """What tells patients apart: the id with its issuer, else the name and birth date, else the study."""
    number = file.text("PatientID")
    if number:
        return f"{file.text('IssuerOfPatientID')}/{number}"
    person = file.text("PatientName").rstrip("^")
    return f"{person}/{file.text('PatientBirthDate')}" if person else file.text("StudyInstanceUID")


def modality_of(file: File) -> str:
    """The modality in words, "" where it is none of the known codes."""
    return MODALITIES.get(file.text("Modality").upper(), "")


def anatomy_of(file: File) -> str:
    """The body part, if it is one of the defined terms."""
    text = file.text("BodyPartExamined").lower().replace("_", "")
    return text if text in BODY_PARTS else SPINES.get(text, "")


def _identifiers(folder: pathlib.Path, files: Sequence[File]) -> list[str]:
    keys = ("SeriesInstanceUID", "SOPInstanceUID")
    return [
        text
        for file in files
        for text in (os.path.relpath(file.path, folder), patient_of(file), *(file.text(key) for key in keys))
    ]
