"""Simulated users inside the jitted training step: a first prompt, then clicks where the answer is most wrong.

All maps are square and lie on the canvas; prompts are in the coordinates of the image on it. Users that evaluate a
model are in `evaluators/click_protocols.py`.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from medp_clip_jax.mask_layout import BOX_ONLY, MASK
from medp_clip_jax.prompts import RegionPrompts, mask_share

Array = jax.Array
FIRST = ("point", "box", "noisy_box", "mask")
EROSIONS = 12  # deeper inside, all places are alike
WORD = 32  # cells
EXTRA = 3  # inside and outside clicks each, of a region that begins with several
NEAR = 6  # cells around a region in which such outside clicks lie


@flax.struct.dataclass
class Targets:
    """What regions should become, on the canvas."""

    mask: Array  # bool [batch, regions, side, side]; the box's interior where there is only a box
    kind: Array  # int [batch, regions]: MASK, BOX_ONLY or 0
    absent: Array  # bool [batch, regions]: nothing is there, and the mask is empty


def erosion_distance(mask: Array, steps: int = EROSIONS) -> Array:
    """How many erosions by a 3 x 3 square each cell survives, and one more: int32 like `mask` [..., rows, columns].

    It is the chessboard distance to the nearest cell outside, the border being outside, up to `steps`. While they
    shrink, rows are words of 32 cells, and what cells have survived is counted in binary, a word per digit.
    """
    columns = mask.shape[-1]
    left = jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, -columns % WORD)]).astype(jnp.uint32)
    left = (left.reshape(*mask.shape[:-1], -1, WORD) << jnp.arange(WORD, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32)

    def beside(x: Array, axis: int) -> tuple[Array, Array]:
        none = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
        size = x.shape[axis]
        before = jnp.concatenate([none, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), none], axis)
        return before, after

    def erode(left: Array) -> Array:
        before, after = beside(left, left.ndim - 1)
        left &= (left << 1 | before >> (WORD - 1)) & (left >> 1 | after << (WORD - 1))
        above, below = beside(left, left.ndim - 2)
        return left & above & below

    digits = [jnp.zeros_like(left)] * steps.bit_length()
    for step in range(steps):
        left = erode(left) if step else left
        carry = left
        for i, digit in enumerate(digits):
            digits[i], carry = digit ^ carry, digit & carry
    total = sum(
        ((digit[..., None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1).astype(jnp.int32) << i
        for i, digit in enumerate(digits)
    )
    return total.reshape(*mask.shape[:-1], -1)[..., :columns]


def next_click(keys: Array, target: Array, answer: Array) -> tuple[Array, Array]:
    """A click into the largest error: (place [batch, regions, 2] as (x, y) in [0, 1] of the canvas, label [batch,
    regions], -1 where nothing is wrong).

    `target` and `answer` are bool [batch, regions, side, side]. The larger of what is missed and what is too much is
    the one in which a larger square fits. Every second click goes to the deepest place, the others to any that is at
    least half as deep. `keys` [batch] is one random key per image.
    """
    wrong = jnp.stack([target & ~answer, answer & ~target])
    depth = erosion_distance(wrong)
    deepest = depth.max((-2, -1))
    inside = deepest[0] > deepest[1]
    depth = jnp.where(inside[..., None, None], depth[0], depth[1])
    most = depth.max((-2, -1), keepdims=True)
    noise, centred = _noise(keys, depth.shape[1:]), _noise(_second(keys), depth.shape[1:2])[..., None, None] < 0.5
    score = jnp.where((2 * depth >= most) & (depth > 0), noise + jnp.where(centred, depth, 0), -1.0)
    return _place(score), jnp.where(most[..., 0, 0] > 0, inside.astype(jnp.int32), -1)


def add_click(prompts: RegionPrompts, slot: Array, place: Array, label: Array, rectangle: Array) -> RegionPrompts:
    """Prompts with a click at `place` on the canvas in the point slot `slot` of each region."""
    low, extent = rectangle[:, None, :2], (rectangle[:, 2:] - rectangle[:, :2])[:, None]
    here = jnp.arange(prompts.points.shape[2]) == slot
    points = jnp.where(here[:, None], ((place - low) / extent)[:, :, None], prompts.points)
    return prompts.replace(points=points, point_labels=jnp.where(here, label[..., None], prompts.point_labels))


def with_absent(keys: Array, targets: Targets, free: Array, share: float) -> tuple[Targets, Array]:
    """Replaces a share of the regions by places where nothing is annotated, `free` bool [batch, side, side].

    Returns the targets, and those places as bool [batch, regions, side, side], false elsewhere: a square around a cell,
    as large as fits or smaller, for the first prompt to mark.
    """
    depth = erosion_distance(free)[:, None]
    cells = _place_index(jnp.where(depth > 0, _noise(keys, targets.mask.shape[1:]), -1.0))
    chosen = _noise(_second(keys), targets.kind.shape[1:]) < share
    chosen &= (targets.kind > 0) & (depth.max((-2, -1)) > 0)
    side = targets.mask.shape[-1]
    room = jnp.take_along_axis(depth.reshape(len(depth), -1), cells, 1)  # [batch, regions]
    reach = jnp.floor(room * _noise(_second(_second(keys)), room.shape[1:]))[..., None]
    rows = jnp.abs(jnp.arange(side) - (cells // side)[..., None]) <= reach
    columns = jnp.abs(jnp.arange(side) - (cells % side)[..., None]) <= reach
    marked = rows[..., :, None] & columns[..., None, :] & chosen[..., None, None]
    mask = targets.mask & ~chosen[..., None, None]
    return targets.replace(mask=mask, absent=chosen), marked


def first_prompts(keys: Array, targets: Targets, marked: Array, rectangle: Array, config: Any) -> RegionPrompts:
    """First prompts of the kinds in `config.segment.first`, with free point slots for the clicks that follow.

    A region with a box only is asked by its box; an absent one by what is `marked` (see `with_absent`).
    """
    s = config.segment
    shares = jnp.array([s.first.get(kind, 0.0) for kind in FIRST])
    show = targets.mask | marked
    batch, regions, side, _ = show.shape
    kinds = jax.vmap(lambda key: jax.random.choice(key, len(FIRST), (regions,), p=shares / shares.sum()))(keys)
    kinds = jnp.where((targets.kind == BOX_ONLY) & ((kinds == 0) | (kinds == 3)), 1, kinds)
    there = show.any((2, 3))
    place, _ = next_click(_second(keys), show, jnp.zeros_like(show))
    prompts = _empty(batch, regions, 1 + 2 * EXTRA + s.rounds - 1, side)
    prompts = add_click(prompts, jnp.array(0), place, jnp.where((kinds == 0) & there, 1, -1), rectangle)
    third = _second(_second(keys))
    several = (kinds == 0) & (targets.kind == MASK) & ~targets.absent
    several &= _noise(third, (regions,)) < s.several
    prompts = _more_clicks(_second(third), prompts, targets.mask, several, rectangle)
    boxes = _boxes(show)
    noise = jax.vmap(lambda key: jax.random.normal(key, (regions, 4)))(third) * s.noise
    sides = jnp.tile(boxes[..., 2:] - boxes[..., :2], 2)
    boxes = jnp.where((kinds == 2)[..., None], boxes + noise * sides, boxes)
    low, extent = jnp.tile(rectangle[:, :2], 2)[:, None], jnp.tile(rectangle[:, 2:] - rectangle[:, :2], 2)[:, None]
    boxes = (boxes - low) / extent
    start = jnp.clip(boxes[..., :2], 0, 1 - 1 / side)  # never empty: a window without an extent has no pixels
    boxes = jnp.concatenate([start, jnp.clip(boxes[..., 2:], start + 1 / side, 1)], -1)
    rough = _rough(_second(keys), show)
    masks = mask_share(prompts.replace(masks=rough.astype(jnp.float32)), rectangle[:, None], side)
    return prompts.replace(
        boxes=boxes,
        box_valid=((kinds == 1) | (kinds == 2)) & there,
        masks=masks,
        mask_valid=(kinds == 3) & (masks.max((2, 3)) > 0),
    )


def _more_clicks(keys: Array, prompts: RegionPrompts, mask: Array, where: Array, rectangle: Array) -> RegionPrompts:
    """Random clicks in the regions `where`, some inside and some just outside, in the slots after the first."""
    outside = ~mask & (erosion_distance(~mask, NEAR + 1) <= NEAR) & _on_image(rectangle, mask.shape[-1])
    noise = _noise(keys, mask.shape[1:])  # one draw, shifted for each click: a draw of a cell costs more than all else
    for label, area in ((1, mask), (0, outside)):
        for turn in range(EXTRA):
            keys = _second(keys)
            shift, chance = jnp.moveaxis(_noise(_second(keys), (2, *where.shape[1:])), 1, 0)
            place = _place(jnp.where(area, (noise + shift[..., None, None]) % 1, -1.0))
            wanted = where & area.any((2, 3)) & (chance < 0.5)
            slot = jnp.array(1 + turn + (0 if label else EXTRA))
            prompts = add_click(prompts, slot, place, jnp.where(wanted, label, -1), rectangle)
    return prompts


def _on_image(rectangle: Array, side: int) -> Array:
    """Cells of the canvas whose centre lies on the image, bool [batch, 1, side, side]."""
    centres = (jnp.arange(side) + 0.5) / side
    columns = (centres >= rectangle[:, :1]) & (centres < rectangle[:, 2:3])
    rows = (centres >= rectangle[:, 1:2]) & (centres < rectangle[:, 3:])
    return (rows[:, :, None] & columns[:, None])[:, None]


def _rough(keys: Array, mask: Array) -> Array:
    """Masks as they are, or one cell larger or smaller all around; none is emptied."""
    smaller = erosion_distance(mask, 2) > 1
    smaller = jnp.where(smaller.any((2, 3), keepdims=True), smaller, mask)
    larger = ~(erosion_distance(jnp.pad(~mask, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=True), 2) > 1)
    larger = larger[:, :, 1:-1, 1:-1]
    dice = _noise(keys, mask.shape[1:2])[..., None, None]
    return jnp.where(dice < 1 / 3, smaller, jnp.where(dice < 2 / 3, larger, mask))


def _boxes(mask: Array) -> Array:
    """Bounding boxes (x0, y0, x1, y1) in [0, 1] of the canvas, [batch, regions, 4]; zeros of an empty mask."""
    side = mask.shape[-1]

    def extent(profile: Array) -> tuple[Array, Array]:
        filled = profile.any(-1)
        low, high = jnp.argmax(profile, -1), side - jnp.argmax(profile[..., ::-1], -1)
        return jnp.where(filled, low / side, 0), jnp.where(filled, high / side, 0)

    (x0, x1), (y0, y1) = extent(mask.any(-2)), extent(mask.any(-1))
    return jnp.stack([x0, y0, x1, y1], -1)


def _empty(batch: int, regions: int, points: int, side: int) -> RegionPrompts:
    prompts = RegionPrompts.none(batch, regions)
    return jax.tree.map(
        jnp.asarray,
        prompts.replace(
            points=jnp.zeros((batch, regions, points, 2)),
            point_labels=jnp.full((batch, regions, points), -1, jnp.int32),
            masks=jnp.zeros((batch, regions, side, side)),
        ),
    )


def _place_index(score: Array) -> Array:
    return score.reshape(*score.shape[:2], -1).argmax(-1)


def _place(score: Array) -> Array:
    """Centres of the cells of the highest score, (x, y) in [0, 1] of the canvas: [batch, regions, 2]."""
    cell, side = _place_index(score), score.shape[-1]
    return (jnp.stack([cell % side, cell // side], -1) + 0.5) / side


def _noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """Uniform deviates [batch, *shape] from one key per image, so that other images do not matter."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)


def _second(keys: Array) -> Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
