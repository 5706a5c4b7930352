"""Adapter for the TotalSegmentator data sets, CT and MRI: a folder per subject with ct.nii.gz or mri.nii.gz, and one
mask file per structure in segmentations/. See docs/sources/totalsegmentator.md."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

from data.report import Report
from data.sources import Source, nifti_files
from data.sources.cases import Case, open_cases
from data.sources.volume_options import COMMON, Settings, read_settings
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

OPTIONS = COMMON | {
    "structures": "structures to take, with commas, as their files are called; all by default",
}
IMAGES = {"ct": "ct", "mri": "mri", "mr": "mri"}  # file name -> modality
SPLITS = {"train": "train", "val": "val", "test": "test"}
PROVENANCE = {
    "ct": {
        "origin": "TotalSegmentator CT data set, https://doi.org/10.5281/zenodo.6802613",
        "licence": "CC BY 4.0",
        "citation": "Wasserthal et al., Radiology: Artificial Intelligence 5(5), 2023, arXiv 2208.05868",
    },
    "mri": {
        "origin": "TotalSegmentator MRI data set, https://doi.org/10.5281/zenodo.11367004",
        "licence": "CC BY-NC-SA 2.0",
        "citation": "D'Antonoli et al., TotalSegmentator MRI, Radiology 314(2), 2025, arXiv 2405.19492",
    },
}
PROTOCOL = {
    "annotation": "mixed",
    "annotation_protocol": "model predictions corrected by hand, the model trained anew on them, step by step",
}


def open_totalsegmentator(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """All subjects below `path`, with the official split of meta.csv where it is. Raises InputError if there is no
    subject, or if CT and MRI are mixed: their labels are two tables."""
    settings = read_settings(options)
    if not path.is_dir():
        raise InputError(f"{path}: no such directory: --input names the folder of the subjects")
    subjects = {one: image for one in sorted(path.iterdir()) if one.is_dir() and (image := _image(one))}
    modalities = sorted({modality for _, modality in subjects.values()})
    if len(modalities) > 1:
        raise InputError(f"{path}: holds CT and MRI: build them as two sources, from two folders")
    modality = modalities[0] if modalities else "ct"
    table = "totalsegmentator" if modality == "ct" else "totalsegmentator_mri"
    name = settings.name or table
    split_of = _splits(path / "meta.csv")
    wanted = [part.strip() for part in options.get("structures", "").split(",") if part.strip()]
    cases = [_case(subject, image, modality, wanted, split_of, settings) for subject, (image, _) in subjects.items()]
    return open_cases(
        cases, path, "totalsegmentator", name, settings, ontology, shipped, only, report,
        PROVENANCE[modality] | PROTOCOL, table,
    )  # fmt: skip


def _image(subject: pathlib.Path) -> tuple[pathlib.Path, str] | None:
    for name, modality in IMAGES.items():
        path = nifti_files.find(subject, name)
        if path.is_file():
            return path, modality
    return None


def _case(
    subject: pathlib.Path,
    image: pathlib.Path,
    modality: str,
    wanted: Sequence[str],
    split_of: Mapping[str, str],
    settings: Settings,
) -> Case:
    folder = subject / "segmentations"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    masks = {nifti_files.stem(file): file for file in files if file.name.lower().endswith(nifti_files.SUFFIXES)}
    masks = {structure: file for structure, file in masks.items() if not wanted or structure in wanted}
    layers = [
        nifti_files.layer(file, {1: (structure, "")}, any_value=True, title=structure, unoriented=settings.unoriented)
        for structure, file in masks.items()
    ]
    return nifti_files.case_of(
        image, layers, list(masks.values()), settings.unoriented,
        identifier=subject.name, group=subject.name, modality=modality,
        split=split_of.get(subject.name, ""),
    )  # fmt: skip


def _splits(path: pathlib.Path) -> dict[str, str]:
    """Subject -> split of meta.csv, whose columns are separated by semicolons; none without the file or its columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=";" if ";" in head else ","))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: not a readable table of UTF-8: repair it, or remove it to split by a hash"
        ) from error
    return {
        row["image_id"].strip(): SPLITS[row["split"].strip()]
        for row in rows
        if row.get("image_id") and (row.get("split") or "").strip() in SPLITS
    }
