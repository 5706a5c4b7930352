"""The card's plots: bars and curves as SVG, inline for the page or as a file that brings its own colours."""

import html
import math
import re
from collections.abc import Mapping, Sequence

from medp_clip_jax.report import charts
from medp_clip_jax.report.style import CSS

ROW, BAR, NAME, VALUE = 22, 13, 176, 74  # px: height of a row and of its bar, room for names and for numbers
WIDTH = 560


def bars(items: Sequence[tuple[str, float]], label: str, form: str = ",.0f", colour: str = "mask") -> str:
    """Horizontal bars in the order given, each with its name and number."""
    most = max((value for _, value in items), default=0) or 1
    room = WIDTH - NAME - VALUE
    parts = []
    for row, (name, value) in enumerate(items):
        y = row * ROW + 4
        length = max(1.0, room * value / most) if value else 0.0
        parts.append(f'<text x="{NAME - 8}" y="{y + 11}" text-anchor="end">{_cut(name)}</text>')
        parts.append(
            f'<rect x="{NAME}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" style="fill:var(--{colour})">'
            f"<title>{html.escape(name)}: {value:{form}}</title></rect>"
        )
        parts.append(f'<text x="{NAME + length + 6:.1f}" y="{y + 11}">{value:{form}}</text>')
    return _svg(WIDTH, max(1, len(items)) * ROW + 6, parts, label)


def paired(items: Sequence[tuple[str, float, float]], names: tuple[str, str], label: str) -> str:
    """Two thin bars for each name, before above after, as shares in percent."""
    most = max((max(a, b) for _, a, b in items), default=0) or 1
    room, parts = WIDTH - NAME - VALUE, []
    for row, (name, *values) in enumerate(items):
        y = row * (ROW + 4) + 4
        parts.append(f'<text x="{NAME - 8}" y="{y + 14}" text-anchor="end">{_cut(name)}</text>')
        for line, (value, colour) in enumerate(zip(values, ("none", "mask"), strict=True)):
            length = max(1.0, room * value / most) if value else 0.0
            top = y + line * 10
            parts.append(
                f'<rect x="{NAME}" y="{top}" width="{length:.1f}" height="8" rx="2" style="fill:var(--{colour})">'
                f"<title>{html.escape(name)}, {names[line]}: {100 * value:.1f} %</title></rect>"
            )
            parts.append(
                f'<text x="{NAME + length + 5:.1f}" y="{top + 8}" style="font-size:9.5px">{100 * value:.1f}</text>'
            )
    bottom = len(items) * (ROW + 4) + 10
    for line, (name, colour) in enumerate(zip(names, ("none", "mask"), strict=True)):
        x = NAME + line * 190
        parts.append(f'<rect x="{x}" y="{bottom}" width="9" height="9" rx="2" style="fill:var(--{colour})"/>')
        parts.append(f'<text x="{x + 14}" y="{bottom + 9}">{html.escape(name)}</text>')
    return _svg(WIDTH, bottom + 16, parts, label)


def stacked(names: Sequence[str], rows: Mapping[str, Sequence[float]], label: str) -> str:
    """Shares of each row's sum as segments of one bar, in the order of `names`, with a legend below."""
    colours = ("mask", "box", "point", "none", "crop")
    room, parts = WIDTH - NAME - 20, []
    for row, (name, values) in enumerate(rows.items()):
        y, x, sum_of = row * ROW + 4, float(NAME), sum(values) or 1
        parts.append(f'<text x="{NAME - 8}" y="{y + 11}" text-anchor="end">{_cut(name)}</text>')
        for index, value in enumerate(values):
            length = room * value / sum_of
            if value:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{BAR}" '
                    f'style="fill:var(--{colours[index % 5]})"><title>{html.escape(name)}, '
                    f"{html.escape(names[index])}: "
                    f"{value:,.0f} ({100 * value / sum_of:.1f} %)</title></rect>"
                )
            x += length
    bottom, x = len(rows) * ROW + 12, float(NAME)
    for index, name in enumerate(names):
        parts.append(
            f'<rect x="{x:.0f}" y="{bottom}" width="9" height="9" rx="2" style="fill:var(--{colours[index % 5]})"/>'
        )
        parts.append(f'<text x="{x + 14:.0f}" y="{bottom + 9}">{html.escape(name)}</text>')
        x += 30 + 6.2 * len(name)
    return _svg(WIDTH, bottom + 16, parts, label)


def columns(names: Sequence[str], values: Sequence[float], label: str, colour: str = "mask") -> str:
    """Vertical bars over a row of names, every second name written."""
    width, height, left, bottom, top = charts.WIDTH, charts.HEIGHT, charts.LEFT, charts.BOTTOM, charts.TOP
    ticks = charts.nice_ticks(0, max(values, default=0) or 1)
    high, step = max(ticks[-1], max(values, default=0), 1e-9), (width - left - charts.RIGHT) / max(1, len(values))
    parts = []
    for tick in ticks:
        y = height - bottom - tick / high * (height - top - bottom)
        parts.append(f'<line class="axis" x1="{left}" x2="{width - charts.RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,.6g}</text>')
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        x, tall = left + index * step, value / high * (height - top - bottom)
        parts.append(
            f'<rect x="{x + 1.5:.1f}" y="{height - bottom - tall:.1f}" width="{step - 3:.1f}" height="{tall:.1f}" '
            'rx="2" '
            f'style="fill:var(--{colour})"><title>{html.escape(name)}: {value:,.0f}</title></rect>'
        )
        if index % 2 == 0:
            parts.append(
                f'<text x="{x + step / 2:.1f}" y="{height - 8}" text-anchor="middle" style="font-size:10px">'
                f"{html.escape(name)}</text>"
            )
    return _svg(width, height, parts, label)


def log_curve(values: Sequence[float], label: str) -> str:
    """Positive values by their rank from 1, both axes logarithmic."""
    width, height, left, bottom, top = charts.WIDTH, charts.HEIGHT, charts.LEFT, charts.BOTTOM, charts.TOP
    values = [value for value in values if value > 0] or [1]
    high, far = max(1, math.ceil(math.log10(max(values)))), max(math.log10(max(2, len(values))), 1e-9)

    def place(rank: float, value: float) -> tuple[float, float]:
        across = left + math.log10(rank) / far * (width - left - charts.RIGHT)
        return across, height - bottom - math.log10(value) / high * (height - top - bottom)

    parts = []
    for power in range(high + 1):
        _, y = place(1, 10**power)
        parts.append(f'<line class="axis" x1="{left}" x2="{width - charts.RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    ranks = [rank for power in range(7) for rank in (10**power, 3 * 10**power) if rank <= len(values)]
    for rank in ranks:
        parts.append(f'<text x="{place(rank, 1)[0]:.1f}" y="{height - 8}" text-anchor="middle">{rank:,}</text>')
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(rank, value) for rank, value in enumerate(values, 1)))
    parts.append(f'<polyline class="curve" points="{points}" style="stroke:var(--mask)"/>')
    return _svg(width, height, parts, label)


def standalone(svg: str) -> str:
    """An inline chart as a file of its own: the page's colours, light and dark, and its fonts go into it."""
    variables = re.findall(r":root \{.*?\n\}", CSS, re.DOTALL)
    rules = [line for line in CSS.splitlines() if line.startswith(("svg text", ".axis"))]
    dark = variables[1].replace(":root {", "svg {").removesuffix("}")
    light = variables[0].replace(":root {", "svg {")
    style = f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }} }}\n" + "\n".join(rules).replace(
        "svg text", "text"
    )
    background = '<rect width="100%" height="100%" rx="6" style="fill:var(--card)"/>'
    head, _, rest = svg.partition(">")
    sized = re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', r'viewBox="-12 -10 \1 \2"', head)
    box = re.search(r'viewBox="-12 -10 ([\d.]+) ([\d.]+)"', sized)
    assert box is not None
    wide, tall = float(box[1]) + 24, float(box[2]) + 20
    sized = sized.replace(box[0], f'viewBox="-12 -10 {wide:g} {tall:g}" width="{wide:g}" height="{tall:g}"')
    background = background.replace("<rect ", '<rect x="-12" y="-10" ')
    return f"{sized}><style>{style}</style>{background}{rest}\n"


def _cut(name: str, most: int = 27) -> str:
    return html.escape(name if len(name) <= most else name[: most - 1] + "…")


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
