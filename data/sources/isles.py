"""Adapter for ISLES 2022: BIDS folders of stroke MRI with lesion masks in derivatives/. See docs/sources/isles.md."""

import pathlib
from collections.abc import Mapping

from data.report import Report
from data.sources import Source, nifti_files
from data.sources.cases import Case, open_cases
from data.sources.volume_options import COMMON, read_settings
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

SEQUENCES = ("dwi", "adc", "flair")
OPTIONS = COMMON | {
    "sequences": "dwi, adc or flair, with commas; dwi,adc by default: the masks lie in the space of the DWI, and FLAIR "
    "images only fit if they were registered to it",
}
PROVENANCE = {
    "origin": "ISLES 2022, https://doi.org/10.5281/zenodo.7153326",
    "licence": "CC BY 4.0",
    "annotation": "mixed",
    "annotation_protocol": "a model's prediction or a manual outline, corrected by experts, see the citation",
    "citation": "Hernandez Petzsche et al., ISLES 2022, Scientific Data 9:762, 2022, arXiv 2206.06694",
}


def open_isles(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """All sessions with a mask below derivatives/. Raises InputError if there is none."""
    settings = read_settings(options)
    name = settings.name or "isles2022"
    wanted = [part.strip().lower() for part in options.get("sequences", "dwi,adc").split(",") if part.strip()]
    for sequence in wanted:
        if sequence not in SEQUENCES:
            raise InputError(
                f"--option=sequences={options['sequences']}: no {sequence!r}: expected some of {SEQUENCES}"
            )
    masks = sorted((path / "derivatives").glob("sub-*/ses-*/*_msk.nii*"))
    if not masks:
        raise InputError(f"{path}: no derivatives/sub-*/ses-*/*_msk.nii.gz: give the folder of ISLES 2022")
    cases = []
    for mask in masks:
        subject, session = mask.parts[-3:-1]
        images = _images(path, subject, session)
        layers = [nifti_files.layer(mask, {1: ("lesion", "")}, unoriented=settings.unoriented)]
        for sequence in wanted:
            image = images.get(sequence)
            if image is None:
                image = path / subject / session / f"{sequence}.nii.gz"  # which is not there, and told so
            cases.append(_case(image, mask, layers, subject, session, sequence, settings.unoriented))
    return open_cases(cases, path, "isles", name, settings, ontology, shipped, only, report, PROVENANCE, "isles")


def _images(path: pathlib.Path, subject: str, session: str) -> dict[str, pathlib.Path]:
    """Sequence -> image file of a session, in the folders of BIDS (anat, dwi), directly in the session, or below
    rawdata/."""
    found: dict[str, pathlib.Path] = {}
    for root in (path, path / "rawdata"):
        for file in sorted((root / subject / session).glob("**/*.nii*")):
            sequence = nifti_files.stem(file).rsplit("_", 1)[-1].lower()
            if sequence in SEQUENCES:
                found.setdefault(sequence, file)
    return found


def _case(image, mask, layers, subject: str, session: str, sequence: str, unoriented: bool) -> Case:
    return nifti_files.case_of(
        image, layers, [mask], unoriented,
        identifier=f"{subject}/{session}", group=subject, modality=f"mri ({sequence})", anatomy="brain",
        variant=sequence,
    )  # fmt: skip
