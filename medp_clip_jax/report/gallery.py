"""Pictures of the report: an image, the region that was asked about, and the five best labels with their scores."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from medp_clip_jax.evaluators.region_recognition import Predictions, Regions
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import decode_image, decode_mask

SIDE = 400  # of an embedded picture, in px
INSET = 168
SMALL = 0.22  # regions shorter than this share of the image get a magnified view


def choose(predictions: Predictions, regions: Regions, number: int, seed: int) -> list[int]:
    """About half right and half wrong answers, int rows: of different images and, where possible, labels.

    Data sets take turns; the same seed chooses the same.
    """
    order = np.random.default_rng(seed).permutation(len(regions.target))
    right = predictions.values["micro"] > 0
    chosen: list[int] = []
    images: set[int] = set()
    labels: set[int] = set()
    for wanted, most in ((True, (number + 1) // 2), (False, number // 2)):
        queues: dict[str, list[int]] = {}
        for row in order[right[order] == wanted]:
            queues.setdefault(regions.dataset[row], []).append(int(row))
        left = most
        while left and queues:
            for name in list(queues):
                free = [row for row in queues[name] if regions.image[row] not in images]
                if not free:
                    del queues[name]
                elif left:
                    row = next((row for row in free if regions.target[row] not in labels), free[0])
                    images.add(int(regions.image[row]))
                    labels.add(int(regions.target[row]))
                    chosen.append(row)
                    left -= 1
    return chosen


def pictures(
    corpus, table, predictions: Predictions, regions: Regions, ontology: Ontology, kind: str, rows: Sequence[int]
) -> str:
    """HTML cards for the regions `rows` of an `EvalTable`, answered by `predictions` of the prompt `kind`."""
    readers = {name: corpus.source(name, table.split) for name, _ in table.records}
    return "".join(_card(readers, table, predictions, regions, ontology, kind, row) for row in rows)


def _card(readers, table, predictions, regions, ontology: Ontology, kind: str, row: int) -> str:
    source, record = table.records[table.image_index[row]]
    example = readers[source][record]
    region = example.regions[table.region_index[row]]
    pixels = decode_image(example.image)
    height, width = pixels.shape[:2]
    mask = decode_mask(region.rle, height, width) if region.rle else None
    truth, right = regions.target[row], bool(predictions.values["micro"][row])
    answers = "".join(
        _answer(ontology[regions.ids[label]].name, score, label == truth)
        for label, score in zip(predictions.top[row], predictions.score[row], strict=True)
    )
    where = " · ".join(filter(None, (example.dataset, example.modality, f"asked by {kind}")))
    name = html.escape(ontology[regions.ids[truth]].name)
    badge = '<span class="badge yes">✓ right</span>' if right else '<span class="badge no">✗ wrong</span>'
    picture = _frame(pixels, region.box, mask, f"{example.dataset} {example.image_id}: {name}")
    return (
        f'<figure class="card shot" style="margin:0"><div class="frame">{picture}{badge}</div>'
        f'<figcaption class="text"><div class="truth">{name}</div><div class="where">{html.escape(where)}</div>'
        f"{answers}</figcaption></figure>"
    )


def _answer(name: str, score: float, true: bool) -> str:
    width = 100 * min(1.0, max(0.0, float(score)))
    mark = " true" if true else ""
    return (
        f'<div class="answer{mark}"><span title="{html.escape(name)}">{html.escape(name)}</span>'
        f'<span>{f"{score:.2f}".replace("-", "−")}</span><i style="width:{width:.0f}%"></i></div>'
    )


def _frame(pixels: np.ndarray, box: Sequence[float], mask: np.ndarray | None, about: str) -> str:
    """The picture with mask outline and box drawn as vectors over it, and a magnified view of a small region."""
    height, width = pixels.shape[:2]
    side, x0, y0, x1, y1 = max(width, height), *box
    line = side / 260
    shapes = [
        f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}" stroke-dasharray="{3 * line} {2 * line}"/>'
    ]
    if mask is not None:
        shapes.append(f'<path d="{outline(mask)}"/>')
    drawing = "".join(shapes)
    # Dark below, bright above: visible on any image.
    svg = (
        f'<svg viewBox="{(width - side) / 2} {(height - side) / 2} {side} {side}" role="img" '
        f'aria-label="{html.escape(about, quote=True)}"><image href="{data_uri(pixels, SIDE)}" width="{width}" '
        f'height="{height}"/>'
        f'<g fill="none" stroke="#000" stroke-opacity=".55" stroke-width="{2.2 * line:.2f}">{drawing}</g>'
        f'<g fill="none" stroke="#ffd60a" stroke-width="{line:.2f}">{drawing}</g></svg>'
    )
    if max(x1 - x0, y1 - y0) >= SMALL * side:
        return svg
    away = "left" if (x0 + x1) / 2 > width / 2 else "right"  # the inset must not cover the region
    source = data_uri(_around(pixels, box), INSET)
    return f'{svg}<div class="inset" style="{away}:8px"><img alt="the region, magnified" src="{source}"></div>'


def _around(pixels: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """A square of twice the region's longer side around it, as far as the image goes."""
    half = max(box[2] - box[0], box[3] - box[1], 8)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x0, y0 = max(0, int(x - half)), max(0, int(y - half))
    return pixels[y0 : int(np.ceil(y + half)), x0 : int(np.ceil(x + half))]


def outline(mask: np.ndarray) -> str:
    """The border of a mask bool [height, width] as an SVG path along pixel edges."""
    padded = np.pad(mask.astype(np.int8), 1)
    parts = []
    for edges, horizontal in ((np.diff(padded, axis=0)[:, 1:-1], True), (np.diff(padded, axis=1)[1:-1].T, False)):
        for line, row in enumerate(edges != 0):
            ends = np.flatnonzero(np.diff(np.pad(row.astype(np.int8), 1)))
            for start, stop in zip(ends[::2], ends[1::2], strict=True):
                parts.append(f"M{start} {line}h{stop - start}" if horizontal else f"M{line} {start}v{stop - start}")
    return "".join(parts)


def data_uri(pixels: np.ndarray, side: int) -> str:
    """A picture uint8 [height, width, 3] as an embedded JPEG of at most `side` px (small ones are enlarged)."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(image.size)
    if scale < 1 or max(image.size) < side / 2:
        size = tuple(max(1, round(edge * scale)) for edge in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=84, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
