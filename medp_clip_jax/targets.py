"""What the mask decoder should answer: the masks of an example's regions on its canvas, made on the host."""

from collections.abc import Sequence

import numpy as np

from medp_clip_jax.loading import Loaded, region_spans
from medp_clip_jax.mask_layout import BOX_ONLY, MASK
from medp_clip_jax.spans import area_map, within


def mask_targets(
    loaded: Loaded,
    chosen: Sequence[int],
    view: Sequence[int],
    rectangle: Sequence[float],
    mirror: bool,
    regions: int,
    side: int,
) -> dict[str, np.ndarray]:
    """Targets of one image for `click_training.click_losses`, of the first `regions` of the regions `chosen`.

    `view` are the pixels that the image shows in `rectangle` of the canvas. Returns `target` uint8 [regions, side,
    side], the share of each cell of the canvas that a mask covers or, without one, a box, times 255; `target_kind`
    int32 [regions], which of these, 0 for padding; and `annotated` bool [side, side], true where any region lies or the
    canvas is empty.
    """
    left, top, right, bottom = (float(edge) for edge in rectangle)
    if mirror:
        left, right = 1 - right, 1 - left
    width, height = (view[2] - view[0]) / (right - left), (view[3] - view[1]) / (bottom - top)
    origin = view[0] - left * width, view[1] - top * height
    window = (*origin, origin[0] + width, origin[1] + height)  # the canvas, in pixels of the image
    target, kind = np.zeros((regions, side, side), np.uint8), np.zeros(regions, np.int32)
    annotated = box_map(view, window, side) < 255
    for place, index in enumerate([*chosen, *sorted(set(range(len(loaded.example.regions))) - set(chosen))]):
        region = loaded.example.regions[index]
        if region.rle:
            area = area_map(within(region_spans(loaded, [index])[0], view), window, side)
        else:
            area = box_map(_cut(region.box, view), window, side)
        annotated |= area > 0
        if place < min(regions, len(chosen)):
            target[place], kind[place] = area, MASK if region.rle else BOX_ONLY
    if mirror:
        target, annotated = target[:, :, ::-1], annotated[:, ::-1]
    return {"target": np.ascontiguousarray(target), "target_kind": kind, "annotated": np.ascontiguousarray(annotated)}


def box_map(box: Sequence[float], window: Sequence[float], side: int) -> np.ndarray:
    """Share of each of side x side cells of `window` that a box (x0, y0, x1, y1) covers, times 255: uint8 [side, side].

    A cell that holds any part of the box is at least 1.
    """
    shares = []
    for axis in (0, 1):
        edges = np.linspace(window[axis], window[axis + 2], side + 1)
        shared = np.minimum(edges[1:], box[axis + 2]) - np.maximum(edges[:-1], box[axis])
        shares.append(np.clip(shared / (edges[1] - edges[0]), 0, 1))
    share = 255 * np.outer(shares[1], shares[0])
    return np.where(share > 1e-4, np.clip(np.rint(share), 1, 255), 0).astype(np.uint8)


def _cut(box: Sequence[float], view: Sequence[float]) -> tuple[float, float, float, float]:
    return max(box[0], view[0]), max(box[1], view[1]), min(box[2], view[2]), min(box[3], view[3])
