"""Masks as vertical spans, straight from their run lengths: what training asks of a mask needs no picture of it.

Loops over spans are compiled by numba on first use, and kept beside this file or, where that is not writable, in the
user's cache.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numba
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

    @functools.cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return _size(self.low, self.high)[0]

    @functools.cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box (x0, y0, x1, y1), half-open; zeros of an empty mask."""
        if not self.column.size:
            return 0, 0, 0, 0
        _, top, bottom = _size(self.low, self.high)
        return int(self.column[0]), top, int(self.column[-1]) + 1, bottom


@numba.njit(cache=True)
def _size(low: np.ndarray, high: np.ndarray) -> tuple[int, int, int]:
    """Pixels of spans, their first row and that after their last."""
    area, top, bottom = 0, np.iinfo(np.int64).max, 0
    for i in range(low.size):
        area += high[i] - low[i]
        top, bottom = min(top, low[i]), max(bottom, high[i])
    return area, top, bottom


def read(rles: Sequence[bytes], height: int, width: int) -> list[Spans]:
    """The spans of several masks as COCO compressed RLE counts, which costs little more than those of one; InputError
    if any does not fill exactly that size.
    """
    if not rles:
        return []
    column, low, high, ends = _read(*mask_runs(rles, height, width), height)
    return [Spans(column[i:j], low[i:j], high[i:j]) for i, j in itertools.pairwise((0, *ends.tolist()))]


@numba.njit(cache=True)
def _read(runs: np.ndarray, count: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Column, low and high of the spans of all masks, and where those of each mask end."""
    most = runs.size
    for run in runs:
        most += run // height + 1
    column, low, high = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    ends = np.empty(count.size, np.int64)
    total, run = 0, 0
    for mask in range(count.size):
        place = 0
        for number in range(count[mask]):
            stop = place + runs[run]
            while number % 2 == 1 and place < stop:  # from the bottom of a column to the top of the next
                x = place // height
                edge = min(stop, (x + 1) * height)
                column[total], low[total], high[total] = x, place - x * height, edge - x * height
                total += 1
                place = edge
            place = stop
            run += 1
        ends[mask] = total
    return column[:total], low[:total], high[:total], ends


def within(spans: Spans, view: Sequence[int]) -> Spans:
    """The part of a mask in a view (x0, y0, x1, y1) of whole pixels."""
    return Spans(*_within(spans.column, spans.low, spans.high, *view))


@numba.njit(cache=True)
def _within(
    column: np.ndarray, low: np.ndarray, high: np.ndarray, x0: int, y0: int, x1: int, y1: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, last = np.searchsorted(column, x0), np.searchsorted(column, x1)
    low, high = np.maximum(low[first:last], y0), np.minimum(high[first:last], y1)
    kept = low < high
    return column[first:last][kept], low[kept], high[kept]


def contains(spans: Spans, x: float, y: float) -> bool:
    """Whether the pixel around a point (x, y) belongs to the mask."""
    return _contains(spans.column, spans.low, spans.high, int(x), int(y))


@numba.njit(cache=True)
def _contains(column: np.ndarray, low: np.ndarray, high: np.ndarray, x: int, y: int) -> bool:
    i = np.searchsorted(column, x)
    while i < column.size and column[i] == x and high[i] <= y:
        i += 1
    return i < column.size and column[i] == x and low[i] <= y


def picture(spans: Spans, box: Sequence[int], step: int = 1) -> np.ndarray:
    """Every `step`-th row and column of the part of a mask in a box (x0, y0, x1, y1), bool [rows, columns]."""
    return _picture(spans.column, spans.low, spans.high, *box, step)


@numba.njit(cache=True)
def _picture(
    column: np.ndarray, low: np.ndarray, high: np.ndarray, x0: int, y0: int, x1: int, y1: int, step: int
) -> np.ndarray:
    drawn = np.zeros((-((y0 - y1) // step), -((x0 - x1) // step)), np.bool_)
    for i in range(np.searchsorted(column, x0), np.searchsorted(column, x1)):
        if (column[i] - x0) % step == 0:
            top, bottom = max(low[i] - y0, 0), min(high[i], y1) - y0
            for row in range(-(-top // step), -(-bottom // step)):
                drawn[row, (column[i] - x0) // step] = True
    return drawn


def pixel(spans: Spans, number: int) -> tuple[int, int]:
    """The pixel (x, y) with a number in [0, area), counted down the columns."""
    return _pixel(spans.column, spans.low, spans.high, number)


@numba.njit(cache=True)
def _pixel(column: np.ndarray, low: np.ndarray, high: np.ndarray, number: int) -> tuple[int, int]:
    i = 0
    while number >= high[i] - low[i]:
        number -= high[i] - low[i]
        i += 1
    return column[i], low[i] + number


def area_map(spans: Spans, view: Sequence[float], size: int) -> np.ndarray:
    """Share of each of size x size cells of the view that a mask covers, uint8 [size, size]: exact area fraction * 255,
    rounded.

    A cell that holds any part of the mask is at least 1, so that a tiny lesion is never lost.
    """
    x0, y0, x1, y1 = (float(edge) for edge in view)
    return _area_map(spans.column, spans.low, spans.high, x0, y0, size / (x1 - x0), size / (y1 - y0), size)


@numba.njit(cache=True)
def _area_map(
    column: np.ndarray, low: np.ndarray, high: np.ndarray, x0: float, y0: float, wide: float, tall: float, size: int
) -> np.ndarray:
    """As `area_map`, where a pixel is `wide` x `tall` cells large."""
    share = np.zeros((size, size))
    for i in range(column.size):
        left, right = (column[i] - x0) * wide, (column[i] + 1 - x0) * wide
        top, bottom = (low[i] - y0) * tall, (high[i] - y0) * tall
        for row in range(max(math.floor(top), 0), min(math.ceil(bottom), size)):
            part = 255 * (min(bottom, row + 1) - max(top, row))
            for cell in range(max(math.floor(left), 0), min(math.ceil(right), size)):
                share[row, cell] += part * (min(right, cell + 1) - max(left, cell))
    cover = np.zeros((size, size), np.uint8)
    for row in range(size):
        for cell in range(size):
            # The threshold only swallows rounding errors of edges: real overlaps are orders of magnitude larger.
            if share[row, cell] > 1e-4:
                cover[row, cell] = min(max(round(share[row, cell]), 1), 255)
    return cover
