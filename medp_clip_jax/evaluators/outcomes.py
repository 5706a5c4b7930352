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
    """The outcomes of the predictions in `folder`; InputError if they are absent or damaged."""
    saved = predictions.load(folder)
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
