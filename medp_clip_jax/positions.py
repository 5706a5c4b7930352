"""Where a box lies, in words: always a place in the image, never a side of the patient.

In the radiological convention the patient's left is on the right of the image, in others it is not, so that sides in
the two senses must not be mixed: a phrase made here says `of the image`, and labels alone name sides of the patient.
"""

from collections.abc import Sequence

_WIDE = 0.75  # a box that is longer than this share of the image lies on no side of it
_ROUNDING = 1e-9  # what lies on a border of the ninths is in the middle, mirrored or not
_PHRASES = {
    ("left", "upper"): "in the upper left of the image",
    ("center", "upper"): "at the top of the image",
    ("right", "upper"): "in the upper right of the image",
    ("left", "middle"): "on the left of the image",
    ("center", "middle"): "in the center of the image",
    ("right", "middle"): "on the right of the image",
    ("left", "lower"): "in the lower left of the image",
    ("center", "lower"): "at the bottom of the image",
    ("right", "lower"): "in the lower right of the image",
    ("", "upper"): "across the top of the image",
    ("", "middle"): "across the middle of the image",
    ("", "lower"): "across the bottom of the image",
    ("left", ""): "along the left of the image",
    ("center", ""): "down the middle of the image",
    ("right", ""): "along the right of the image",
    ("", ""): "filling most of the image",
}


def phrase(box: Sequence[float], view: Sequence[float], mirrored: bool = False) -> str:
    """Says in which ninth of a view the centre of a box lies, both as (x0, y0, x1, y1) in px.

    The box is cut off at the view's borders; boxes over most of the width or height are said to reach across. With
    `mirrored` left and right of the view change places.
    """
    shares = []
    for low, high, start, stop in ((box[0], box[2], view[0], view[2]), (box[1], box[3], view[1], view[3])):
        length = max(stop - start, 1e-9)
        shares.append(((max(low, start) - start) / length, (min(high, stop) - start) / length))
    (left, right), (top, bottom) = shares
    if mirrored:
        left, right = 1 - right, 1 - left
    return _PHRASES[_third(left, right, ("left", "center", "right")), _third(top, bottom, ("upper", "middle", "lower"))]


def _third(low: float, high: float, names: tuple[str, str, str]) -> str:
    if high - low >= _WIDE - _ROUNDING:
        return ""
    center = (low + high) / 2
    return names[0] if center < 1 / 3 - _ROUNDING else names[2] if center > 2 / 3 + _ROUNDING else names[1]
