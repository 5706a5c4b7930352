"""Region prompts: points, boxes and masks in one padded pytree, and how much of each grid cell they cover."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from medp_clip_jax.errors import InputError

Array = jax.Array | np.ndarray


@flax.struct.dataclass
class RegionPrompts:
    """Prompts of `regions` regions per image; any combination of kinds may be present in one region.

    Coordinates are (x, y) in [0, 1] of the original image rectangle, boxes are (x0, y0, x1, y1). Scribbles and
    polygons are masks.
    """

    points: Array  # [batch, regions, points, 2]
    point_labels: Array  # int [batch, regions, points]: 1 inside, 0 outside, -1 padding
    boxes: Array  # [batch, regions, 4]
    box_valid: Array  # bool [batch, regions]
    masks: Array  # [batch, regions, h, w]: coverage as float in [0, 1] or uint8 in [0, 255], any resolution
    mask_valid: Array  # bool [batch, regions]
    valid: Array  # bool [batch, regions]: False = padding region

    @classmethod
    def none(cls, batch: int, regions: int = 1) -> "RegionPrompts":
        """Regions without any prompt, [batch, regions]: each embedding equals the global one."""
        return cls(
            points=np.zeros((batch, regions, 1, 2), np.float32),
            point_labels=np.full((batch, regions, 1), -1, np.int32),
            boxes=np.zeros((batch, regions, 4), np.float32),
            box_valid=np.zeros((batch, regions), bool),
            masks=np.zeros((batch, regions, 1, 1), np.uint8),
            mask_valid=np.zeros((batch, regions), bool),
            valid=np.ones((batch, regions), bool),
        )

    @classmethod
    def from_boxes(cls, boxes: ArrayLike, image_size: ArrayLike) -> "RegionPrompts":
        """Box prompts from pixels (x0, y0, x1, y1) [batch, regions, 4]; `image_size` is (width, height) or [batch, 2].

        Raises:
          InputError: a box is empty (x1 <= x0 or y1 <= y0) or reaches outside its image.
        """
        boxes = _array(boxes, "boxes", 3, 4)
        size = _sizes(image_size, len(boxes))
        for b, k in np.ndindex(boxes.shape[:2]):
            x0, y0, x1, y1 = boxes[b, k]
            where = f"box {k} of image {b}, ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
            if not (x1 > x0 and y1 > y0):
                raise InputError(
                    f"{where}: expected x1 > x0 and y1 > y0 (corners, not width and height); swap or fix the corners"
                )
            if min(x0, y0) < 0 or x1 > size[b, 0] or y1 > size[b, 1]:
                raise InputError(
                    f"{where}: reaches outside the {size[b, 0]:g} x {size[b, 1]:g} image; clip it to the image"
                )
        scaled = boxes / np.tile(size, 2)[:, None]
        return dataclasses.replace(
            cls.none(*boxes.shape[:2]), boxes=scaled.astype(np.float32), box_valid=np.ones(boxes.shape[:2], bool)
        )

    @classmethod
    def from_points(cls, points: ArrayLike, labels: ArrayLike, image_size: ArrayLike) -> "RegionPrompts":
        """Click prompts from pixels (x, y), [batch, regions, points, 2].

        `labels` [batch, regions, points] are 1 inside, 0 outside, -1 padding; `image_size` is as in `from_boxes`.

        Raises:
          InputError: a click lies outside its image, or a label is not 1, 0 or -1.
        """
        points = _array(points, "points", 4, 2)
        labels = np.asarray(labels, np.int32)
        if labels.shape != points.shape[:3]:
            raise InputError(f"point labels: expected shape {points.shape[:3]}, one per point, got {labels.shape}")
        if not np.isin(labels, (-1, 0, 1)).all():
            raise InputError("point labels: expected 1 (inside), 0 (outside) or -1 (padding)")
        size = _sizes(image_size, len(points))
        outside = ((points < 0) | (points > size[:, None, None])).any(-1) & (labels >= 0)
        if outside.any():
            b, k, p = np.argwhere(outside)[0]
            x, y = points[b, k, p]
            raise InputError(
                f"point {p} of region {k} of image {b}, ({x:g}, {y:g}): outside the "
                f"{size[b, 0]:g} x {size[b, 1]:g} image; give (x, y) in pixels of the original image"
            )
        scaled = np.where(labels[..., None] >= 0, points / size[:, None, None], 0)
        return dataclasses.replace(cls.none(*points.shape[:2]), points=scaled.astype(np.float32), point_labels=labels)

    @classmethod
    def from_masks(cls, masks: ArrayLike) -> "RegionPrompts":
        """Mask prompts [batch, regions, h, w] over the whole image, any resolution: bool, uint8 or coverage in [0, 1].

        Raises:
          InputError: wrong rank, values outside the range, or an empty mask.
        """
        masks = np.asarray(masks)
        if masks.ndim != 4:
            raise InputError(f"masks: expected shape [batch, regions, h, w], got {masks.shape}")
        if masks.dtype == bool:
            masks = masks.astype(np.float32)
        if masks.dtype != np.uint8:
            masks = masks.astype(np.float32)
            if not ((masks >= 0) & (masks <= 1)).all():
                raise InputError("masks: expected coverage in [0, 1]; pass bool, uint8 in [0, 255] or scaled floats")
        empty = ~(masks > 0).any((2, 3))
        if empty.any():
            b, k = np.argwhere(empty)[0]
            raise InputError(f"mask {k} of image {b} is empty; leave the region out or use RegionPrompts.none")
        return dataclasses.replace(cls.none(*masks.shape[:2]), masks=masks, mask_valid=np.ones(masks.shape[:2], bool))

    @staticmethod
    def combine(a: "RegionPrompts", b: "RegionPrompts") -> "RegionPrompts":
        """Both prompts on the same regions, [batch, regions]: all points; where both have a box or mask, `b`'s wins.

        Masks of two types become coverage in [0, 1].

        Raises:
          InputError: the shapes [batch, regions] or the resolutions of the masks differ.
        """
        if a.valid.shape != b.valid.shape:
            raise InputError(f"combine: expected the same [batch, regions], got {a.valid.shape} and {b.valid.shape}")
        if a.masks.shape != b.masks.shape and np.any(a.mask_valid) and np.any(b.mask_valid):
            raise InputError(
                f"combine: masks of two resolutions, {a.masks.shape[2:]} and {b.masks.shape[2:]}; resample one"
            )
        if not np.any(b.mask_valid):
            masks = a.masks
        elif not np.any(a.mask_valid):
            masks = b.masks
        else:
            same = a.masks.dtype == b.masks.dtype  # else their scales may differ
            first, second = (a.masks, b.masks) if same else (unit_masks(a), unit_masks(b))
            masks = np.where(np.asarray(b.mask_valid)[..., None, None], second, first)
        return RegionPrompts(
            points=np.concatenate([a.points, b.points], 2),
            point_labels=np.concatenate([a.point_labels, b.point_labels], 2),
            boxes=np.where(np.asarray(b.box_valid)[..., None], b.boxes, a.boxes),
            box_valid=np.asarray(a.box_valid) | np.asarray(b.box_valid),
            masks=masks,
            mask_valid=np.asarray(a.mask_valid) | np.asarray(b.mask_valid),
            valid=np.asarray(a.valid) & np.asarray(b.valid),
        )


def _array(values: ArrayLike | Sequence, name: str, rank: int, last: int) -> np.ndarray:
    array = np.asarray(values, np.float32)
    if array.ndim != rank or array.shape[-1] != last:
        raise InputError(f"{name}: expected rank {rank} with last axis {last}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: expected finite pixel coordinates, got NaN or infinity")
    return array


def _sizes(image_size: ArrayLike, batch: int) -> np.ndarray:
    size = np.asarray(image_size, np.float32)
    if size.shape not in ((2,), (batch, 2)) or not (size > 0).all():
        raise InputError(
            f"image_size: expected (width, height) or one such pair per image, got shape {size.shape}, {size}"
        )
    return np.broadcast_to(size, (batch, 2))


def has_prompt(prompts: RegionPrompts) -> Array:
    """Whether a region carries any prompt at all, bool [batch, regions]; decided by the flags, never by the values."""
    return prompts.box_valid | prompts.mask_valid | (prompts.point_labels >= 0).any(-1)


def unit_masks(prompts: RegionPrompts) -> Array:
    """Masks as float32 coverage in [0, 1], [batch, regions, h, w]."""
    masks = jnp.asarray(prompts.masks)
    return masks.astype(jnp.float32) / (255.0 if masks.dtype == jnp.uint8 else 1.0)


def mask_boxes(prompts: RegionPrompts) -> Array:
    """Bounding boxes (x0, y0, x1, y1) in [0, 1] of the masks, [batch, regions, 4]; (0, 0, 1, 1) of an empty one."""
    present = jnp.asarray(prompts.masks) > 0

    def extent(profile: Array) -> tuple[Array, Array]:
        size = profile.shape[-1]
        low, high = jnp.argmax(profile, -1), size - jnp.argmax(profile[..., ::-1], -1)
        return low / size, high / size

    (x0, x1), (y0, y1) = extent(present.any(-2)), extent(present.any(-1))
    return jnp.stack([x0, y0, x1, y1], -1)


def coverage(prompts: RegionPrompts, window: Array, cells: int, sigma: Array) -> Array:
    """Share of each grid cell that its region covers, [batch, regions, cells, cells] in [0, 1], before any scaling.

    The grid divides `window`, [batch, regions or 1, 4] in the prompts' coordinates, into cells x cells. A mask counts
    by its exact area fraction per cell, else a box by its exact overlap, else everything by 1; inside clicks add by
    maximum a Gaussian of width `sigma` cells (alone, they replace the 1), outside clicks multiply by one minus
    theirs.
    """
    area, overlap = mask_share(prompts, window, cells), box_share(prompts, window, cells)
    x, y = _axes(window, cells)
    labels = jnp.asarray(prompts.point_labels)
    gaussians = _gaussians(jnp.asarray(prompts.points), x, y, sigma)  # [batch, regions, points, cells, cells]
    inside = jnp.where((labels == 1)[..., None, None], gaussians, 0).max(2, initial=0)
    outside = jnp.where((labels == 0)[..., None, None], 1 - gaussians, 1).prod(2)

    def flag(valid: Array) -> Array:
        return jnp.asarray(valid)[..., None, None]

    only_clicks = flag((labels == 1).any(-1))
    base = jnp.where(
        flag(prompts.mask_valid), area, jnp.where(flag(prompts.box_valid), overlap, jnp.where(only_clicks, 0, 1))
    )
    return jnp.maximum(base, inside) * outside


def mask_share(prompts: RegionPrompts, window: Array, cells: int) -> Array:
    """Exact share of each cell of `window` (see `coverage`) that the masks cover, [batch, regions, cells, cells]."""
    x, y = _axes(window, cells)
    masks = unit_masks(prompts)
    return jnp.einsum("bkyi,bkij,bkxj->bkyx", _mask_shares(y, masks.shape[2]), masks, _mask_shares(x, masks.shape[3]))


def box_share(prompts: RegionPrompts, window: Array, cells: int) -> Array:
    """Exact share of each cell of `window` (see `coverage`) that the boxes cover, [batch, regions, cells, cells]."""
    x, y = _axes(window, cells)
    boxes = jnp.asarray(prompts.boxes)
    rows, columns = _interval_share(y, boxes[..., 1], boxes[..., 3]), _interval_share(x, boxes[..., 0], boxes[..., 2])
    return rows[..., :, None] * columns[..., None, :]


def _axes(window: Array, cells: int) -> tuple[Array, Array]:
    """Edges of the cells along x and y, [batch, regions or 1, cells + 1] each."""
    return _edges(window[..., 0], window[..., 2], cells), _edges(window[..., 1], window[..., 3], cells)


def _edges(low: Array, high: Array, cells: int) -> Array:
    return low[..., None] + (high - low)[..., None] * jnp.linspace(0, 1, cells + 1)


def _interval_share(edges: Array, low: Array, high: Array) -> Array:
    """Share of each cell that lies in [low, high]: edges [..., cells + 1] -> [..., cells]."""
    left, right = edges[..., :-1], edges[..., 1:]
    shared = jnp.minimum(right, high[..., None]) - jnp.maximum(left, low[..., None])
    return jnp.maximum(shared, 0) / (right - left)


def _mask_shares(edges: Array, size: int) -> Array:
    """Share of each cell in each of `size` mask pixels over [0, 1]: [..., cells + 1] -> [..., cells, size]."""
    pixels = jnp.linspace(0, 1, size + 1)
    left, right = edges[..., :-1, None], edges[..., 1:, None]
    return jnp.maximum(jnp.minimum(right, pixels[1:]) - jnp.maximum(left, pixels[:-1]), 0) / (right - left)


def _gaussians(points: Array, x: Array, y: Array, sigma: Array) -> Array:
    def offsets(edges: Array, at: Array) -> Array:  # in cells, from each cell's centre
        centre = (edges[..., :-1] + edges[..., 1:]) / 2
        return (centre[..., None, :] - at[..., None]) / (edges[..., 1:2] - edges[..., :1])[..., None, :]

    dx, dy = offsets(x, points[..., 0]), offsets(y, points[..., 1])
    return jnp.exp(-(dx[..., None, :] ** 2 + dy[..., :, None] ** 2) / (2 * sigma**2))
