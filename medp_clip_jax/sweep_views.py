"""Views of a sweep for a page, as Markdown: paired differences, curves, and single data sets."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from medp_clip_jax import statistics
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import outcomes
from medp_clip_jax.prompt_kinds import EXACT
from medp_clip_jax.sweep_table import Table


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


def curve(table: Table, metric: str, against: str) -> str:
    """A metric in [0, 1] of the rows by what `against` says of them, with the power law that fits its errors best, as
    Markdown: least squares of the logarithms of `1 - metric` and of `against`.

    Raises:
      InputError: fewer than three rows have both, or one is perfect.
    """
    rows = sorted((row for row in table.rows if {metric, against} <= set(row.values)), key=lambda r: r.mean(against))
    x, error = np.array([[row.mean(against), 1 - row.mean(metric)] for row in rows]).reshape(-1, 2).T
    if len(rows) < 3 or (error <= 0).any() or (x <= 0).any():
        raise InputError(f"curve of {metric} against {against}: expected three rows or more, none of them perfect")
    slope, level = np.polyfit(np.log(x), np.log(error), 1)
    fitted = np.exp(level) * x**slope
    lines = [f"| | {against} | {metric}, error in % | fit |", "|---|---|---|---|"]
    for row, place, mine, law in zip(rows, x, error, fitted, strict=True):
        lines.append(f"| {row.name} | {place:.4g} | {100 * mine:.2f} | {100 * law:.2f} |")
    return "\n".join([*lines, "", f"Fit: error = {np.exp(level):.3g} x^{slope:.3f}, over {len(rows)} rows."]) + "\n"


def by_dataset(table: Table, metric: str, columns: Sequence[str]) -> str:
    """A metric of regions, such as micro, data set by data set; a column is `ROW/KIND`, its seeds averaged, and left
    out while the sweep goes on and no cell of the row has finished.

    Raises:
      InputError: the table has no such row or kind, or its cells were kept without outcomes.
    """
    found, counts, shown = [], {}, []
    for column in columns:
        name, _, kind = column.rpartition("/")
        runs = [table.contents[cell].get("outcomes") for row in table.rows if row.name == name for cell in row.cells]
        if not runs and len(table.contents) < table.cells:
            continue
        shown.append(column)
        if not runs or not all(run and kind in run["kinds"] for run in runs):
            raise InputError(f"{column}: expected the name of a row, a slash, and a kind of prompt that it answers")
        parts = [outcomes.of_dataset(runs, number) for number in range(len(runs[0]["regions"]["datasets"]))]
        found.append([statistics.estimate(outcomes.together(part)[kind][metric]) for part in parts])
        counts = dict(zip(runs[0]["regions"]["datasets"], (len(p[0]["regions"]["target"]) for p in parts), strict=True))
    lines = ["| data set | regions | " + " | ".join(shown) + " |", "|---|---|" + "---|" * len(shown)]
    for number, (name, regions) in enumerate(counts.items()):
        cells = ("–" if np.isnan(each[number]) else f"{100 * each[number]:.1f}" for each in found)
        lines.append(f"| {name} | {regions} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _interval(interval: statistics.Interval) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in dataclasses.astuple(interval)))
