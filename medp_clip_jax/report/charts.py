"""Charts as inline SVG that takes its colours from the page, so that they follow light and dark."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from medp_clip_jax import prompt_kinds

KINDS = (*prompt_kinds.EXACT, "none", "crop", prompt_kinds.SEGMENTED, *prompt_kinds.SHOWN[1:])
COLOURS = {name: f"var(--{name})" for name in KINDS}
CYCLE = tuple(COLOURS.values())
WIDTH, HEIGHT = 520, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 26


def colour(name: str, index: int = 0) -> str:
    """The colour of a prompt kind, of other series by their number."""
    return COLOURS.get(name, CYCLE[index % len(CYCLE)])


def legend(names: Sequence[str]) -> str:
    """Names with their colours as a row of HTML."""
    items = (
        f'<span><i class="dot" style="background:{colour(n, i)}"></i>{html.escape(n)}</span>'
        for i, n in enumerate(names)
    )
    return f'<div class="legend">{"".join(items)}</div>'


def lines(series: Mapping[str, Sequence[tuple[float, float]]], percent: bool = False, label: str = "") -> str:
    """Curves of (x, y) points over a common x axis; y from 0 to 1 where they are shares, else to fit."""
    points = [point for curve in series.values() for point in curve]
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = (0.0, 1.0) if percent else (min(y for _, y in points), max(y for _, y in points))
    if not percent:
        y_low = min(0.0, y_low)
    ticks_y, ticks_x = nice_ticks(y_low, y_high), nice_ticks(x_low, x_high)
    y_high = max(y_high, ticks_y[-1])
    x_high = x_high if x_high > x_low else x_low + 1
    y_high = y_high if y_high > y_low else y_low + 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks_y:
        _, y = place(x_low, tick)
        name = f"{100 * tick:.0f}" if percent else f"{tick:.6g}"
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
    for tick in ticks_x:
        if x_low <= tick <= x_high:
            x, _ = place(tick, y_low)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:,.6g}</text>')
    for index, (name, curve) in enumerate(series.items()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve))
        parts.append(f'<polyline class="curve" points="{path}" style="stroke:{colour(name, index)}"/>')
        if len(curve) == 1:
            x, y = place(*curve[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{colour(name, index)}"/>')
    return _svg(WIDTH, HEIGHT, parts, label)


def histograms(items: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> str:
    """Outlines of histograms (`count` [bins], `edges` [bins + 1]) as shares of their sum, over one x axis."""
    series = {}
    for name, item in items.items():
        share = np.asarray(item["count"], float) / max(1, sum(item["count"]))
        steps = np.repeat(np.asarray(item["edges"], float), 2)[1:-1]
        series[name] = list(zip(steps.tolist(), np.repeat(share, 2).tolist(), strict=True))
    return lines(series, label=label)


def dots(rows: Mapping[str, Sequence[float]], label: str, percent: bool = True) -> str:
    """A row of dots per name, such as the seeds of a setting, on one axis, in percent where they are shares; a line at
    their mean."""
    values = [value for row in rows.values() for value in row]
    if not values:
        return ""
    ticks = nice_ticks(min(values), max(values))
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))
    high = high if high > low else low + 0.01
    side = 16 + 5.9 * min(24, max(map(len, rows)))
    height = 22 * len(rows) + BOTTOM

    def across(value: float) -> float:
        return side + (value - low) / (high - low) * (WIDTH - side - RIGHT)

    parts = []
    for tick in ticks:
        name = f"{100 * tick if percent else tick:.4g}"
        parts.append(
            f'<line class="axis" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="0" y2="{height - BOTTOM}"/>'
        )
        parts.append(f'<text x="{across(tick):.1f}" y="{height - 8}" text-anchor="middle">{name}</text>')
    for place, (name, row) in enumerate(rows.items()):
        y = 22 * place + 11
        parts.append(f'<text x="{side - 8}" y="{y + 4}" text-anchor="end">{_short(name)}</text>')
        parts += [f'<circle cx="{across(v):.1f}" cy="{y}" r="3.5" style="fill:{CYCLE[0]};opacity:.7"/>' for v in row]
        if row:
            x = across(float(np.mean(row)))
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{y + 8}" style="stroke:{CYCLE[0]}"/>')
    return _svg(WIDTH, height, parts, label)


def confusion(counts: np.ndarray, names: Sequence[str], columns: Sequence[str]) -> str:
    """A heat map of row shares: counts [rows, columns], true labels down the side, answers across."""
    cell = 27
    longest = min(24, max(map(len, [*names, *columns])))
    side = 16 + 5.9 * longest  # room for the names at 11 px
    top = 14 + 4.9 * longest
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = []
    for row, name in enumerate(names):
        y = top + row * cell
        parts.append(f'<text x="{side - 8}" y="{y + cell / 2 + 4}" text-anchor="end">{_short(name)}</text>')
        for column, answer in enumerate(columns):
            value, x = share[row, column], side + column * cell
            about = f"{name} → {answer}: {int(counts[row, column])} of {int(counts[row].sum())}"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="3" '
                f'style="fill:rgba(var(--heat),{0.05 + 0.95 * value:.3f})"><title>{html.escape(about)}</title></rect>'
            )
            if value >= 0.095:
                shade = "#fff" if value > 0.5 else "var(--ink)"
                parts.append(
                    f'<text x="{x + cell / 2 - 1}" y="{y + cell / 2 + 3}" text-anchor="middle" '
                    f'style="font-size:9.5px;fill:{shade};pointer-events:none">{100 * value:.0f}</text>'
                )
    for column, answer in enumerate(columns):
        x = side + column * cell + cell / 2 + 3
        parts.append(f'<text transform="translate({x:.1f},{top - 7:.1f}) rotate(-52)">{_short(answer)}</text>')
    width = side + len(columns) * cell + 3.6 * longest + 8
    svg = _svg(width, top + len(names) * cell + 4, parts, "Confusion matrix")
    return svg.replace("<svg ", f'<svg style="min-width:{round(0.8 * width)}px;width:{round(width)}px" ', 1)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high], about `count` of them."""
    raw = (high - low) / count
    if not math.isfinite(raw) or raw < 1e-300:  # too small a step has no logarithm, or no inverse
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    return [round(k * step, 10) for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _short(name: str, most: int = 24) -> str:
    return html.escape(name if len(name) <= most else name[: most - 1] + "…")


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
