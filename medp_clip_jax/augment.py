"""Random views of an image and how they land on the model's square canvas; image and prompts always move together."""

import math
from collections.abc import Sequence

import numba
import numpy as np
from PIL import Image

from medp_clip_jax import label_names
from medp_clip_jax.canvas import PADDING
from medp_clip_jax.records import RegionExample

_LEVELS = np.linspace(0, 1, 256)


def random_view(width: int, height: int, scale: Sequence[float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A random rectangle (x0, y0, x1, y1) of whole pixels with the image's aspect and a share of its area uniform in
    `scale`, in (0, 1].

    Whole pixels, so that the share of a region that stays in the view is exact.
    """
    side = math.sqrt(rng.uniform(*scale))
    w, h = max(1, round(width * side)), max(1, round(height * side))
    x0, y0 = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return x0, y0, x0 + w, y0 + h


def box_share(box: Sequence[float], view: Sequence[float]) -> float:
    """Share of the box's area that lies in the view, in [0, 1]; both (x0, y0, x1, y1) in pixels."""
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= 0 or height <= 0:
        return 0.0
    w = min(box[2], view[2]) - max(box[0], view[0])
    h = min(box[3], view[3]) - max(box[1], view[1])
    return max(w, 0) * max(h, 0) / (width * height)


def with_margin(box: Sequence[float], shape: tuple[int, ...], margin: float) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1) grown by a share `margin` of its size on each side, in whole pixels inside the image."""
    x, y = (box[2] - box[0]) * margin, (box[3] - box[1]) * margin
    x0, y0 = max(0, math.floor(box[0] - x)), max(0, math.floor(box[1] - y))
    x1, y1 = min(shape[1], math.ceil(box[2] + x)), min(shape[0], math.ceil(box[3] + y))
    return min(x0, shape[1] - 1), min(y0, shape[0] - 1), max(x1, 1), max(y1, 1)


def letterbox(
    pixels: np.ndarray | Image.Image,
    size: int,
    box: Sequence[float] | None = None,
    table: np.ndarray | None = None,
    mirror: bool = False,
    gap: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scales (a box of) an image by its longer side onto the centre of a square canvas.

    `pixels` is uint8 [height, width] or [height, width, 3], or a Pillow image of mode L or RGB; `box` (x0, y0, x1, y1)
    in its pixels, `table` uint8 [256] is applied to the values and `mirror` swaps left and right of the image, not of
    the padding; with `gap` 1 an image of more than twice the size is first averaged over whole pixels, which is faster
    and nearly the same (Pillow's `reducing_gap`). Returns the canvas, uint8 [size, size, 3], and the rectangle that the
    image fills on it, float32 [4] as (x0, y0, x1, y1) in [0, 1].
    """
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    box = (0, 0, *picture.size) if box is None else tuple(box)
    scale = size / max(box[2] - box[0], box[3] - box[1])
    w, h = (min(size, max(1, round(side * scale))) for side in (box[2] - box[0], box[3] - box[1]))
    picture = picture.resize((w, h), Image.Resampling.BILINEAR, box=box, reducing_gap=gap)
    image = np.asarray(picture).reshape(h, w, -1)
    x, y = (size - w) // 2, (size - h) // 2
    canvas = np.empty((size, size, 3), np.uint8)
    _lay(canvas, image[:, ::-1] if mirror else image, np.arange(256, dtype=np.uint8) if table is None else table, x, y)
    return canvas, np.array([x, y, x + w, y + h], np.float32) / size


@numba.njit(cache=True)
def _lay(canvas: np.ndarray, image: np.ndarray, table: np.ndarray, x: int, y: int) -> None:
    """Fills a canvas [size, size, 3]: the image [height, width, 1 or 3] at column x and row y, by its table of values,
    and padding around it."""
    height, width, channels = image.shape
    for row in range(len(canvas)):
        for column in range(len(canvas)):
            inside = 0 <= row - y < height and 0 <= column - x < width
            for channel in range(3):
                if inside:
                    value = table[image[row - y, column - x, min(channel, channels - 1)]]
                else:
                    value = np.uint8(PADDING[channel])
                canvas[row, column, channel] = value


def jitter_table(strength: float, rng: np.random.Generator) -> np.ndarray:
    """Random gamma, contrast and brightness as a lookup table, uint8 [256]; `strength` 0 is the identity.

    One table for all channels: hue carries diagnosis in histology, dermoscopy and fundus photographs.
    """
    gamma, contrast = np.exp(rng.uniform(-strength, strength, 2))
    value = _LEVELS**gamma
    value = (value - 0.5) * contrast + 0.5 + rng.uniform(-strength, strength) / 2
    return np.clip(np.rint(value * 255), 0, 255).astype(np.uint8)


def may_mirror(example: RegionExample, enabled: bool, ontology) -> bool:
    """Whether left and right of this image may be swapped: configuration and source agree, and nothing names a side."""
    if not (enabled and example.flips):
        return False
    words = label_names.words_of(f"{example.caption} {example.view} {example.anatomy}")
    if set(label_names.SIDES).intersection(words):
        return False
    labels = (*example.image_labels, *(region.label for region in example.regions))
    return not any(ontology[label].laterality for label in labels if label in ontology)


def mirror_prompts(prompts: dict[str, np.ndarray]) -> None:
    """Swaps left and right of the prompts of one image in place (arrays named as `RegionPrompts`' fields, leading axis
    regions).
    """
    prompts["masks"][:] = prompts["masks"][:, :, ::-1].copy()
    boxes, points = prompts["boxes"], prompts["points"]
    boxes[:, [0, 2]] = np.where(prompts["box_valid"][:, None], 1 - boxes[:, [2, 0]], 0)
    points[..., 0] = np.where(prompts["point_labels"] >= 0, 1 - points[..., 0], 0)
