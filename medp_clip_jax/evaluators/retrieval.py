"""Does a search find the right regions? Text to region, region to text, region to region.

Retrieval is label-aware: every region of the label that is asked for is right. A patient has one region per label, the
largest, so that slices of one lesion do not fill the first places, and a region never finds its own patient. Numbers
are means over the queries of a label, then over labels: R@k, whether any of the first k is right; P@10, the share of
the first 10 that is, of the places that could be; mAP@R (arXiv 2003.08505), the mean over the first R places, R being
how many are right in all, of the precision up to each place with a right one.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from medp_clip_jax import statistics
from medp_clip_jax.evaluators.encode import Encoded

FIRST = (1, 5, 10)
QUERIES = 64  # regions of a label that ask, spread evenly over its patients
CHUNK = 256  # queries ranked at a time


def evaluate(
    encoded: Encoded, text: np.ndarray, ids: Sequence[str], replicates: int = 1000, seed: int = 0
) -> tuple[dict[str, float], dict[str, Any]]:
    """Searches among the regions of `encoded` and the texts float [C, D] of the labels `ids`, all L2-normalised.

    Returns flat metrics (`retrieval/mask/text_to_region/map_r`, ...), and for the report the intervals of the two
    directions in which regions ask, over patient groups. A direction without any query, as among regions of a single
    patient, is left out.
    """
    flat: dict[str, float] = {}
    details: dict[str, Any] = {"retrieval": {}}
    if not len(encoded.table.label):
        return flat, details
    rows = {label: row for row, label in enumerate(ids)}
    kept = representatives(encoded.table)
    target = np.array([rows[label] for label in encoded.table.label], np.int64)[kept]
    group = _groups(encoded.table)[kept]
    asking, labels = queries(target), np.unique(target)
    for kind, embedding in encoded.regions.items():
        regions = embedding[kept]
        some, wanted, own = regions[asking], target[asking], group[asking]
        found = {
            "text_to_region": (labels, ranked(text[labels], regions, labels, target)),
            "region_to_text": (wanted, ranked(some, text, wanted, np.arange(len(text)))),
            "region_to_region": (wanted, ranked(some, regions, wanted, target, own, group)),
        }
        intervals: dict[str, dict[str, Any]] = {}
        for direction, (label, scores) in found.items():
            asked = ~np.isnan(scores["map_r"])
            if not asked.any():
                continue
            if direction == "region_to_text":  # one text is right: what is left says the same as R@1
                scores = {name: scores[name] for name in scores if name.startswith("r")}
            who = np.zeros_like(label) if direction == "text_to_region" else own
            for name, value in scores.items():
                item = statistics.tally(np.where(asked, value, 0), who, np.where(asked, label, -1))
                flat[f"retrieval/{kind}/{direction}/{name}"] = statistics.estimate(item)
                if replicates and direction != "text_to_region":
                    interval = statistics.interval(item, replicates, seed)
                    intervals.setdefault(direction, {})[name] = dataclasses.asdict(interval)
        details["retrieval"][kind] = intervals
    return flat, details


def representatives(table: Any) -> np.ndarray:
    """The largest region of each label of each patient group, as ascending rows of an `EvalTable`."""
    labels = statistics.group_index(table.label)
    order = np.lexsort((-table.area_fraction, labels, _groups(table)))
    pairs = np.stack([_groups(table), labels], 1)[order]
    first = np.append(True, (pairs[1:] != pairs[:-1]).any(1))
    return np.sort(order[first])


def queries(target: np.ndarray) -> np.ndarray:
    """Which of the regions with labels int [regions] ask: at most `QUERIES` of a label, ascending."""
    chosen = []
    for label in np.unique(target):
        members = np.flatnonzero(target == label)
        places = np.linspace(0, len(members) - 1, min(QUERIES, len(members))).round().astype(int)
        chosen.append(members[places])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def ranked(
    asking: np.ndarray,
    gallery: np.ndarray,
    wanted: np.ndarray,
    label: np.ndarray,
    group: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """R@k (`r1`, `r5`, `r10`), P@10 (`p10`) and mAP@R (`map_r`) of each query, float [queries]; nan if none is right.

    Queries float [queries, D] ask for labels `wanted` int [queries] among the gallery float [items, D] with labels int
    [items]. With patient groups of both, items of the query's own group do not take part.
    """
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, max(len(asking), 1), CHUNK):
        rows = slice(start, start + CHUNK)
        score = asking[rows].astype(np.float32) @ gallery.astype(np.float32).T
        right = wanted[rows, None] == label
        if group is not None and groups is not None:
            own = group[rows, None] == groups
            score, right = np.where(own, -np.inf, score), right & ~own
        order = np.argsort(-score, 1, kind="stable")
        parts.append(_scores(np.take_along_axis(right, order, 1)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _scores(right: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of rankings: bool [queries, items], best item first."""
    total, hits = right.sum(1), right.cumsum(1)
    place = np.arange(1, right.shape[1] + 1)
    some = np.maximum(total, 1)
    found = {f"r{k}": (right[:, :k].any(1)).astype(float) for k in FIRST}
    found["p10"] = right[:, :10].sum(1) / np.minimum(some, 10)
    found["map_r"] = (hits / place * right * (place <= total[:, None])).sum(1) / some
    return {name: np.where(total > 0, value, np.nan) for name, value in found.items()}


def _groups(table: Any) -> np.ndarray:
    """The patient group of each region, int [regions]."""
    images = [table.images[image] for image in table.image_index]
    return statistics.group_index([image.dataset for image in images], [image.group for image in images])
