"""Prompts as users and annotators would give them, simulated on the host from ground-truth masks and boxes.

Masks come as spans of whole pixels of the stored image. Simulated prompts are written into the arrays of
`empty_prompts`, in [0, 1] of the view through which the image is seen.
"""

import dataclasses
import math
from collections.abc import Sequence

import numba
import numpy as np
from scipy import ndimage

from medp_clip_jax.spans import Spans, area_map, contains, picture, pixel, within

_SEARCH = 32  # training clicks search the centre of a mask on a grid of at most this side


@dataclasses.dataclass(frozen=True)
class Target:
    """The part of a region that a view shows: its box (x0, y0, x1, y1) in image pixels and its mask, which the box
    bounds (None = box only).
    """

    box: tuple[float, float, float, float]
    spans: Spans | None

    @property
    def corner(self) -> tuple[int, int]:
        return int(self.box[0]), int(self.box[1])

    @property
    def mask(self) -> np.ndarray | None:
        """The mask as a picture cut to the box, bool [height, width]."""
        return None if self.spans is None else picture(self.spans, self.spans.box)


def see_mask(spans: Spans, view: Sequence[int], least: float) -> Target | None:
    """What a view of whole pixels shows of a mask; None where that is less than the share `least` of its area."""
    box = spans.box
    if view[0] <= box[0] and view[1] <= box[1] and box[2] <= view[2] and box[3] <= view[3]:
        return Target(box, spans) if spans.column.size else None
    part = within(spans, view)
    if not part.column.size or part.area < least * spans.area:
        return None
    return Target(part.box, part)


def centre_click(mask: np.ndarray) -> tuple[float, float]:
    """The 'center' click (x, y) in pixels of a non-empty mask [height, width]: argmax of the L2 distance transform of
    the padded mask.

    The rule of RITM and SAM 2; the first maximum in row order, at the centre of its pixel.
    """
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), bool)
    padded[1:-1, 1:-1] = mask
    distance = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(distance), mask.shape)
    return float(x) + 0.5, float(y) + 0.5


def jitter_box(
    box: Sequence[float], view: Sequence[float], amount: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """The box (x0, y0, x1, y1) with each side moved by a normal deviate of `amount` times its length, cut to the view,
    never empty.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    x0, y0, x1, y1 = (box + rng.normal(0, amount, 4) * (width, height, width, height)).tolist()
    x0, y0, x1, y1 = max(x0, view[0]), max(y0, view[1]), min(x1, view[2]), min(y1, view[3])
    if x1 - x0 < width / 2 or y1 - y0 < height / 2:  # the noise ate the box
        return tuple(box)
    return x0, y0, x1, y1


def perturb_map(area: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sloppy version of a mask map, uint8 [size, size]: grown, shrunk, or of a quarter to half the resolution.

    Tiny regions, which one cell more or less would multiply or erase, come back unchanged.
    """
    choice = rng.integers(3)
    size = len(area)
    if choice == 2:
        step = 4 if size % 4 == 0 and rng.random() < 0.5 else 2
        if size % step:
            return area
        coarse = area.reshape(size // step, step, size // step, step).mean((1, 3))
        return np.ceil(coarse).astype(np.uint8).repeat(step, 0).repeat(step, 1)
    changed = _extreme(area, 1 + int(rng.integers(2)), bool(choice == 0)).astype(np.float32)
    changed = np.rint(area + rng.random() * (changed - area)).astype(np.uint8)
    return changed if 0.5 < changed.sum() / max(area.sum(), 1) < 2 else area


@numba.njit(cache=True)
def _extreme(area: np.ndarray, reach: int, largest: bool) -> np.ndarray:
    """The largest or least value within `reach` cells of each, diagonals included."""
    found = area.copy()
    for row in range(area.shape[0]):
        for column in range(area.shape[1]):
            near = area[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
            found[row, column] = near.max() if largest else near.min()
    return found


def empty_prompts(regions: int, points: int, size: int) -> dict[str, np.ndarray]:
    """Padding for one image: arrays named and shaped as `RegionPrompts`' fields, without the batch axis."""
    return {
        "points": np.zeros((regions, points, 2), np.float32),
        "point_labels": np.full((regions, points), -1, np.int32),
        "boxes": np.zeros((regions, 4), np.float32),
        "box_valid": np.zeros(regions, bool),
        "masks": np.zeros((regions, size, size), np.uint8),
        "mask_valid": np.zeros(regions, bool),
        "valid": np.zeros(regions, bool),
    }


def write_exact(prompts: dict[str, np.ndarray], row: int, target: Target, view: Sequence[float], kind: str) -> None:
    """Writes the evaluation prompt of a region into row `row`: its exact mask or box, or one click (`kind` is one
    of `EXACT`).

    A region without a mask is asked by its box where the kind is "mask", and by a click on the centre of its box.
    """
    prompts["valid"][row] = True
    if kind == "mask" and target.spans is not None:
        _write_mask(prompts, row, area_map(target.spans, view, prompts["masks"].shape[-1]))
    elif kind == "point":
        x0, y0, x1, y1 = target.box
        x, y = ((x1 - x0) / 2, (y1 - y0) / 2) if target.spans is None else centre_click(target.mask)
        _write_point(prompts, row, 0, (x0 + x, y0 + y), 1, view)
    else:
        _write_box(prompts, row, target.box, view)


def write_simulated(
    prompts: dict[str, np.ndarray], row: int, target: Target, view: Sequence[int], kind: str, rng: np.random.Generator
) -> None:
    """Writes a simulated training prompt of one of `prompt_kinds.TRAINED` into row `row`; a region without a mask gets
    boxes and clicks only.

    Half of the masks and boxes are exact. Inside clicks always lie in the mask, outside clicks never; half of the click
    prompts are a single click, as in evaluation.
    """
    prompts["valid"][row] = True
    if "mask" in kind and target.spans is not None:
        area = area_map(target.spans, view, prompts["masks"].shape[-1])
        _write_mask(prompts, row, area if rng.random() < 0.5 else perturb_map(area, rng))
    if "box" in kind or ("mask" in kind and target.spans is None):
        amount = 0.0 if rng.random() < 0.5 else rng.uniform(0, 0.15)
        _write_box(prompts, row, jitter_box(target.box, view, amount, rng) if amount else target.box, view)
    if "point" in kind:
        _write_clicks(prompts, row, target, view, rng, correct_first=kind == "box_point" and rng.random() < 0.3)


def _write_clicks(prompts, row: int, target: Target, view, rng: np.random.Generator, correct_first: bool) -> None:
    slots = prompts["points"].shape[1]
    count = 1 if slots == 1 or rng.random() < 0.5 else int(rng.integers(2, slots + 1))
    for slot in range(count):
        negative = correct_first if slot == 0 else rng.random() < 0.4
        point = _outside_click(target, view, rng, 0.0 if slot == 0 else 0.25) if negative else None
        label = 1 if point is None else 0
        if point is None:
            point = inside_click(target, rng, central=slot == 0 and rng.random() < 0.5)
        _write_point(prompts, row, slot, point, label, view)


def inside_click(target: Target, rng: np.random.Generator, central: bool) -> tuple[float, float]:
    """A click (x, y) in pixels at a random place of the mask, or coarsely at its centre; without a mask in the middle
    of the box."""
    x0, y0, x1, y1 = target.box
    if target.spans is None:  # only the middle of a box can be trusted to lie in its region
        x, y = (0.5, 0.5) if central else rng.uniform(0.3, 0.7, 2)
        return x0 + x * (x1 - x0), y0 + y * (y1 - y0)
    if central:
        step = math.ceil(max(x1 - x0, y1 - y0) / _SEARCH)
        coarse = picture(target.spans, target.spans.box, step)
        if coarse.any():
            x, y = centre_click(coarse)
            return x0 + int(x) * step + 0.5, y0 + int(y) * step + 0.5
    x, y = pixel(target.spans, int(rng.integers(target.spans.area)))
    return x + rng.random(), y + rng.random()


def _outside_click(
    target: Target, view: Sequence[float], rng: np.random.Generator, margin: float
) -> tuple[float, float] | None:
    """A click outside the mask in its box plus a margin (share of the box); None where a few tries find none."""
    x0, y0, x1, y1 = target.box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    low = max(x0 - dx, view[0]), max(y0 - dy, view[1])
    high = min(x1 + dx, view[2]), min(y1 + dy, view[3])
    for x, y in rng.uniform(low, high, (4, 2)).tolist():
        inside = x0 <= x < x1 and y0 <= y < y1
        if not inside or (target.spans is not None and not contains(target.spans, x, y)):
            return x, y
    return None


def _write_mask(prompts: dict[str, np.ndarray], row: int, area: np.ndarray) -> None:
    prompts["masks"][row] = area
    prompts["mask_valid"][row] = True


def _write_box(prompts: dict[str, np.ndarray], row: int, box: Sequence[float], view: Sequence[float]) -> None:
    width, height = view[2] - view[0], view[3] - view[1]
    x0, y0, x1, y1 = box
    prompts["boxes"][row] = (
        (x0 - view[0]) / width,
        (y0 - view[1]) / height,
        (x1 - view[0]) / width,
        (y1 - view[1]) / height,
    )
    prompts["box_valid"][row] = True


def _write_point(
    prompts: dict[str, np.ndarray], row: int, slot: int, point: Sequence[float], label: int, view: Sequence[float]
) -> None:
    width, height = view[2] - view[0], view[3] - view[1]
    prompts["points"][row, slot] = (point[0] - view[0]) / width, (point[1] - view[1]) / height
    prompts["point_labels"][row, slot] = label
