"""Bootstrap intervals over patient groups.

Regions of one patient are not independent, so whole groups are drawn with replacement, never single regions. Every
number here is a mean over columns of ratios: one column gives a plain (micro) mean, one per label the macro mean.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

CHUNK = 100  # replicates drawn at a time, so that many groups do not need [replicates, groups] at once


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its 95 % percentile interval; the bounds are nan where fewer than two groups exist."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True)
class Tally:
    """Sums `numerator` and counts `denominator`, both float [groups, columns]."""

    numerator: np.ndarray
    denominator: np.ndarray


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


def estimate(item: Tally) -> float:
    """The mean ratio over all groups."""
    return float(mean_ratio(item.numerator.sum(0), item.denominator.sum(0)))


def bootstrap(items: Sequence[Tally], replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """Mean ratios of each tally under the same resampled groups, float [replicates, len(items)].

    All tallies must have the same groups: the draws are shared, which is what pairs them.
    """
    groups = {len(item.numerator) for item in items}
    if len(groups) != 1:
        raise ValueError(f"paired tallies need the same groups, got {sorted(groups)} of them")
    (size,) = groups
    rng = np.random.default_rng(seed)
    samples = np.empty((replicates, len(items)))
    for start in range(0, replicates, CHUNK):
        stop = min(start + CHUNK, replicates)
        weights = rng.multinomial(size, np.full(size, 1.0 / size), size=stop - start).astype(np.float64)
        for column, item in enumerate(items):
            samples[start:stop, column] = mean_ratio(weights @ item.numerator, weights @ item.denominator)
    return samples


def mean_of(items: Sequence[Tally], replicates: int = 1000, seed: int = 0) -> dict[str, float | None]:
    """The mean over tallies, such as data sets, as `value` and, where `replicates` are drawn, its 95 % bounds `low` and
    `high`; plain values for JSON."""
    value = rounded(np.mean([estimate(item) for item in items]))
    if not replicates:
        return {"value": value}
    low, high = np.nanpercentile(np.nanmean(bootstrap(items, replicates, seed), 1), [2.5, 97.5])
    return {"value": value, "low": rounded(low), "high": rounded(high)}


def difference_of(
    first: Sequence[Tally], second: Sequence[Tally], replicates: int = 1000, seed: int = 0
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


def interval(item: Tally, replicates: int = 1000, seed: int = 0) -> Interval:
    """The mean ratio of `item` with its 95 % interval over resampled groups."""
    return _interval(estimate(item), item, lambda: bootstrap([item], replicates, seed)[:, 0])


def difference(first: Tally, second: Tally, replicates: int = 1000, seed: int = 0) -> Interval:
    """`first - second` with its 95 % interval; both are measured on the same resampled groups in each replicate."""

    def samples() -> np.ndarray:
        pair = bootstrap([first, second], replicates, seed)
        return pair[:, 0] - pair[:, 1]

    return _interval(estimate(first) - estimate(second), first, samples)


def _interval(value: float, item: Tally, samples) -> Interval:
    # Fewer than two groups with anything in them say nothing about other patients.
    if np.isnan(value) or (item.denominator.sum(1) > 0).sum() < 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.nanpercentile(samples(), [2.5, 97.5])
    return Interval(value, float(low), float(high))
