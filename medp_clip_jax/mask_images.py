"""Masks from the decoder's canvas to the pixels of the image, and into files that others read."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


def on_image(logits: np.ndarray, rectangle: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Logits [side, side] over the canvas as float32 [height, width] over the image of `size` (width, height), linear.

    `rectangle` (x0, y0, x1, y1) in [0, 1] is where the image lies on the canvas. The mask is where they are above 0.
    """
    picture = Image.fromarray(np.asarray(logits, np.float32))
    box = tuple(float(edge) * len(logits) for edge in rectangle)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box))


def to_rle(mask: np.ndarray) -> dict[str, object]:
    """A bool mask [height, width] as COCO's compressed RLE: {"size": [height, width], "counts": str}."""
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def from_rle(rle: dict[str, object]) -> np.ndarray:
    """The bool mask [height, width] of `to_rle`."""
    return coco_mask.decode({"size": rle["size"], "counts": str(rle["counts"]).encode("ascii")}).astype(bool)
