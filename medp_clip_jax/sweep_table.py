"""What came out of a sweep: one row per setting, its seeds together, ranked, and compared with the best row.

`results.csv` has a line per cell and metric, `results.md` and `results.html` the ranking. A row is told from the best
one where the paired difference over patient groups has a 95 % interval that excludes zero; the seeds of a setting are
averaged per region before that.
"""

import csv
import dataclasses
import html
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medp_clip_jax import results, statistics
from medp_clip_jax.compare import METRICS
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import predictions
from medp_clip_jax.evaluators.region_recognition import tallies

SEED = "seed"
SHOWN = ("region/mask/macro", "region/box/macro", "region/point/macro", "image/accuracy")
REPLICATES = 1000


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: its fields but the seed, the folders of its finished cells, and each metric by seed."""

    setting: tuple[tuple[str, Any], ...]
    folders: list[pathlib.Path]
    values: dict[str, list[float]]
    differences: dict[str, statistics.Interval]  # metric -> this row minus the best one

    @property
    def name(self) -> str:
        return ", ".join(f"{field.rsplit('.', 1)[-1]} {value}" for field, value in self.setting) or "all"

    def mean(self, metric: str) -> float:
        found = self.values.get(metric, [])
        return float(np.mean(found)) if found else math.nan


def write(output: pathlib.Path, cells: Mapping[str, Mapping[str, Any]], metrics: Sequence[str] = ()) -> list[Row]:
    """Writes the three tables of the finished cells into `output`, and returns the ranked rows.

    Raises:
      InputError: a results.json cannot be read.
    """
    contents = {name: _read(output / name) for name in cells if (output / name / results.FILE).is_file()}
    found = sorted({metric for content in contents.values() for metric in content["metrics"]})
    metrics = [metric for metric in metrics or SHOWN if metric in found] or found[:4]
    rows = compared(rank(_rows(output, cells, contents), metrics), metrics)
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
    text = markdown(rows, metrics, len(cells), contents)
    (output / "results.md").write_text(text, "utf-8")
    (output / "results.html").write_text(page(rows, metrics, len(cells), contents), "utf-8")
    return rows


def rank(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """Best first, by the first metric; rows without it last."""
    if not metrics:
        return list(rows)
    return sorted(rows, key=lambda row: (math.isnan(row.mean(metrics[0])), -row.mean(metrics[0])))


def compared(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """Rows with their paired differences to the first one, of the region metrics that have them."""
    if len(rows) < 2:
        return list(rows)
    best, made = _together(rows[0].folders), [rows[0]]
    for row in rows[1:]:
        mine, differences = _together(row.folders), {}
        for metric in metrics:
            part, _, rest = metric.partition("/")
            kind, _, name = rest.partition("/")
            if part == "region" and name in METRICS and best and mine and kind in best.kinds and kind in mine.kinds:
                _, first, second = np.intersect1d(mine.keys, best.keys, return_indices=True)
                a, b = predictions.take(mine, first), predictions.take(best, second)
                pair = (tallies(a.kinds[kind], a.regions)[name], tallies(b.kinds[kind], a.regions)[name])
                differences[metric] = statistics.difference(*pair, REPLICATES)
        made.append(dataclasses.replace(row, differences=differences))
    return made


def markdown(rows: Sequence[Row], metrics: Sequence[str], cells: int, contents: Mapping[str, Any]) -> str:
    """The ranking as Markdown."""
    lines = ["| " + " | ".join(["", "seeds", *metrics]) + " |", "|---|---|" + "---|" * len(metrics)]
    for place, row in enumerate(rows):
        lines.append(
            "| " + " | ".join([row.name, str(len(row.folders)), *(_cell(row, m, place) for m in metrics)]) + " |"
        )
    return "\n".join([*lines, "", *notes(cells, contents)]) + "\n"


def page(rows: Sequence[Row], metrics: Sequence[str], cells: int, contents: Mapping[str, Any]) -> str:
    """The ranking as one HTML file that needs no network."""
    from medp_clip_jax.report import charts, tables
    from medp_clip_jax.report.style import CSS

    body = [
        [html.escape(row.name), str(len(row.folders)), *(_cell(row, m, i) for m in metrics)]
        for i, row in enumerate(rows)
    ]
    plots = [
        f'<div class="card"><h3>{html.escape(metric)}, %, each seed</h3>'
        f"{charts.dots({row.name: row.values.get(metric, []) for row in rows}, metric)}</div>"
        for metric in metrics
    ]
    told = "".join(f"<p>{html.escape(note)}</p>" for note in notes(cells, contents))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>MedP-CLIP sweep</title>'
        f"<style>{CSS}</style></head><body><main><h1>Sweep</h1>{tables.table(['', 'seeds', *metrics], body)}"
        f'{told}<div class="grid two">{"".join(plots)}</div>'
        f"<footer>{html.escape(results.NOTICE)}</footer></main></body></html>\n"
    )


def notes(cells: int, contents: Mapping[str, Any]) -> list[str]:
    """How to read the table, and what it rests on."""
    commits = sorted({str(content["commit"]) for content in contents.values()})
    data = sorted({f"{content['data']['name']} {content['data']['checksum']}" for content in contents.values()})
    read = [
        "Percent, mean and standard deviation over seeds; a star marks a row whose paired difference to the first one, "
        "over patient groups, has a 95 % interval that excludes zero.",
        f"{len(contents)} of {cells} cells; commit {', '.join(commits) or 'none'}; data {', '.join(data) or 'none'}.",
    ]
    if len(commits) > 1 or len(data) > 1:
        read.append("Cells differ in code or data: their numbers need not be comparable.")
    return read


def screen(output: pathlib.Path) -> str:
    """The table as it was written, for the terminal."""
    return f"{(output / 'results.md').read_text('utf-8')}\ntables: {output}/results.md, .csv, .html"


def _cell(row: Row, metric: str, place: int) -> str:
    values = row.values.get(metric, [])
    if not values:
        return "–"
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    interval = row.differences.get(metric)
    star = " *" if place and interval and (interval.low > 0 or interval.high < 0) else ""
    return f"{results.percent(row.mean(metric))}{spread}{star}"


def _rows(output: pathlib.Path, cells: Mapping[str, Mapping[str, Any]], contents: Mapping[str, Any]) -> list[Row]:
    rows: dict[str, Row] = {}
    for name, content in contents.items():
        setting = tuple((field, value) for field, value in cells[name].items() if field != SEED)
        row = rows.setdefault(repr(setting), Row(setting, [], {}, {}))
        row.folders.append(output / name)
        for metric, value in content["metrics"].items():
            if value is not None:
                row.values.setdefault(metric, []).append(value)
    return list(rows.values())


def _together(folders: Sequence[pathlib.Path]) -> predictions.Saved | None:
    """The predictions of all seeds of a setting as one, whose values are their means; None without any."""
    each = [predictions.load(folder) for folder in folders if (folder / predictions.FILE).is_file()]
    if not each:
        return None
    shared = each[0].keys
    for other in each[1:]:
        shared = np.intersect1d(shared, other.keys)
    each = [predictions.take(one, np.intersect1d(one.keys, shared, return_indices=True)[1]) for one in each]
    kinds = {}
    for kind, first in each[0].kinds.items():
        if all(kind in one.kinds for one in each):
            names = [n for n in first.values if all(n in one.kinds[kind].values for one in each)]
            means = {name: np.mean([one.kinds[kind].values[name] for one in each], 0) for name in names}
            kinds[kind] = dataclasses.replace(first, values=means)
    return dataclasses.replace(each[0], kinds=kinds)


def _read(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / results.FILE
    try:
        content = json.loads(path.read_text())
        return {name: content[name] for name in ("metrics", "commit", "data")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error}): remove it, and start the sweep again") from error
