"""Bootstrap intervals over patient groups.

Regions of one patient are not independent, so whole groups are drawn with replacement, never single regions. A number
is a `Measure`: it can be taken under weights of the groups, which say how often each was drawn. Most are a `Tally`, a
mean over columns of ratios: one column gives a plain (micro) mean, one per label the macro mean.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

CHUNK = 100  # replicates taken at a time, so that many items do not need [replicates, items] at once


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its 95 % percentile interval; the bounds are nan where fewer than two groups exist."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Measure(Protocol):
    """A number in which patient groups can be weighed."""

    def filled(self) -> np.ndarray:
        """Which groups have anything in it, bool [groups]."""
        ...

    def values(self, weights: np.ndarray) -> np.ndarray:
        """The number, float [replicates], under weights float [replicates, groups], whole numbers of 0 and more; nan
        where what was drawn has none."""
        ...


@dataclasses.dataclass(frozen=True)
class Tally:
    """Sums `numerator` and counts `denominator`, both float [groups, columns]."""

    numerator: np.ndarray
    denominator: np.ndarray

    def filled(self) -> np.ndarray:
        """See `Measure`."""
        return self.denominator.sum(1) > 0

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `Measure`."""
        return mean_ratio(weights @ self.numerator, weights @ self.denominator)


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over measures of the same groups, such as those of several data sets, that exist for what was drawn."""

    items: Sequence[Measure]

    def filled(self) -> np.ndarray:
        """See `Measure`."""
        return np.any([item.filled() for item in self.items], 0)

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `Measure`."""
        return mean_of_existing(np.stack([item.values(weights) for item in self.items], 1))


@dataclasses.dataclass(frozen=True)
class Part:
    """A measure of some groups among others: `place` int [its groups] says which they are of `groups` in all."""

    item: Measure
    place: np.ndarray
    groups: int

    def filled(self) -> np.ndarray:
        """See `Measure`."""
        result = np.zeros(self.groups, bool)
        result[self.place] = self.item.filled()
        return result

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `Measure`."""
        return self.item.values(weights[:, self.place])


def group_index(*keys: Sequence[str]) -> np.ndarray:
    """Numbers the distinct tuples of the parallel `keys` (each [items]) in order of first appearance; int [items]."""
    seen: dict[tuple[str, ...], int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in zip(*keys, strict=True)], dtype=np.int64)


def tally(values: np.ndarray, groups: np.ndarray, columns: np.ndarray | None = None) -> Tally:
    """Sums `values` [items] by group index [items] and column index [items] (None = one column).

    Items whose column is negative are left out; groups keep their index, so that tallies of the same items pair up.
    """
    values = np.asarray(values, np.float64)
    columns = np.zeros(len(values), np.int64) if columns is None else np.asarray(columns)
    shape = (int(groups.max(initial=-1)) + 1, int(columns.max(initial=0)) + 1)
    kept = columns >= 0
    numerator, denominator = np.zeros(shape), np.zeros(shape)
    np.add.at(numerator, (groups[kept], columns[kept]), values[kept])
    np.add.at(denominator, (groups[kept], columns[kept]), 1.0)
    return Tally(numerator, denominator)


def mean_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Mean over the last axis of `numerator / denominator`, empty columns left out; nan if all are empty."""
    filled = denominator > 0
    ratios = np.where(filled, numerator / np.where(filled, denominator, 1.0), 0.0)
    count = filled.sum(-1)
    return np.where(count > 0, ratios.sum(-1) / np.maximum(count, 1), np.nan)


def mean_of_existing(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without nan; nan if all are."""
    exists = ~np.isnan(values)
    return mean_ratio(np.where(exists, values, 0.0), exists.astype(float))


def estimate(item: Measure) -> float:
    """The number over all groups, each once."""
    if isinstance(item, Tally):
        return float(mean_ratio(item.numerator.sum(0), item.denominator.sum(0)))
    return float(item.values(np.ones((1, len(item.filled()))))[0])


def bootstrap(items: Sequence[Measure], replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """Each measure under the same resampled groups, float [replicates, len(items)].

    All must have the same groups: the draws are shared, which is what pairs them.
    """
    groups = {len(item.filled()) for item in items}
    if len(groups) != 1:
        raise ValueError(f"paired tallies need the same groups, got {sorted(groups)} of them")
    (size,) = groups
    drawn = _draws(size, replicates, seed)
    samples = np.empty((replicates, len(items)))
    for start in range(0, replicates, CHUNK):
        weights = drawn[start : start + CHUNK].astype(np.float64)
        for column, item in enumerate(items):
            samples[start : start + CHUNK, column] = item.values(weights)
    return samples


@functools.lru_cache(maxsize=8)  # many numbers of one evaluation have the same groups, and drawing costs the most
def _draws(size: int, replicates: int, seed: int) -> np.ndarray:
    """How often each of `size` groups is drawn, int16 [replicates, size]."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((replicates, size), np.int16)
    for start in range(0, replicates, CHUNK):
        rows = drawn[start : start + CHUNK]
        rows[:] = rng.multinomial(size, np.full(size, 1.0 / size), size=len(rows))
    drawn.flags.writeable = False
    return drawn


def mean_of(items: Sequence[Measure], replicates: int = 1000, seed: int = 0) -> dict[str, float | None]:
    """The mean over tallies, such as data sets, as `value` and, where `replicates` are drawn, its 95 % bounds `low` and
    `high`; plain values for JSON."""
    value = rounded(np.mean([estimate(item) for item in items]))
    if not replicates:
        return {"value": value}
    low, high = np.nanpercentile(np.nanmean(bootstrap(items, replicates, seed), 1), [2.5, 97.5])
    return {"value": value, "low": rounded(low), "high": rounded(high)}


def difference_of(
    first: Sequence[Measure], second: Sequence[Measure], replicates: int = 1000, seed: int = 0
) -> dict[str, float | None]:
    """How far the mean over the tallies of `first` lies above that of `second`, as `value`, `low` and `high` like
    `mean_of`; both are measured on the same resampled groups."""
    value = np.mean([estimate(item) for item in first]) - np.mean([estimate(item) for item in second])
    samples = bootstrap([*first, *second], replicates, seed)
    leads = np.nanmean(samples[:, : len(first)], 1) - np.nanmean(samples[:, len(first) :], 1)
    low, high = np.nanpercentile(leads, [2.5, 97.5])
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def rounded(value: float) -> float | None:
    """A number as JSON has it, None where it is none."""
    return None if not np.isfinite(value) else round(float(value), 5)


def interval(item: Measure, replicates: int = 1000, seed: int = 0) -> Interval:
    """The number `item` with its 95 % interval over resampled groups."""
    return _interval(estimate(item), item, lambda: bootstrap([item], replicates, seed)[:, 0])


def difference(first: Measure, second: Measure, replicates: int = 1000, seed: int = 0) -> Interval:
    """`first - second` with its 95 % interval; both are measured on the same resampled groups in each replicate."""

    def samples() -> np.ndarray:
        pair = bootstrap([first, second], replicates, seed)
        return pair[:, 0] - pair[:, 1]

    return _interval(estimate(first) - estimate(second), first, samples)


def _interval(value: float, item: Measure, samples) -> Interval:
    # Fewer than two groups with anything in them say nothing about other patients.
    if np.isnan(value) or item.filled().sum() < 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.nanpercentile(samples(), [2.5, 97.5])
    return Interval(value, float(low), float(high))
