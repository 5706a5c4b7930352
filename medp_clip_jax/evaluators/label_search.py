"""Searches by label as measures of the patient groups that are searched, see `statistics.py`.

A label has no patient, so that its search is resampled by what it can find: a group that is drawn twice has all its
regions twice in the ranking, one right after the other.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from medp_clip_jax import statistics

REACH = 64  # places and patient groups of a ranking that are kept besides twice the number of right ones
METRICS = ("r1", "r5", "r10", "p10", "map_r")


@dataclasses.dataclass(frozen=True)
class LabelSearch:
    """The mean over labels of one of METRICS (see `retrieval.py`), of rankings of regions.

    `group` int and `right` bool, both [places] per label, are the patient groups of the first regions and whether they
    have the label; `total` float [labels, groups] counts the right ones of all regions.
    """

    group: Sequence[np.ndarray]
    right: Sequence[np.ndarray]
    total: np.ndarray
    metric: str

    def filled(self) -> np.ndarray:
        """See `statistics.Measure`."""
        return self.total.sum(0) > 0

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `statistics.Measure`; labels of which nothing was drawn are left out."""
        drawn, totals = np.ascontiguousarray(weights.T), weights @ self.total.T
        found = [
            np.where(total > 0, _score(self.metric, drawn[group], right, np.maximum(total, 1)), np.nan)
            for group, right, total in zip(self.group, self.right, totals.T, strict=True)
        ]
        return statistics.mean_of_existing(np.stack(found, 1))


def first_places(order: np.ndarray, right: int, group: np.ndarray) -> np.ndarray:
    """The part of a ranking `order` int [regions] that any replicate can be expected to need: as many places as are
    read of a label with `right` regions twice over and REACH more, and those of REACH patients; `group` int [regions]
    is not in the order of the ranking."""
    firsts = np.sort(np.unique(group[order], return_index=True)[1])
    patients = firsts[REACH] if len(firsts) > REACH else len(order)
    return order[: max(2 * right + REACH, patients)]


def _score(metric: str, weights: np.ndarray, right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """A metric of one ranking under weights float [places, replicates] of its items, `right` bool [places], with
    `total` float [replicates] right ones in all: float [replicates]."""
    before = (weights.cumsum(0) - weights)[right]
    mine = weights[right]
    if metric == "p10":
        return np.clip(10 - before, 0, mine).sum(0) / np.minimum(total, 10)
    if metric != "map_r":
        return ((mine > 0) & (before < int(metric[1:]))).any(0).astype(float)
    hits = mine.cumsum(0) - mine
    precision = np.zeros_like(total)
    for copy in range(1, int(mine.max(initial=0)) + 1):
        place = before + copy
        precision += np.where((copy <= mine) & (place <= total), (hits + copy) / place, 0).sum(0)
    return precision / total
