"""Which regions a run named, small enough to commit: what a paired difference rests on, without the predictions.

    {"regions": {"keys": "5f…", "labels": ["liver", …], "target": [0, …], "group": [0, …], "image": [0, …],
                 "datasets": ["bccd", …], "dataset": [0, …], "several": "ffa0…"},
     "kinds": {"mask": {"micro": "fe01…", "within_image": "ff81…"}, …}}

`target`, `group`, `image` and `dataset` are numbers per region, `keys` a checksum of the regions' names, and the rest a
bit per region in hexadecimal: whether its image has several labels, so that it counts within the image, and whether it
was named right. Two runs can be paired where their `regions` are the same.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medp_clip_jax.evaluators import predictions
from medp_clip_jax.evaluators.region_recognition import Predictions, Regions, tallies
from medp_clip_jax.statistics import Tally


def of_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The outcomes of the predictions in `folder`, empty without regions; InputError if they are absent or damaged."""
    saved = predictions.load(folder)
    if not saved.kinds:
        return {}
    rows, target = np.unique(saved.regions.target, return_inverse=True)
    datasets, dataset = np.unique(saved.regions.dataset, return_inverse=True)
    first = next(iter(saved.kinds.values()))
    regions = {
        "keys": hashlib.sha256("\n".join(saved.keys).encode()).hexdigest()[:16],
        "labels": [saved.regions.ids[row] for row in rows],
        "target": target.tolist(),
        "group": saved.regions.group.tolist(),
        "image": saved.regions.image.tolist(),
        "datasets": datasets.tolist(),
        "dataset": dataset.tolist(),
        "several": _bits(~np.isnan(first.values["within_image"])),
    }
    kinds = {
        kind: {name: _bits(found.values[name] == 1) for name in ("micro", "within_image")}
        for kind, found in saved.kinds.items()
    }
    return {"regions": regions, "kinds": kinds}


def joined(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Runs on several parts of the data, such as the folds of a cross-validation, as runs on all of it.

    As many as there are of each part, which may share no group; as they came, where all are of the same regions, or
    where some part has fewer than others.
    """
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        parts.setdefault(run["regions"]["keys"], []).append(run)
    several = [parts[keys] for keys in sorted(parts)]
    if len(several) < 2 or len({len(part) for part in several}) > 1:
        return list(runs)
    return [_joined(part) for part in zip(*several, strict=True)]


def _joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stored = [run["regions"] for run in runs]
    counts = [len(each["target"]) for each in stored]
    regions: dict[str, Any] = {
        "keys": hashlib.sha256("".join(each["keys"] for each in stored).encode()).hexdigest()[:16]
    }
    for names, numbers in (("labels", "target"), ("datasets", "dataset")):
        regions[names] = sorted({name for each in stored for name in each[names]})
        place = {name: row for row, name in enumerate(regions[names])}
        regions[numbers] = [place[each[names][number]] for each in stored for number in each[numbers]]
    for numbers in ("group", "image"):
        starts = np.cumsum([0, *(max(each[numbers], default=-1) + 1 for each in stored[:-1])]).tolist()
        regions[numbers] = [
            start + number for start, each in zip(starts, stored, strict=True) for number in each[numbers]
        ]

    def chain(bits: Sequence[str]) -> str:
        return _bits(np.concatenate([_read(each, count) for each, count in zip(bits, counts, strict=True)]) == 1)

    regions["several"] = chain([each["several"] for each in stored])
    kinds = {
        kind: {name: chain([run["kinds"][kind][name] for run in runs]) for name in each}
        for kind, each in runs[0]["kinds"].items()
        if all(kind in run["kinds"] for run in runs)
    }
    return {"regions": regions, "kinds": kinds}


def together(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Tally]]:
    """Sums over patient groups by kind and metric, the runs' outcomes averaged per region; only kinds that all have.

    Empty without runs, and where their regions are not the same.
    """
    if not runs or any(run["regions"] != runs[0]["regions"] for run in runs):
        return {}
    stored = runs[0]["regions"]
    count = len(stored["target"])
    several = _read(stored["several"], count)
    nothing = np.zeros(count, np.int64)
    regions = Regions(
        ids=tuple(stored["labels"]),
        target=np.array(stored["target"], np.int64),
        group=np.array(stored["group"], np.int64),
        image=np.array(stored["image"], np.int64),
        dataset=nothing,
        modality=nothing,
        stratum=nothing,
        averaged=np.zeros(0, bool),
        groups_per_label=nothing,
    )
    regions = predictions.with_averages(regions)
    sums = {}
    for kind in runs[0]["kinds"]:
        if all(kind in run["kinds"] for run in runs):
            right, within = (
                np.mean([_read(run["kinds"][kind][name], count) for run in runs], 0)
                for name in ("micro", "within_image")
            )
            values = {"micro": right, "macro": right, "within_image": np.where(several, within, np.nan)}
            sums[kind] = tallies(Predictions(nothing, nothing, values), regions)
    return sums


def of_dataset(runs: Sequence[Mapping[str, Any]], number: int) -> list[dict[str, Any]]:
    """The outcomes of runs in one of their data sets, by its number."""
    stored = runs[0]["regions"]
    chosen = np.flatnonzero(np.array(stored["dataset"]) == number)
    listed = {name: np.array(stored[name])[chosen].tolist() for name in ("target", "group", "image", "dataset")}

    def take(bits: str) -> str:
        return _bits(_read(bits, len(stored["target"]))[chosen] == 1)

    regions = {**stored, **listed, "several": take(stored["several"])}
    return [
        {
            "regions": regions,
            "kinds": {kind: {name: take(bits) for name, bits in each.items()} for kind, each in run["kinds"].items()},
        }
        for run in runs
    ]


def _bits(values: np.ndarray) -> str:
    return np.packbits(values).tobytes().hex()


def _read(bits: str, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=count).astype(np.float64)
