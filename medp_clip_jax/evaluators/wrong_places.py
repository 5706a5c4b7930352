"""Where a prompt of an image would be wrong: boxes of a region's size at random places, and what is annotated there."""

import numpy as np

from medp_clip_jax.eval_input import EvalTable

TRIES = 64  # places that are drawn for a region


def emptiest(table: EvalTable, row: int, seed: int) -> np.ndarray:
    """A box in [0, 1] of the image with the size of the region `row`, where the boxes of the image's regions cover the
    least of it; float32 [4]."""
    boxes, covered = _drawn(table, row, seed)
    return boxes[covered.sum(1).argmin()]


def elsewhere(table: EvalTable, row: int, seed: int) -> np.ndarray | None:
    """Like `emptiest`, but only of the boxes that do not overlap that of the region; None where none is drawn, as for a
    region that fills its image."""
    boxes, covered = _drawn(table, row, seed)
    own = covered[:, row - np.searchsorted(table.image_index, table.image_index[row])]
    return boxes[np.where(own > 0, np.inf, covered.sum(1)).argmin()] if (own == 0).any() else None


def _drawn(table: EvalTable, row: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32 [TRIES, 4] of a region's size in [0, 1], and the area that each shares with the box of each region
    of the image, float [TRIES, its regions]; the draws are the same for all regions of an image."""
    image = int(table.image_index[row])
    size = np.tile([table.images[image].width, table.images[image].height], 2)
    every, own = table.box[table.image_index == image] / size, table.box[row] / size
    extent = own[2:] - own[:2]
    low = np.random.default_rng((seed, image)).uniform(size=(TRIES, 2)) * np.maximum(1 - extent, 0)
    boxes = np.concatenate([low, low + extent], 1)
    shared = np.minimum(boxes[:, None, 2:], every[:, 2:]) - np.maximum(boxes[:, None, :2], every[:, :2])
    return boxes.clip(0, 1).astype(np.float32), np.maximum(shared, 0).prod(-1)
