"""What the mask decoder and its targets agree on: their size, and the kinds of target. Needs neither JAX nor images."""

from typing import Any

MASK, BOX_ONLY = 1, 2  # kinds of target; 0 is none


def mask_side(config: Any, size: int | None = None) -> int:
    """Side in pixels of the decoder's masks, for a model section and a canvas of `size` (the trained one if None)."""
    return 2 * (size or config.image.size) // config.segmenter.stride
