"""The page about one evaluation of interactive segmentation: numbers, curves over clicks, worst and best cases."""

import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medp_clip_jax.errors import InputError
from medp_clip_jax.eval_input import EvalTable
from medp_clip_jax.evaluators.click_sessions import Session
from medp_clip_jax.records import decode_image, decode_mask
from medp_clip_jax.report import charts, gallery, tables
from medp_clip_jax.report.style import CSS
from medp_clip_jax.results import NOTICE

CASES = 4  # worst, median and best each


def write_report(
    path: pathlib.Path, numbers: Mapping[str, Any], sessions: Sequence[Session], corpus: Any, table: EvalTable
) -> None:
    """Writes the page about `numbers` (see `interactive_segmentation.evaluate`) and the sessions that began by a click.

    InputError if it cannot be written.
    """
    title = f"Interactive segmentation, protocol {numbers['protocol']}, {numbers['split']} split"
    parts = [("Means over labels, then data sets", means(numbers)), ("Dice over clicks", curves(sessions, table))]
    parts += [("By data set", by_set(numbers)), ("Worst, median and best", cases(sessions, corpus, table))]
    body = "".join(f"<section><h2>{html.escape(name)}</h2>{text}</section>" for name, text in parts)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body><main><h1>{html.escape(title)}</h1>"
        f'<div class="meta"><span>{numbers["regions"]:,} regions</span><span>seed {numbers["seed"]}</span></div>'
        f'<p class="note">{html.escape(NOTICE)}</p>{body}</main></body></html>\n'
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): name a writable folder") from error


def means(numbers: Mapping[str, Any]) -> str:
    """A row per prompt with the means of each metric, then clicks that were needed."""
    prompts = list(dict.fromkeys(name.split("/")[1] for name in numbers["mean"]))
    rows = []
    for prompt in prompts:
        dice, iou, nsd, hd95 = (numbers["mean"][f"{metric}/{prompt}"] for metric in ("dice", "iou", "nsd", "hd95"))
        low, high = dice.get("low"), dice.get("high")
        span = "" if low is None else f"<small class='under'>{low:.3f} to {high:.3f}</small>"
        cells = [f"<td>{dice['value']:.3f}{span}</td>", f"{iou['value']:.3f}", f"{nsd['value']:.3f}"]
        rows.append([html.escape(prompt.replace("_", " ")), *cells, f"{hd95['value']:.2f}"])
    needed = "; ".join(
        f"{name} {item['clicks']:.2f}, {item['failures']:.1%} never" for name, item in numbers["noc"].items()
    )
    head = ["prompt", "Dice", "IoU", f"NSD, {numbers['tolerance_px']:g} px", "HD95, px"]
    return f"{tables.table(head, rows)}<p>{html.escape(needed)}</p>"


def curves(sessions: Sequence[Session], table: EvalTable) -> str:
    """Mean Dice after each click, of all regions and of each data set."""
    dice = np.array([session.dice for session in sessions])
    sets = np.array([table.images[table.image_index[session.row]].dataset for session in sessions])
    series = {"all regions": dice.mean(0)}
    if len(set(sets)) > 1:
        series |= {name: dice[sets == name].mean(0) for name in sorted(set(sets))}
    points = {name: [(float(k), float(v)) for k, v in enumerate(curve, 1)] for name, curve in series.items()}
    return charts.legend(list(points)) + charts.lines(points, label="mean Dice over clicks")


def by_set(numbers: Mapping[str, Any]) -> str:
    """Dice of each data set by prompt."""
    prompts = [name for name in numbers["mean"] if name.startswith("dice/")]
    rows = [
        [html.escape(name.replace("_", " ")), *(tables.heat(item[prompt]) for prompt in prompts)]
        for name, item in numbers["data_sets"].items()
    ]
    return tables.table(["Dice, %", *(prompt.split("/")[1].replace("_", " ") for prompt in prompts)], rows)


def cases(sessions: Sequence[Session], corpus: Any, table: EvalTable) -> str:
    """Pictures of regions after one click, by their Dice: the truth in yellow, the answer in blue."""
    order = np.argsort([session.dice[0] for session in sessions], kind="stable")
    middle = max(0, (len(order) - CASES) // 2)
    chosen = [*order[:CASES], *order[middle : middle + CASES], *order[::-1][:CASES]]
    readers = {name: corpus.source(name, table.split) for name, _ in table.records}
    shown = [_case(readers, table, sessions[place]) for place in dict.fromkeys(chosen)]
    return f'<div class="grid">{"".join(shown)}</div>'


def _case(readers: Mapping[str, Any], table: EvalTable, session: Session) -> str:
    source, record = table.records[table.image_index[session.row]]
    example = readers[source][record]
    pixels = decode_image(example.image)
    height, width = pixels.shape[:2]
    side = max(height, width)
    line, (x, y, _) = side / 200, session.clicks[0]
    truth = decode_mask(example.regions[table.region_index[session.row]].rle, height, width)
    answer = decode_mask(session.first, height, width)
    svg = (
        f'<svg viewBox="{(width - side) / 2} {(height - side) / 2} {side} {side}" role="img" '
        f'aria-label="{html.escape(example.dataset, quote=True)}">'
        f'<image href="{gallery.data_uri(pixels, gallery.SIDE)}" width="{width}" height="{height}"/>'
        f'<g fill="none" stroke-width="{line:.2f}"><path stroke="#ffd60a" d="{gallery.outline(truth)}"/>'
        f'<path stroke="#0a84ff" d="{gallery.outline(answer)}"/></g>'
        f'<circle cx="{x + 0.5}" cy="{y + 0.5}" r="{2 * line:.2f}" fill="#fff" stroke="#000"/></svg>'
    )
    scores = ", ".join(f"{session.dice[k - 1]:.2f} at {k}" for k in (1, 3, 5) if k <= len(session.dice))
    return (
        f'<figure class="card shot" style="margin:0"><div class="frame">{svg}</div><figcaption class="text">'
        f'<div class="truth">{html.escape(table.label[session.row].replace("_", " "))}</div>'
        f'<div class="where">{html.escape(example.dataset)} · Dice {scores}</div></figcaption></figure>'
    )
