"""The table of a sweep as one HTML file that needs no network: the ranking, every run as a dot, and fitted curves."""

import html
from collections.abc import Sequence

import numpy as np

from medp_clip_jax import metric_meaning, results, sweep_views
from medp_clip_jax.errors import InputError
from medp_clip_jax.report import charts, tables
from medp_clip_jax.report.style import CSS
from medp_clip_jax.sweep_table import Table, cell, marks, notes

STEPS = 50  # points of a fitted curve


def page(table: Table, curves: Sequence[tuple[str, str]] = ()) -> str:
    """`curves` are pairs of a metric and what it is plotted against; they are left out while no law can be fitted."""
    body = [
        [html.escape(row.name), str(len(row.cells)), *(cell(table, row, metric) for metric in table.metrics)]
        for row in table.rows
    ]
    head = ["", "runs", *(name + mark for name, mark in zip(table.metrics, marks(table), strict=True))]
    plots = [
        _card(f"{metric}, each run", charts.dots(runs, metric, metric_meaning.is_share(metric)))
        for metric in table.metrics
        for runs in [{row.name: row.values.get(metric, []) for row in table.rows}]
    ]
    plots += [plot for metric, against in curves if (plot := _curve(table, metric, against))]
    told = "".join(f"<p>{html.escape(note)}</p>" for note in notes(table))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>MedP-CLIP sweep</title>'
        f"<style>{CSS}</style></head><body><main><h1>Sweep</h1>{tables.table(head, body)}"
        f'{told}<div class="grid two">{"".join(plots)}</div>'
        f"<footer>{html.escape(results.NOTICE)}</footer></main></body></html>\n"
    )


def _curve(table: Table, metric: str, against: str) -> str:
    """The rows as dots and the law that fits them as a line: errors in percent."""
    try:
        law = sweep_views.fit(table, metric, against)
    except InputError:
        return ""
    x = np.geomspace(law.x[0], law.x[-1], STEPS)
    series = {"fit": list(zip(x.tolist(), (100 * law.at(x)).tolist(), strict=True))}
    for row, place, error in zip(law.rows, law.x, law.error, strict=True):
        series[row.name] = [(float(place), float(100 * error))]
    title = f"{metric}, error in %, by {against}"
    return _card(f"{title}: {law.formula}", charts.legend(list(series)) + charts.lines(series, label=title))


def _card(title: str, chart: str) -> str:
    return f'<div class="card"><h3>{html.escape(title)}</h3>{chart}</div>'
