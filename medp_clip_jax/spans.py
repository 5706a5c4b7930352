"""Masks as vertical spans, straight from their run lengths: what training asks of a mask needs no picture of it."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from medp_clip_jax.records import mask_runs


@dataclasses.dataclass(frozen=True)
class Spans:
    """A mask as spans of rows [low, high) in columns of the image, int64 [spans] each, in the order of the columns and
    of the rows in them; spans are neither empty nor overlapping.
    """

    column: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.high.sum() - self.low.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box (x0, y0, x1, y1), half-open; zeros of an empty mask."""
        if not self.column.size:
            return 0, 0, 0, 0
        return int(self.column[0]), int(self.low.min()), int(self.column[-1]) + 1, int(self.high.max())


def read(rles: Sequence[bytes], height: int, width: int) -> list[Spans]:
    """The spans of several masks as COCO compressed RLE counts, which costs little more than those of one; InputError
    if any does not fill exactly that size.
    """
    if not rles:
        return []
    runs, count = mask_runs(rles, height, width)
    first = np.cumsum(count) - count
    ends = np.cumsum(runs)
    inside = ((np.arange(runs.size) - np.repeat(first, count)) % 2 == 1) & (runs > 0)
    mask = np.repeat(np.arange(len(rles)), count)[inside]
    stops = ends[inside] - mask * (height * width)
    starts = stops - runs[inside]
    column = starts // height
    columns = (stops - 1) // height - column + 1  # columns that a run goes through
    if (columns > 1).any():  # from the bottom of a column to the top of the next
        turn = np.arange(columns.sum()) - np.repeat(np.cumsum(columns) - columns, columns)
        mask, starts, stops = (np.repeat(each, columns) for each in (mask, starts, stops))
        column = np.repeat(column, columns) + turn
    origin = column * height
    low, high = np.maximum(starts - origin, 0), np.minimum(stops - origin, height)
    bounds = np.searchsorted(mask, np.arange(len(rles) + 1)).tolist()
    return [Spans(column[i:j], low[i:j], high[i:j]) for i, j in itertools.pairwise(bounds)]


def within(spans: Spans, view: Sequence[int]) -> Spans:
    """The part of a mask in a view (x0, y0, x1, y1) of whole pixels."""
    first, last = np.searchsorted(spans.column, (view[0], view[2]))
    low, high = np.maximum(spans.low[first:last], view[1]), np.minimum(spans.high[first:last], view[3])
    kept = low < high
    return Spans(spans.column[first:last][kept], low[kept], high[kept])


def contains(spans: Spans, x: float, y: float) -> bool:
    """Whether the pixel around a point (x, y) belongs to the mask."""
    first, last = np.searchsorted(spans.column, (int(x), int(x) + 1))
    row = int(y)
    return bool(((spans.low[first:last] <= row) & (row < spans.high[first:last])).any())


def picture(spans: Spans, box: Sequence[int], step: int = 1) -> np.ndarray:
    """Every `step`-th row and column of the part of a mask in a box (x0, y0, x1, y1), bool [rows, columns]."""
    x0, y0, x1, y1 = box
    spans = within(spans, box)
    column, low, high = spans.column - x0, -((y0 - spans.low) // step), -((y0 - spans.high) // step)
    kept = low < high
    if step > 1:
        kept &= column % step == 0
    column, low, high = column[kept] // step, low[kept], high[kept]
    # a span adds one where it begins and takes it away where it ends; none of either share a place
    change = np.zeros((-((x0 - x1) // step), -((y0 - y1) // step) + 1), np.int8)
    change[column, low] += 1
    change[column, high] -= 1
    return np.ascontiguousarray(np.cumsum(change, 1, dtype=np.int8)[:, :-1].T).view(bool)


def pixel(spans: Spans, number: int) -> tuple[int, int]:
    """The pixel (x, y) with a number in [0, area), counted down the columns."""
    ends = np.cumsum(spans.high - spans.low)
    index = int(np.searchsorted(ends, number, side="right"))
    return int(spans.column[index]), int(spans.high[index] - ends[index] + number)


def area_map(spans: Spans, view: Sequence[float], size: int) -> np.ndarray:
    """Share of each of size x size cells of the view that a mask covers, uint8 [size, size]: exact area fraction * 255,
    rounded.

    A cell that holds any part of the mask is at least 1, so that a tiny lesion is never lost.
    """
    x0, y0, x1, y1 = view
    steps = np.arange(size + 1) / size
    rows = y0 + (y1 - y0) * steps
    # Rows of cells that the mask does not reach stay 0.
    top, bottom = (spans.low.min(), spans.high.max()) if spans.low.size else (y0, y0)
    first = max(int(np.searchsorted(rows, top, side="right")) - 1, 0)
    last = min(int(np.searchsorted(rows, bottom)), size)
    # Pixels left of and above every corner of the cells, as in a summed-area table, but of the corners alone.
    above = rows[first : last + 1] - spans.low[:, None]
    np.maximum(above, 0, out=above)
    np.minimum(above, (spans.high - spans.low)[:, None], out=above)
    summed = np.zeros((len(above) + 1, above.shape[1]))
    np.cumsum(above, 0, out=summed[1:])
    edges = x0 + (x1 - x0) * steps
    whole = np.floor(edges)
    part = (edges - whole)[:, None]
    left, right = np.searchsorted(spans.column, (whole, whole + 1))
    corners = summed[left] * (1 - part) + summed[right] * part
    cells = corners[1:] - corners[:-1]
    share = (cells[:, 1:] - cells[:, :-1]).T * (255 * size**2 / ((x1 - x0) * (y1 - y0)))
    # The threshold only swallows rounding errors of the cell edges: a real overlap is orders of magnitude larger.
    cover = np.zeros((size, size), np.uint8)
    cover[first:last] = np.where(share > 1e-4, np.clip(np.rint(share), 1, 255), 0)
    return cover
