"""What came out of a sweep: one row per setting, its seeds together, ranked, and compared with the first setting.

`results.csv` has a line per cell and metric, `results.md` and `results.html` the ranking. A row is told from that of
the sweep's first setting, the reference, where the paired difference over patient groups has a 95 % interval that
excludes zero; the seeds of a setting are averaged per region before that. Metrics without such a test are marked.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medp_clip_jax import cost, metric_meaning, statistics
from medp_clip_jax.compare import METRICS
from medp_clip_jax.evaluators import outcomes
from medp_clip_jax.prompt_kinds import EXACT
from medp_clip_jax.sweep_cells import SETTING, Sweep, short
from medp_clip_jax.sweep_match import finished
from medp_clip_jax.sweep_results import read_cell

SHOWN = ("region/mask/macro", "region/box/macro", "region/point/macro", "image/accuracy")
REPLICATES = 1000
UNTESTED = "°"


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: what tells it from others (`Sweep.row`), the names of its finished cells, each metric by run."""

    setting: tuple[tuple[str, Any], ...]
    cells: list[str]
    values: dict[str, list[float]]
    # metric -> prompt kind of the reference -> how far the reference lies above this row
    differences: dict[str, dict[str, statistics.Interval]]

    @property
    def name(self) -> str:
        told = zip(short([field for field, _ in self.setting]), self.setting, strict=True)
        return ", ".join(str(value) if word == SETTING else f"{word} {value}" for word, (_, value) in told) or "all"

    def mean(self, metric: str) -> float:
        found = self.values.get(metric, [])
        return float(np.mean(found)) if found else math.nan


@dataclasses.dataclass(frozen=True)
class Table:
    """The ranked rows of a sweep, and what they rest on."""

    rows: list[Row]
    metrics: list[str]  # the columns; the first ranks
    cells: int  # in all, finished or not
    contents: dict[str, dict[str, Any]]  # of the finished ones: see `sweep_results.read_cell`
    reference: str = ""  # the name of the row that the others are compared with


def write(output: pathlib.Path, sweep: Sweep, kept: Mapping[str, dict[str, Any]] | None = None) -> Table:
    """Writes the three tables of the finished cells into `output`, and returns them as one.

    Finished are those with results in `output`, and those of which `kept` has the content from an earlier time.

    Raises:
      InputError: a results.json cannot be read, or is of a cell that the sweep does not have so.
    """
    cells = sweep.cells
    here = {name: read_cell(output / name, cells[name]) for name in finished(sweep, output)}
    either = {**(kept or {}), **here}
    contents = {name: either[name] for name in cells if name in either}
    found = sorted({metric for content in contents.values() for metric in content["metrics"]})
    metrics = [metric for metric in sweep.metrics or SHOWN if metric in found] or found[:4]
    rows = _rows(sweep, contents)
    reference = next((row for row in rows if next(iter(cells)) in row.cells), None)
    ranked = rank(compared(rows, reference, contents) if reference else rows, metrics)
    table = Table(ranked, metrics, len(cells), contents, reference.name if reference else "")
    with (output / "results.csv").open("w", newline="") as file:
        fields = list(dict.fromkeys(field for cell in cells.values() for field in cell))
        writer = csv.writer(file)
        writer.writerow(["cell", *fields, "commit", "data", "metric", "value"])
        for name, content in contents.items():
            where = [
                name,
                *(cells[name].get(field, "") for field in fields),
                content["commit"],
                content["data"]["checksum"],
            ]
            writer.writerows(
                [*where, metric, value] for metric, value in content["metrics"].items() if value is not None
            )
    (output / "results.md").write_text(markdown(table), "utf-8")
    # Imported here: it is made of this table, and needs the libraries of reports.
    from medp_clip_jax import sweep_page

    (output / "results.html").write_text(sweep_page.page(table, sweep.curves), "utf-8")
    return table


def rank(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """Best first, by the first metric, of which less may be better; rows without it last."""
    if not metrics:
        return list(rows)
    sign = metric_meaning.direction(metrics[0])
    return sorted(rows, key=lambda row: (math.isnan(row.mean(metrics[0])), -sign * row.mean(metrics[0])))


def compared(rows: Sequence[Row], reference: Row, contents: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows with how far `reference` lies above them: prompts with the same prompts, and what is no prompt of the model,
    such as a crop, with each of the prompts."""

    def runs(row: Row) -> list[dict[str, Any]]:
        return outcomes.joined([contents[name]["outcomes"] for name in row.cells if contents[name].get("outcomes")])

    first = runs(reference)
    best, made = outcomes.together(first), []
    for row in rows:
        mine = runs(row)
        pairs = row is not reference and first and mine and mine[0]["regions"] == first[0]["regions"]
        made.append(dataclasses.replace(row, differences=_differences(best, outcomes.together(mine)) if pairs else {}))
    return made


def _differences(
    best: Mapping[str, Mapping[str, statistics.Tally]], mine: Mapping[str, Mapping[str, statistics.Tally]]
) -> dict[str, dict[str, statistics.Interval]]:
    found: dict[str, dict[str, statistics.Interval]] = {}
    for kind in mine:
        for other in (kind,) if kind in EXACT else EXACT:
            if other in best:
                for name in METRICS:
                    interval = statistics.difference(best[other][name], mine[kind][name], REPLICATES)
                    found.setdefault(f"region/{kind}/{name}", {})[other] = interval
    return found


def markdown(table: Table, noted: bool = True) -> str:
    """The ranking as Markdown, with the notes on how to read it unless they stand elsewhere."""
    shared, columns = abbreviated(table.metrics)
    columns = [name + mark for name, mark in zip(columns, marks(table), strict=True)]
    lines = ["| " + " | ".join([shared, "runs", *columns]) + " |", "|---|---|" + "---|" * len(columns)]
    for row in table.rows:
        cells = (cell(table, row, metric) for metric in table.metrics)
        lines.append("| " + " | ".join([row.name, str(len(row.cells)), *cells]) + " |")
    return "\n".join([*lines, "", *(notes(table) if noted else ())]) + "\n"


def cell(table: Table, row: Row, metric: str) -> str:
    """A metric of a row in words, with a star or the sign of what was not tested; see `notes`."""
    text = metric_meaning.written(metric, row.values.get(metric, []))
    if metric not in row.values or row.name == table.reference or metric in untested(table):
        return text
    found = differs(row, metric)
    return text + (f" {UNTESTED}" if found is None else " *" if found else "")


def marks(table: Table) -> list[str]:
    """What is put behind the columns' names: the sign of what was not tested, but not of costs, nor for one row."""
    without = untested(table) if len(table.rows) > 1 else []
    return [f" {UNTESTED}" if m in without and not m.startswith(cost.PREFIX) else "" for m in table.metrics]


def untested(table: Table) -> list[str]:
    """The columns in which no row was tested, costs and what only the reference has among them."""
    return [metric for metric in table.metrics if all(differs(row, metric) is None for row in table.rows)]


def differs(row: Row, metric: str) -> bool | None:
    """Whether the reference is told from a row: by the same prompt, and from what is no prompt of the model, such as a
    crop, by every prompt of the reference. None where that was not tested."""
    intervals = row.differences.get(metric, {}).values()
    if not intervals or any(math.isnan(interval.low) for interval in intervals):
        return None
    return all(interval.low > 0 or interval.high < 0 for interval in intervals)


def abbreviated(names: Sequence[str]) -> tuple[str, list[str]]:
    """What several names share, and what tells them apart: `region/*/macro` and `mask`, `box`."""
    parts = [name.split("/") for name in names]
    if len(set(names)) < 2:
        return "", list(names)
    shortest = min(map(len, parts)) - 1
    first = next(n for n in range(shortest + 1) if n == shortest or len({part[n] for part in parts}) > 1)
    last = next(n for n in range(shortest - first + 1) if n == shortest - first or len({p[-1 - n] for p in parts}) > 1)
    if not first and not last:
        return "", list(names)
    shared = "/".join([*parts[0][:first], "*", *parts[0][len(parts[0]) - last :]])
    return shared, ["/".join(part[first : len(part) - last]) for part in parts]


def showing(table: Table, metrics: Sequence[str]) -> Table:
    """The table with other columns, without the rows that have none of them."""
    if not metrics:
        return table
    rows = [row for row in table.rows if any(metric in row.values for metric in metrics)]
    return dataclasses.replace(table, rows=rows, metrics=list(metrics))


def notes(table: Table) -> list[str]:
    """How to read the table, and what it rests on."""
    contents = table.contents.values()
    commits = sorted({str(content["commit"]) for content in contents})
    data = sorted({f"{each['data']['name']} {each['data']['checksum'] or ''}".strip() for each in contents} - {""})
    machines = sorted({content["machine"] for content in contents if content.get("machine")})
    read = [
        "Percent, mean and standard deviation over runs; a star marks a number whose paired difference to "
        f"{table.reference or 'the first setting'}, over patient groups, has a 95 % interval that excludes zero. Mask, "
        "box and point are compared with the same prompt there, all else, such as crop and none, with mask, with box "
        "and with point there, and none of these intervals may have zero in it. "
        f"{UNTESTED} at a column or a number: not tested.",
        "; ".join(
            [
                f"{len(contents)} of {table.cells} cells",
                f"commit {', '.join(commits) or 'none'}",
                f"data {', '.join(data) or 'none'}",
                *machines,
            ]
        )
        + ".",
    ]
    if len(commits) > 1 or len(data) > 1:
        read.append("Cells differ in code or data: their numbers need not be comparable.")
    return read


def screen(output: pathlib.Path) -> str:
    """The table as it was written, for the terminal."""
    return f"{(output / 'results.md').read_text('utf-8')}\ntables: {output}/results.md, .csv, .html"


def _rows(sweep: Sweep, contents: Mapping[str, Any]) -> list[Row]:
    rows: dict[str, Row] = {}
    for name, content in contents.items():
        setting = sweep.row(name)
        row = rows.setdefault(repr(setting), Row(setting, [], {}, {}))
        row.cells.append(name)
        for metric, value in content["metrics"].items():
            if value is not None:
                row.values.setdefault(metric, []).append(value)
    return list(rows.values())
