"""Rules for the regions of one image."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from data.curation import Finding
from data.sources.regions import tight_box
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import Region, RegionExample, decode_mask

RULES = ("empty", "damaged", "tiny", "border", "noise", "fragments", "whole", "repeated", "conflict")
Box = tuple[float, float, float, float]


def findings(example: RegionExample, config: Any, related: Callable[[str, str], bool]) -> Iterator[Finding]:
    """Yields at most one finding for each region, that of the first rule that fits it.

    `related(a, b)` says whether one label is a kind of the other. A dropped region is no longer there for what overlaps
    it.
    """
    kept: list[tuple[Region, np.ndarray | None]] = []
    for number, region in enumerate(example.regions):
        finding, mask = _alone(region, example.width, example.height, config)
        finding = finding or _among(region, mask, kept, config, related)
        if finding is not None:
            yield Finding(finding[0], number, finding[1])
        if finding is None or config[finding[0]].action != "drop":
            kept.append((region, mask))


def _alone(region: Region, width: int, height: int, config: Any) -> tuple[tuple[str, str] | None, np.ndarray | None]:
    """(rule, detail) of the first rule that fits a region by itself, and its mask cut to its box."""
    for rule, found in _steps(region, width, height, config):
        if isinstance(found, np.ndarray):
            return None, found
        if found and config[rule].action != "keep":
            return (rule, found), None
    return None, None


def _steps(region: Region, width: int, height: int, config: Any) -> Iterator[tuple[str, Any]]:
    """Yields (rule, what is wrong or ""), cheap rules first, at the end the mask."""
    x0, y0, x1, y1 = region.box
    yield "empty", "no area" if region.area <= 0 or x1 <= x0 or y1 <= y0 else ""
    inside = 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
    yield "damaged", "" if inside else f"box {region.box} in an image of {width} x {height} px"
    yield "tiny", f"{region.area:g} px" if region.area < config.tiny.pixels else ""
    if region.rle:
        try:
            mask = decode_mask(region.rle, height, width)
        except InputError as error:
            yield "damaged", str(error)
            return
        if tight_box(mask) != region.box or abs(np.count_nonzero(mask) - region.area) > 1e-5 * mask.size + 0.5:
            yield "damaged", "box or area are not the mask's"
            return
        mask = mask[int(y0) : int(y1), int(x0) : int(x1)]
        yield "border", _in_border(mask, region.box, width, height, config.border.width)
        if config.noise.action != "keep" or config.fragments.action != "keep":
            sizes = part_sizes(mask)
            yield "noise", _specks(sizes, config.noise.speck, config.noise.share)
            yield "fragments", _fragments(sizes, config.fragments.parts, config.fragments.share)
    share = region.area / (width * height)
    yield "whole", f"{share:.1%} of the image" if share >= config.whole.share else ""
    if region.rle:
        yield "mask", mask


def _in_border(mask: np.ndarray, box: Box, width: int, height: int, border: int) -> str:
    """Whether all pixels of a mask, cut to its box, lie within `border` of an edge of the image."""
    rows, columns = np.arange(int(box[1]), int(box[3])), np.arange(int(box[0]), int(box[2]))
    inner_rows = (rows >= border) & (rows < height - border)
    inner_columns = (columns >= border) & (columns < width - border)
    return "" if mask[np.ix_(inner_rows, inner_columns)].any() else f"within {border} px of the edge"


def part_sizes(mask: np.ndarray) -> np.ndarray:
    """Pixels of each connected part (8 neighbours) of a mask [height, width], largest first."""
    parts, _ = ndimage.label(mask, np.ones((3, 3), bool))
    return np.sort(np.bincount(parts.ravel())[1:])[::-1]


def _specks(sizes: np.ndarray, speck: int, share: float) -> str:
    found = sizes[sizes <= speck].sum() / sizes.sum()
    return f"{found:.0%} in specks of at most {speck} px" if found >= share else ""


def _fragments(sizes: np.ndarray, parts: int, share: float) -> str:
    broken = len(sizes) > parts and sizes[0] < share * sizes.sum()
    return f"{len(sizes)} parts, the largest has {sizes[0] / sizes.sum():.0%}" if broken else ""


def _among(
    region: Region,
    mask: np.ndarray | None,
    kept: Collection[tuple[Region, np.ndarray | None]],
    config: Any,
    related: Callable[[str, str], bool],
) -> tuple[str, str] | None:
    for other, other_mask in kept:
        same = other.label == region.label
        rule = "repeated" if same else "conflict"
        if config[rule].action == "keep" or (not same and related(region.label, other.label)):
            continue
        if (mask is None) == (other_mask is None):  # a box beside its mask says another thing
            overlap = iou(region.box, mask, other.box, other_mask)
            if overlap >= config[rule].overlap:
                return rule, f"overlap {overlap:.2f} with {other.label}"
    return None


def iou(box: Box, mask: np.ndarray | None, other_box: Box, other_mask: np.ndarray | None) -> float:
    """Intersection over union of two masks that are cut to their boxes, or of the boxes where there are no masks."""
    x0, y0 = max(box[0], other_box[0]), max(box[1], other_box[1])
    x1, y1 = min(box[2], other_box[2]), min(box[3], other_box[3])
    if x1 <= x0 or y1 <= y0:
        return 0.0
    if mask is None or other_mask is None:
        common, areas = (x1 - x0) * (y1 - y0), [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other_box)]
    else:
        views = [
            m[int(y0 - b[1]) : int(y1 - b[1]), int(x0 - b[0]) : int(x1 - b[0])]
            for m, b in ((mask, box), (other_mask, other_box))
        ]
        common = float(np.count_nonzero(views[0] & views[1]))
        areas = [float(np.count_nonzero(m)) for m in (mask, other_mask)]
    return common / (sum(areas) - common)
