"""Adapter for tasks of the Medical Segmentation Decathlon, and what is laid out likewise: dataset.json, imagesTr/,
labelsTr/, one label map per image, several sequences as channels of a 4-D image. See docs/sources/decathlon.md."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from data.report import Report
from data.sources import Source, nifti_files
from data.sources.cases import Case, open_cases
from data.sources.labels import Label
from data.sources.volume_options import COMMON, Settings, read_settings
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

OPTIONS = COMMON | {"channels": "sequences to take of 4-D images, by name or number, with commas; all by default"}
TABLE = "dataset.json"
# Body part and modality of the ten tasks; dataset.json gives the modality of others.
ANATOMY = {
    "braintumour": "brain",
    "heart": "heart",
    "liver": "liver",
    "hippocampus": "brain",
    "prostate": "prostate",
    "lung": "chest",
    "pancreas": "abdomen",
    "hepaticvessel": "liver",
    "spleen": "abdomen",
    "colon": "abdomen",
}
PROVENANCE = {
    "origin": "Medical Segmentation Decathlon, http://medicaldecathlon.com",
    "licence": "CC BY-SA 4.0",
    "annotation": "human",
    "annotation_protocol": "expert annotation per task, see the citation",
    "citation": "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128, 2022; "
    "Simpson et al., arXiv 1902.09063",
}


def find_tasks(path: pathlib.Path) -> list[pathlib.Path]:
    """The tasks at or directly below `path`, sorted by name; InputError if there are none."""
    if (path / TABLE).is_file():
        return [path]
    tasks = sorted(one for one in path.iterdir() if (one / TABLE).is_file()) if path.is_dir() else []
    if not tasks:
        raise InputError(f"{path}: neither it nor a folder in it holds a {TABLE}: give a Decathlon task")
    return tasks


def open_decathlon(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """The training cases of one task, which are those with labels. Raises InputError if dataset.json is of no use."""
    settings = read_settings(options)
    table = read_table(path / TABLE)
    task = re.fullmatch(r"(Task\d\d)_(\w+)", path.resolve().name)
    stated = str(table.get("name") or "decathlon")
    name = settings.name or "msd_" + (f"{task[1]}_{task[2]}" if task else re.sub(r"\W+", "_", stated)).lower()
    anatomy = ANATOMY.get(task[2].lower() if task else "", "")
    channels = _channels(table, options.get("channels", ""), path / TABLE)
    values = _values(table["labels"], path / TABLE)
    cases = [
        case
        for number, entry in enumerate(table["training"], 1)
        for case in _cases(path, number, entry, channels, values, anatomy, settings, name, report)
    ]
    return open_cases(
        cases, path, "decathlon", name, settings, ontology, shipped, only, report, PROVENANCE if task else {}
    )


def read_table(path: pathlib.Path) -> dict[str, Any]:
    """dataset.json with its training list, labels and modalities; InputError naming what is missing."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON: give the {TABLE} of a Decathlon task") from error
    for key, kind in (("training", list), ("labels", dict)):
        if not isinstance(table, dict) or not isinstance(table.get(key), kind):
            raise InputError(f"{path}: no `{key}`: give the {TABLE} of a Decathlon task")
    return table


def _values(stated: Mapping[str, Any], path: pathlib.Path) -> dict[int, Label]:
    """Value -> label; nnU-Net writes it the other way round."""
    values = {}
    for key, entry in stated.items():
        value, label = (entry, key) if isinstance(entry, int) else (key, entry)
        if not str(value).isdigit() or not isinstance(label, str):
            raise InputError(f"{path}: label {key!r}: expected a value and a name, got {entry!r}")
        if int(value):
            values[int(value)] = (label.strip(), "")
    return values


def _channels(table: Mapping[str, Any], wanted: str, path: pathlib.Path) -> dict[int | None, str]:
    """Number of each channel to take (None in 3-D images) -> its modality."""
    stated = table.get("modality") or table.get("channel_names") or {"0": ""}
    if not isinstance(stated, dict) or not all(str(key).isdigit() for key in stated):
        raise InputError(f"{path}: `modality`: expected numbers and names of channels, got {stated!r}")
    found = {int(key): str(name) for key, name in stated.items()}
    chosen = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in chosen:
        if name not in found.values() and name not in map(str, found):
            raise InputError(f"--option=channels={wanted}: no {name!r}: expected some of {', '.join(found.values())}")
    kept = {key: name for key, name in sorted(found.items()) if not chosen or name in chosen or str(key) in chosen}
    return dict(kept) if len(found) > 1 else {None: next(iter(found.values()))}


def _cases(path, number, entry, channels, values, anatomy, settings: Settings, name: str, report: Report) -> list[Case]:
    try:
        image, labels = (path / str(entry[key]) for key in ("image", "label"))
    except (TypeError, KeyError):
        report.skip(
            f"{name}: {TABLE}: training {number}", "no image and label", "each entry names an image and a label"
        )
        return []
    identifier = nifti_files.stem(image)
    layers = [nifti_files.layer(labels, values, unoriented=settings.unoriented)]
    return [
        nifti_files.case_of(
            image, layers, [labels], settings.unoriented, channel,
            identifier=identifier, group=identifier, modality=modality(stated), anatomy=anatomy,
            variant=re.sub(r"\W+", "", stated).lower() if channel is not None else "",
        )
        for channel, stated in channels.items()
    ]  # fmt: skip


def modality(stated: str) -> str:
    """A channel's name as a modality: "CT" is ct, "FLAIR" is mri (flair)."""
    words = stated.strip().lower()
    if words in ("ct", "mri", "pet", ""):
        return words
    return words.replace("mr ", "mri ") if words.startswith(("ct", "mri", "pet")) else f"mri ({words})"
