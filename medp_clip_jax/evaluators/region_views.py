"""Pictures that point at one region, for a model that takes no prompts: what one does with a plain CLIP."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from medp_clip_jax.augment import with_margin

BLUR = 0.03  # deviation of the blur, in longer image sides
LINE = 0.015  # width of the red line, likewise
AROUND = (2**0.5 - 1) / 2  # margin of a box whose ellipse runs through the corners of the box inside


def show(
    kind: str, image: np.ndarray, box: Sequence[float], mask: np.ndarray | None, margin: float
) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """The picture by one of `prompt_kinds.SHOWN`, and the part of it to look at (None: all).

    `crop` looks at the box and a share `margin` of its sides around it; `blackout` blackens and `blur` blurs all that
    is not in the mask or, without one, in the box; `red_circle` draws a red ellipse around the box (arXiv 2304.06712).
    `image` is uint8 [height, width] or [height, width, 3], `box` (x0, y0, x1, y1) in its pixels, `mask` bool [height,
    width].
    """
    if kind == "crop":
        return image, with_margin(box, image.shape, margin)
    longer = max(image.shape[:2])
    if kind == "red_circle":
        picture = Image.fromarray(image).convert("RGB")
        ring = tuple(round(edge) for edge in _grown(box))
        ImageDraw.Draw(picture).ellipse(ring, outline=(255, 0, 0), width=max(1, round(LINE * longer)))
        return np.asarray(picture), None
    inside = _box(box, image.shape) if mask is None else mask
    inside = inside if image.ndim == 2 else inside[..., None]
    if kind == "blackout":
        return np.where(inside, image, 0).astype(np.uint8), None
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR * longer)))
    return np.where(inside, image, blurred), None


def _grown(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y = AROUND * (box[2] - box[0]), AROUND * (box[3] - box[1])
    return box[0] - x, box[1] - y, box[2] + x, box[3] + y


def _box(box: Sequence[float], shape: tuple[int, ...]) -> np.ndarray:
    x0, y0, x1, y1 = with_margin(box, shape, 0.0)
    inside = np.zeros(shape[:2], bool)
    inside[y0:y1, x0:x1] = True
    return inside
