"""AUROC and average precision as measures of patient groups, see `statistics.py`.

A group that is drawn twice brings all its items twice. Items of equal score share their places, as in scikit-learn,
whose `roc_auc_score` and `average_precision_score` these are where every group weighs one.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from medp_clip_jax import statistics


def auroc(score: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How often a true item lies above another one, equal scores half: float [replicates], nan without one of either.

    `score` float [items], `truth` bool [items], `weights` float [items, replicates].
    """
    order = np.argsort(score, kind="stable")
    ascending, weights, true = score[order], weights[order], truth[order]
    others = ~true
    below = np.zeros((int(others.sum()) + 1, weights.shape[1]))  # what the first k others weigh
    np.cumsum(weights[others], 0, out=below[1:])
    low, high = (np.searchsorted(ascending[others], ascending[true], side) for side in ("left", "right"))
    mine = weights[true]
    won = sum(np.einsum("ir,ir->r", mine, below[place]) for place in (low, high)) / 2
    pairs = mine.sum(0) * below[-1]
    return np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)


def average_precision(score: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over true items of the precision down to their score; arguments and result like those of `auroc`."""
    order = np.argsort(-score, kind="stable")
    descending, right = -score[order], truth[order]
    weights = weights[order]
    last = np.searchsorted(descending, descending[right], "right") - 1  # the last item with the score of each true one
    everything, mine = weights.cumsum(0), weights[right]
    found = mine.cumsum(0)[np.cumsum(right)[last] - 1]
    precision = np.einsum("ir,ir->r", mine, found / np.maximum(everything[last], 1))
    total = mine.sum(0)
    return np.where(total > 0, precision / np.maximum(total, 1), np.nan)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The mean over columns of how well their scores find what is true, by `auroc` or `average_precision`.

    `score` float and `truth` bool are [items, columns], `group` int [items] says whose they are, of `groups` in all.
    """

    score: np.ndarray
    truth: np.ndarray
    group: np.ndarray
    groups: int
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

    def filled(self) -> np.ndarray:
        """See `statistics.Measure`."""
        return np.bincount(self.group, minlength=self.groups) > 0

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `statistics.Measure`; columns of which nothing true or nothing else was drawn are left out."""
        each = np.ascontiguousarray(weights.T)[self.group]
        columns = [self.metric(s, t, each) for s, t in zip(self.score.T, self.truth.T, strict=True)]
        return statistics.mean_of_existing(np.stack(columns, 1))
