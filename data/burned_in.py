"""Finds text that is part of the pixels, such as a name that an ultrasound machine or a secretary wrote into the image.

A line of text is a row of strokes that are thinner than anatomy, stand out of their ground, share one brightness and
follow each other closely. That is all that is looked for: nothing is read, and no model is needed. The recall and the
false alarms are measured by `benchmarks/burned_in_text.py`. A flag is a reason to look; its absence is no proof.
"""

import numpy as np

from data.report import Report
from medp_clip_jax.volumes import optional

VERSION = 1
STROKE = 7  # px: strokes are thinner
THIN = 40  # of 255: what a pixel of a stroke stands out by, at least
CONTRAST = 75  # of 255: what half of them stand out by
GAPS = (5, 11)  # px between the letters of a line, in small and in large print
HEIGHTS = (6, 48)  # px of a line
LONG = 3.0  # lengths of a line, in heights
FILLED = (0.12, 0.7)  # share of its box that strokes fill
ONE_BRIGHTNESS = 0.5  # share of its columns whose brightest pixel is within
TOLERANCE = 18  # of 255 of the brightness of the ink
STROKES = 1.0  # crossed by a row of pixels per length of one height
LARGEST = 1024  # px: larger images are looked at in steps

Box = tuple[int, int, int, int]


def keeps(pixels: np.ndarray, policy: str, place: str, report: Report, stated: bool = False) -> bool:
    """Whether an image may go into the corpus. With the policies "flag" and "skip" text in it is reported, also where
    only the data say so (`stated`); "off" does not look for any."""
    if policy == "off" or not (stated or text_lines(pixels)):
        return True
    if policy == "flag":
        report.warn(place, "text may be burnt into the pixels: look at it, or leave such images out (burned_in=skip)")
        return True
    report.skip(
        place, "text in the pixels", "may name the patient: mask it and build again, or flag it (burned_in=flag)"
    )
    return False


def text_lines(pixels: np.ndarray) -> list[Box]:
    """Boxes (x0, y0, x1, y1) in pixels around what may be lines of text in an image uint8 [height, width] or [height,
    width, 3], bright on dark or dark on bright."""
    cv2 = optional("cv2", "finding burnt-in text", "corpora")
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=-1)  # coloured text is bright in one channel
    step = max(1, -(-max(grey.shape) // LARGEST))
    small = np.ascontiguousarray(grey[::step, ::step])
    found: dict[Box, None] = {}
    for image in (small, 255 - small):
        raised = cv2.subtract(image, cv2.morphologyEx(image, cv2.MORPH_OPEN, np.ones((STROKE, STROKE), np.uint8)))
        thin = (raised > THIN).astype(np.uint8)
        for gap in GAPS:
            joined = cv2.morphologyEx(thin, cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))
            _, pieces, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
            x, y, width, height = boxes[:, :4].T
            fitting = (height >= HEIGHTS[0]) & (height <= HEIGHTS[1]) & (width >= LONG * height)
            for number in np.flatnonzero(fitting):
                x0, y0, x1, y1 = x[number], y[number], x[number] + width[number], y[number] + height[number]
                where = slice(y0, y1), slice(x0, x1)
                strokes = (pieces[where] == number) & (thin[where] > 0)
                if number and _is_line(strokes, image[where], raised[where]):
                    found[int(x0) * step, int(y0) * step, int(x1) * step, int(y1) * step] = None
    return list(found)


def _is_line(strokes: np.ndarray, image: np.ndarray, raised: np.ndarray) -> bool:
    """Whether strokes bool [height, width], of an image and of what stands out in it, are those of a line of text."""
    height, width = strokes.shape
    if not FILLED[0] <= strokes.mean() <= FILLED[1] or np.median(raised[strokes]) < CONTRAST:
        return False
    brightest = np.where(strokes, image, 0).max(axis=0)[strokes.any(axis=0)].astype(int)
    if (np.abs(brightest - np.percentile(brightest, 75)) <= TOLERANCE).mean() < ONE_BRIGHTNESS:
        return False
    begins = np.diff(np.pad(strokes, ((0, 0), (1, 0))).astype(np.int8), axis=1) == 1
    middle = slice(height // 4, max(height // 4 + 1, 3 * height // 4))
    return bool(np.median(begins.sum(axis=1)[middle]) >= STROKES * width / height)
