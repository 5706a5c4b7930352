"""A card as HTML and as Markdown: the same sections, tables and charts, written twice."""

import dataclasses
import html
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from data import card_charts
from medp_clip_jax.report.style import CSS

MOST_BARS = 24
NOTICE = "A research data set, not for diagnosis or treatment."


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `**bold**`, `` `code` `` and `[name](address)` as in Markdown."""

    words: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of plain text under a head; numbers are right-aligned, `folded` behind a line in the page."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""


@dataclasses.dataclass(frozen=True)
class Chart:
    """An SVG of `card_charts` with the name of its file and what it shows."""

    name: str
    about: str
    svg: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Text | Table | Chart]


def bar_chart(name: str, about: str, items: Sequence[tuple[str, float]]) -> Chart:
    """Bars of the first `MOST_BARS` items in their order, the others in one."""
    shown = list(items[:MOST_BARS])
    if len(items) > MOST_BARS:
        shown.append((f"{len(items) - MOST_BARS} others", sum(value for _, value in items[MOST_BARS:])))
    return Chart(name, about, card_charts.bars(shown, about))


def as_markdown(title: str, facts: Sequence[str], sections: Iterable[Section], images: str) -> str:
    """The card as Markdown; charts are links to `images`/<name>.svg."""
    lines = [f"# {title}", "", " · ".join(facts), "", f"*{NOTICE}*", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            if isinstance(block, Text):
                lines += [block.words, ""]
            elif isinstance(block, Chart):
                lines += [f"![{block.about}]({images}/{block.name}.svg)", ""]
            elif block.rows:
                right = [_numeric(row[i] for row in block.rows) for i in range(len(block.head))]
                lines += [f"**{block.folded}**", ""] if block.folded else []
                lines.append(f"| {' | '.join(block.head)} |")
                lines.append("|" + "|".join("---:" if number else "---" for number in right) + "|")
                lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in block.rows]
                lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def as_html(title: str, facts: Sequence[str], sections: Sequence[Section], pictures: str = "") -> str:
    """The card as one page without network or script; `pictures` is HTML that is put before the end."""
    body, links = [], []
    for section in sections:
        anchor = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        links.append(f'<a href="#{anchor}">{html.escape(section.title)}</a>')
        blocks = "".join(_together(section.blocks))
        body.append(f'<section id="{anchor}"><h2>{html.escape(section.title)}</h2>{blocks}</section>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}{_MORE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1><div "
        f'class="meta">{"".join(f"<span>{html.escape(f)}</span>" for f in facts)}</div>'
        f'<p class="note">{NOTICE}</p><nav>{"".join(links)}</nav>{"".join(body)}{pictures}'
        f"<footer>{NOTICE}</footer></main></body></html>\n"
    )


_MORE = """
td.text, th.text { text-align: left; white-space: normal; min-width: 120px; } td { vertical-align: top; }
.plot { max-width: 640px; margin: 0; } .plot p { font-size: 13px; margin: 8px 0 0; } .plot svg { width: 100%; }
.card { margin: 10px 0; } code { font-size: 13px; } section > p { max-width: 92ch; }
.sheets { grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); } .sheets img { width: 100%; }
"""


def _together(blocks: Sequence[Text | Table | Chart]) -> Iterator[str]:
    """The blocks as HTML, neighbouring charts side by side where there is room."""
    for chart, group in itertools.groupby(blocks, lambda block: isinstance(block, Chart)):
        made = "".join(_block(block) for block in group)
        yield f'<div class="grid two">{made}</div>' if chart else made


def _block(block: Text | Table | Chart) -> str:
    if isinstance(block, Text):
        return f"<p>{_inline(block.words)}</p>"
    if isinstance(block, Chart):
        return f'<div class="card plot">{block.svg}<p>{html.escape(block.about)}</p></div>'
    if not block.rows:
        return ""
    right = [_numeric(row[i] for row in block.rows) for i in range(len(block.head))]
    marks = ["" if number else ' class="text"' for number in right]
    head = "".join(f"<th{mark}>{html.escape(name)}</th>" for name, mark in zip(block.head, marks, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{mark}>{_inline(cell)}</td>' for cell, mark in zip(row, marks, strict=True))}</tr>"
        for row in block.rows
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    if block.folded:
        table = f"<details><summary>{html.escape(block.folded)}</summary>{table}</details>"
    return f'<div class="card">{table}</div>'


def _inline(words: str) -> str:
    text = html.escape(words, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    return re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>', text)


def _numeric(cells: Iterable[str]) -> bool:
    """Whether a column holds numbers (or nothing), which stand on the right."""
    found = [cell for cell in cells if cell.strip()]
    return bool(found) and all(re.fullmatch(r"[-–−+]?[\d,.]*\s?%?|–", cell) for cell in found)


def files(sections: Iterable[Section]) -> dict[str, str]:
    """Every chart as a file of its own: name -> SVG."""
    blocks = (block for section in sections for block in section.blocks)
    return {block.name: card_charts.standalone(block.svg) for block in blocks if isinstance(block, Chart)}
