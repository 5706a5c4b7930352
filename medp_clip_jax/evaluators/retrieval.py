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
from medp_clip_jax.evaluators.label_search import METRICS, LabelSearch, first_places

FIRST = (1, 5, 10)
QUERIES = 64  # regions of a label that ask, spread evenly over its patients
CHUNK = 256  # queries ranked at a time


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The regions that are searched: `rows` of the table, their `label` as a row of the bank and patient `group`, all
    int [gallery]; `asking` int [queries] are the places of those that ask."""

    rows: np.ndarray
    label: np.ndarray
    group: np.ndarray
    asking: np.ndarray


@dataclasses.dataclass(frozen=True)
class Found:
    """What searches by one prompt kind find: `rankings` of the gallery by each of its labels, ascending, int [places]
    each (see `label_search.first_places`), and per direction in which regions ask its metrics float [queries]."""

    rankings: list[np.ndarray]
    scores: dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Searches:
    """All searches of an evaluation, by prompt kind; none where the gallery is empty."""

    gallery: Gallery
    found: dict[str, Found]


def evaluate(
    encoded: Encoded, text: np.ndarray, ids: Sequence[str], replicates: int = 1000, seed: int = 0
) -> tuple[dict[str, float], dict[str, Any], Searches]:
    """Searches among the regions of `encoded` and the texts float [C, D] of the labels `ids`, all L2-normalised.

    Returns flat metrics (`retrieval/mask/text_to_region/map_r`, ...), for the report their intervals over patient
    groups (of those that ask, and of those searched where labels ask), and what was found. A direction without any
    query, as among regions of a single patient, is left out of the numbers.
    """
    flat: dict[str, float] = {}
    details: dict[str, Any] = {"retrieval": {}}
    searched = gallery(encoded.table, ids)
    kinds = encoded.regions.items() if len(searched.rows) else ()
    searches = Searches(searched, {kind: search(embedding, text, searched) for kind, embedding in kinds})
    for kind, found in searches.found.items():
        intervals: dict[str, dict[str, Any]] = {}
        for (direction, name), item in measures(found, searched).items():
            flat[f"retrieval/{kind}/{direction}/{name}"] = statistics.estimate(item)
            if replicates:
                interval = statistics.interval(item, replicates, seed)
                intervals.setdefault(direction, {})[name] = dataclasses.asdict(interval)
        details["retrieval"][kind] = intervals
    return flat, details, searches


def gallery(table: Any, ids: Sequence[str]) -> Gallery:
    """The regions of an `EvalTable` that are searched, and that ask."""
    places = {label: row for row, label in enumerate(ids)}
    rows = representatives(table) if len(table.label) else np.zeros(0, np.int64)
    label = np.array([places[table.label[row]] for row in rows], np.int64)
    return Gallery(rows, label, _groups(table)[rows] if len(rows) else rows, queries(label))


def search(embedding: np.ndarray, text: np.ndarray, searched: Gallery) -> Found:
    """All searches with region embeddings float [regions, D] of the table and texts float [C, D] of the bank."""
    regions, label, group, asking = embedding[searched.rows], searched.label, searched.group, searched.asking
    some, wanted = regions[asking], label[asking]
    rankings = []
    for each in np.unique(label):
        order = np.argsort(-(regions.astype(np.float32) @ text[each].astype(np.float32)), kind="stable")
        rankings.append(first_places(order, int((label == each).sum()), group))
    to_text = ranked(some, text, wanted, np.arange(len(text)))
    return Found(
        rankings,
        {
            # One text is right: what is left out says the same as R@1.
            "region_to_text": {name: value for name, value in to_text.items() if name.startswith("r")},
            "region_to_region": ranked(some, regions, wanted, label, group[asking], group),
        },
    )


def measures(found: Found, searched: Gallery) -> dict[tuple[str, str], statistics.Measure]:
    """The metrics by direction and name, of the directions that have a query."""
    label, group = searched.label, searched.group
    labels, column = np.unique(label, return_inverse=True)
    total = np.zeros((len(labels), int(group.max(initial=-1)) + 1))
    np.add.at(total, (column, group), 1)
    groups = [group[ranking] for ranking in found.rankings]
    right = [label[ranking] == each for each, ranking in zip(labels, found.rankings, strict=True)]
    result: dict[tuple[str, str], statistics.Measure] = {
        ("text_to_region", name): LabelSearch(groups, right, total, name) for name in METRICS
    }
    for direction, scores in found.scores.items():
        for name, value in scores.items():
            asked = ~np.isnan(value)
            columns = np.where(asked, label[searched.asking], -1)
            if asked.any():
                result[direction, name] = statistics.tally(np.where(asked, value, 0), group[searched.asking], columns)
    return result


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
