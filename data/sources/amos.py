"""Adapters for AMOS 2022 and BTCV (abdomen): imagesTr/ and labelsTr/, numbered organs. See docs/sources/amos.md and
docs/sources/btcv.md."""

import pathlib
import re
from collections.abc import Iterator, Mapping

from data.report import Report
from data.sources import Source, nifti_files
from data.sources.cases import Case, open_cases
from data.sources.labels import Label
from data.sources.volume_options import COMMON, Settings, read_settings
from medp_clip_jax.ontology import Ontology

OPTIONS = COMMON
FIRST_MRI = 500  # AMOS: numbers below are CT
AMOS = (
    "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "aorta", "postcava",
    "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate/uterus",
)  # fmt: skip
BTCV = (
    "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta",
    "inferior vena cava", "portal vein and splenic vein", "pancreas", "right adrenal gland", "left adrenal gland",
)  # fmt: skip
AMOS_PROVENANCE = {
    "origin": "AMOS 2022, https://amos22.grand-challenge.org, https://doi.org/10.5281/zenodo.7262581",
    "licence": "CC BY-NC-SA as the paper says; see the record it was downloaded from",
    "annotation": "mixed",
    "annotation_protocol": "a model's prediction, corrected by junior radiologists and checked by senior ones",
    "citation": "Ji et al., AMOS, NeurIPS Datasets and Benchmarks 2022, arXiv 2206.08023",
}
BTCV_PROVENANCE = {
    "origin": "BTCV, Multi-Atlas Labeling Beyond the Cranial Vault (abdomen), https://doi.org/10.7303/syn3193805",
    "licence": "as agreed with Synapse: not to be passed on",
    "annotation": "human",
    "annotation_protocol": "two trained raters, reviewed by a radiologist",
    "citation": "Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, 2015, Synapse syn3193805",
}


def open_amos(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """imagesTr as split train and imagesVa as val: what has labels. Raises InputError if there is nothing."""
    settings = read_settings(options)
    cases = [
        case
        for part, split in (("Tr", "train"), ("Va", "val"))
        for case in _cases(
            path / f"images{part}", path / f"labels{part}", split, _values(AMOS), settings, _amos_modality
        )
    ]
    name = settings.name or "amos22"
    return open_cases(cases, path, "amos", name, settings, ontology, shipped, only, report, AMOS_PROVENANCE, "amos")


def open_btcv(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """The labelled scans: img/ and label/ of the challenge, below Training/ or not, or imagesTr/ and labelsTr/. Raises
    InputError if there are none."""
    settings = read_settings(options)
    pairs = [("Training/img", "Training/label"), ("RawData/Training/img", "RawData/Training/label")]
    for images, labels in [*pairs, ("img", "label"), ("imagesTr", "labelsTr")]:
        cases = list(_cases(path / images, path / labels, "", _values(BTCV), settings, lambda number: "ct"))
        if cases:
            break
    name = settings.name or "btcv"
    return open_cases(cases, path, "btcv", name, settings, ontology, shipped, only, report, BTCV_PROVENANCE, "btcv")


def _cases(
    images: pathlib.Path, labels: pathlib.Path, split: str, values: Mapping[int, Label], settings: Settings, modality
) -> Iterator[Case]:
    for image in sorted(images.iterdir()) if images.is_dir() else ():
        if not image.name.lower().endswith(nifti_files.SUFFIXES):
            continue
        stem = nifti_files.stem(image)
        number = _number(stem)
        # imgNNNN.nii.gz belongs to labelNNNN.nii.gz, amos_NNNN.nii.gz to the file of its own name
        names = [image.name, re.sub("^img", "label", image.name)]
        mask = next((labels / name for name in names if (labels / name).is_file()), labels / names[-1])
        yield nifti_files.case_of(
            image, [nifti_files.layer(mask, values, unoriented=settings.unoriented)], [mask], settings.unoriented,
            identifier=stem, group=stem, modality=modality(number), anatomy="abdomen", split=split,
        )  # fmt: skip


def _values(names: tuple[str, ...]) -> dict[int, Label]:
    return {number: (name, "") for number, name in enumerate(names, 1)}


def _number(stem: str) -> int | None:
    digits = re.search(r"(\d+)(?:_0000)?$", stem)
    return int(digits[1]) if digits else None


def _amos_modality(number: int | None) -> str:
    return "ct" if number is None or number < FIRST_MRI else "mri"
