"""Contours as masks, by the centres of pixels.

A pixel belongs to a mask if its centre lies inside the contours by the even-odd rule, so that a contour within another
is a hole, or on a contour. Libraries decide pixels on a contour one way or the other (scikit-image), or dilate by what
the line touches (OpenCV, Pillow); then a mask written as contours through the centres of its border pixels, or around
its pixels, does not come back as itself.
"""

from collections.abc import Sequence

import numpy as np

ON_LINE = 0.01  # px from a contour that counts as on it: contours are written in rounded millimetres


def fill(contours: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The mask bool [height, width] of closed contours [points, (x, y)], x and y in pixels, centres at whole
    numbers."""
    mask = np.zeros((height, width), bool)
    edges = [np.stack([points, np.roll(points, -1, axis=0)], axis=1) for points in contours if len(points) > 0]
    if not edges:
        return mask
    start, end = np.concatenate(edges).transpose(1, 0, 2)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    rise = end[:, 1] - start[:, 1]
    slope = (end[:, 0] - start[:, 0]) / np.where(rise == 0, 1, rise)
    first = max(0, int(np.ceil(low.min() - ON_LINE)))
    last = min(height - 1, int(np.floor(high.max() + ON_LINE)))
    for row in range(first, last + 1):
        crossed = (low <= row) & (row < high)
        at = np.sort(start[crossed, 0] + (row - start[crossed, 1]) * slope[crossed])
        for left, right in at.reshape(-1, 2):
            _paint(mask[row], left, right)
        # Pixels on a line: where it passes the row (also at a peak, which crosses nothing), and along level lines.
        near = (low - ON_LINE <= row) & (row <= high + ON_LINE)
        level = near & (np.abs(rise) <= ON_LINE)
        for left, right in zip(start[level, 0], end[level, 0], strict=True):
            _paint(mask[row], min(left, right), max(left, right))
        steep = near & ~level
        y = np.clip(row, low[steep], high[steep])
        at = start[steep, 0] + (y - start[steep, 1]) * slope[steep]
        on = at[np.abs(at - np.rint(at)) <= ON_LINE]
        columns = np.rint(on).astype(int)
        mask[row, columns[(columns >= 0) & (columns < width)]] = True
    return mask


def _paint(row: np.ndarray, left: float, right: float) -> None:
    low, high = max(0, int(np.ceil(left - ON_LINE))), min(len(row) - 1, int(np.floor(right + ON_LINE)))
    if low <= high:
        row[low : high + 1] = True
