"""Views of a sweep for a page, as Markdown: paired differences, curves, and single data sets."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from medp_clip_jax import statistics
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import outcomes
from medp_clip_jax.evaluators.region_recognition import MIN_GROUPS
from medp_clip_jax.prompt_kinds import EXACT
from medp_clip_jax.sweep_table import Row, Table


def differences(table: Table, name: str) -> str:
    """How far the reference lies above each row in a metric of regions, such as macro, as Markdown: percent.

    A row that answers prompts is compared prompt by prompt, in one line; one that does not, with each of the prompts.
    """
    lines = [f"| {table.reference} minus | asked by | {' | '.join(EXACT)} |", "|---|---|" + "---|" * len(EXACT)]
    for row in table.rows:
        found = {key.split("/")[1]: each for key, each in row.differences.items() if key.split("/")[2] == name}
        same = {kind: found[kind][kind] for kind in EXACT if kind in found}
        for asked, each in {"the same": same}.items() if same else found.items():
            cells = (_interval(each[kind]) if kind in each else "" for kind in EXACT)
            lines.append("| " + " | ".join([row.name, asked, *cells]) + " |")
    return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True)
class Law:
    """A power law of errors, and the rows that it was fitted to, in order of `x`; `x` and `error` are float [rows]."""

    rows: list[Row]
    x: np.ndarray
    error: np.ndarray
    slope: float
    level: float

    def at(self, x: np.ndarray) -> np.ndarray:
        return np.exp(self.level) * x**self.slope

    @property
    def formula(self) -> str:
        return f"error = {np.exp(self.level):.3g} x^{self.slope:.3f}"


def fit(table: Table, metric: str, against: str) -> Law:
    """The power law that fits the errors of a metric in [0, 1] best, by what `against` says of the rows: least squares
    of the logarithms of `1 - metric` and of `against`.

    Raises:
      InputError: fewer than three rows have both, or one is perfect.
    """
    rows = sorted((row for row in table.rows if {metric, against} <= set(row.values)), key=lambda r: r.mean(against))
    x, error = np.array([[row.mean(against), 1 - row.mean(metric)] for row in rows]).reshape(-1, 2).T
    if len(rows) < 3 or (error <= 0).any() or (x <= 0).any():
        raise InputError(f"curve of {metric} against {against}: expected three rows or more, none of them perfect")
    slope, level = np.polyfit(np.log(x), np.log(error), 1)
    return Law(rows, x, error, slope, level)


def curve(table: Table, metric: str, against: str) -> str:
    """The rows and the law of `fit` as Markdown, with its errors."""
    law = fit(table, metric, against)
    lines = [f"| | {against} | {metric}, error in % | fit |", "|---|---|---|---|"]
    for row, place, mine, fitted in zip(law.rows, law.x, law.error, law.at(law.x), strict=True):
        lines.append(f"| {row.name} | {place:.4g} | {100 * mine:.2f} | {100 * fitted:.2f} |")
    return "\n".join([*lines, "", f"Fit: {law.formula}, over {len(law.rows)} rows."]) + "\n"


def by_dataset(table: Table, metric: str, columns: Sequence[str]) -> str:
    """A metric of regions, such as micro, data set by data set; a column is `ROW/KIND`, its seeds averaged, and left
    out while the sweep goes on and no cell of the row has finished.

    Raises:
      InputError: the table has no such row or kind, or its cells were kept without outcomes.
    """
    found, counts = [], {}
    chosen = _asked(table, columns)
    for runs, kind in chosen.values():
        parts = [outcomes.of_dataset(runs, number) for number in range(len(runs[0]["regions"]["datasets"]))]
        found.append([statistics.estimate(outcomes.together(part)[kind][metric]) for part in parts])
        counts = dict(zip(runs[0]["regions"]["datasets"], (len(p[0]["regions"]["target"]) for p in parts), strict=True))
    lines = ["| data set | regions | " + " | ".join(chosen) + " |", "|---|---|" + "---|" * len(chosen)]
    for number, (name, regions) in enumerate(counts.items()):
        lines.append(f"| {name} | {regions} | {' | '.join(_percent(each[number]) for each in found)} |")
    return "\n".join(lines) + "\n"


def by_label(table: Table, columns: Sequence[str]) -> str:
    """What macro is the mean of, label by label, and the means of rare labels and of the others; columns and errors are
    those of `by_dataset`. Rare are labels with fewer than `2 * MIN_GROUPS` patient groups."""
    chosen = _asked(table, columns)
    found = [outcomes.together(runs)[kind]["macro"] for runs, kind in chosen.values()]
    lines = ["| label | groups | regions | " + " | ".join(chosen) + " |", "|---|---|---|" + "---|" * len(chosen)]
    if not found:
        return "\n".join(lines) + "\n"
    groups, regions = (found[0].denominator > 0).sum(0), found[0].denominator.sum(0).astype(int)
    values = np.array([each.numerator.sum(0) for each in found]) / np.maximum(regions, 1)
    labels = next(iter(chosen.values()))[0][0]["regions"]["labels"]
    counted = [int(row) for row in np.argsort(groups, kind="stable") if groups[row]]
    for row in counted:
        cells = (_percent(value) for value in values[:, row])
        lines.append(f"| {labels[row]} | {groups[row]} | {regions[row]} | {' | '.join(cells)} |")
    rare = groups < 2 * MIN_GROUPS
    for title, part in ((f"mean, fewer than {2 * MIN_GROUPS} groups", rare), ("mean of the others", ~rare)):
        rows = [row for row in counted if part[row]]
        means = (_percent(value) for value in values[:, rows].mean(1)) if rows else ("–" for _ in chosen)
        lines.append(f"| *{title}* | | {regions[rows].sum()} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def _asked(table: Table, columns: Sequence[str]) -> dict[str, tuple[list[dict[str, Any]], str]]:
    """Outcomes of the runs of a row, and the kind of prompt, by column; see `by_dataset`."""
    chosen = {}
    for column in columns:
        name, _, kind = column.rpartition("/")
        runs = [table.contents[cell].get("outcomes") for row in table.rows if row.name == name for cell in row.cells]
        if not runs and len(table.contents) < table.cells:
            continue
        if not runs or not all(run and kind in run["kinds"] for run in runs):
            raise InputError(f"{column}: expected the name of a row, a slash, and a kind of prompt that it answers")
        chosen[column] = (outcomes.joined(runs), kind)
    return chosen


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def _interval(interval: statistics.Interval) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in dataclasses.astuple(interval)))
