"""Finds text that is part of the pixels, such as a name that an ultrasound machine or a secretary wrote into the image.

Overlays are strokes of one brightness, thinner than anatomy, on a brighter or darker ground; their letters are about
equally high and stand in rows. That is all that is looked for: nothing is read, and no model is needed. The recall and
the false alarms are measured by `benchmarks/burned_in_text.py`. A flag is a reason to look; its absence is no proof.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from data.report import Report

VERSION = 1
STROKE = 7  # px: strokes are thinner
CONTRAST = 48  # of 255: what a stroke stands out by
HEIGHTS = (6, 64)  # px of a letter
LETTERS = 4  # in a row, at least
ONE_BRIGHTNESS = 0.55  # share of a letter's pixels that are as bright as its middle ones
TOLERANCE = 14  # of 255: counts as as bright
LARGEST = 1024  # px: larger images are looked at in steps


@dataclasses.dataclass(frozen=True)
class Glyph:
    """A piece that may be a letter: box and share of the box that it fills."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def height(self) -> int:
        return self.y1 - self.y0


def keeps(pixels: np.ndarray, policy: str, place: str, report: Report, stated: bool = False) -> bool:
    """Whether an image may go into the corpus. With the policies "flag" and "skip" text in it is reported, also where
    only the data say so (`stated`); "off" does not look for any."""
    if policy == "off" or not (stated or text_rows(pixels)):
        return True
    if policy == "flag":
        report.warn(place, "text may be burnt into the pixels: look at it, or leave such images out (burned_in=skip)")
        return True
    report.skip(
        place, "text in the pixels", "may name the patient: mask it and build again, or flag it (burned_in=flag)"
    )
    return False


def text_rows(pixels: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes (x0, y0, x1, y1) in pixels around rows of letters in an image uint8 [height, width] or [height, width, 3],
    bright on dark or dark on bright."""
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=-1)  # coloured text is bright in one channel
    step = max(1, -(-max(grey.shape) // LARGEST))
    small = grey[::step, ::step].astype(np.int16)
    found = []
    for bright in (small, 255 - small):
        for row in _rows(_glyphs(bright)):
            box = (min(g.x0 for g in row), min(g.y0 for g in row), max(g.x1 for g in row), max(g.y1 for g in row))
            found.append(tuple(side * step for side in box))
    return found


def _glyphs(image: np.ndarray) -> list[Glyph]:
    """Pieces of the size and evenness of letters among what is thin and bright."""
    ground = ndimage.grey_opening(image, (STROKE, STROKE))
    thin = image - ground > CONTRAST
    pieces, _ = ndimage.label(thin, np.ones((3, 3)))
    glyphs = []
    for number, where in enumerate(ndimage.find_objects(pieces), 1):
        rows, columns = where
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not HEIGHTS[0] <= height <= HEIGHTS[1] or width > 1.6 * height:
            continue
        inside = pieces[where] == number
        if not 0.12 <= inside.mean() <= 0.95 and width > 3:
            continue
        values = image[where][inside]
        level = np.percentile(values, 75)
        if (np.abs(values - level) <= TOLERANCE).mean() >= ONE_BRIGHTNESS:
            glyphs.append(Glyph(columns.start, rows.start, columns.stop, rows.stop))
    return glyphs


def _rows(glyphs: Sequence[Glyph]) -> list[list[Glyph]]:
    """Rows of glyphs of about one height on one line, next to each other from left to right."""
    rows: list[list[Glyph]] = []
    for glyph in sorted(glyphs, key=lambda g: (g.x0, g.y0)):
        for row in rows:
            last = row[-1]
            high = max(last.height, glyph.height)
            near = -0.3 * high <= glyph.x0 - last.x1 <= 1.2 * high
            level = abs(glyph.y1 - last.y1) <= 0.25 * high or abs(glyph.y0 - last.y0) <= 0.25 * high
            if near and level and min(last.height, glyph.height) >= 0.55 * high:
                row.append(glyph)
                break
        else:
            rows.append([glyph])
    return [row for row in rows if len(row) >= LETTERS]
