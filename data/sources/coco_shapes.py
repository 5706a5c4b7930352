"""The segmentations of COCO annotations as regions: polygons, run lengths as a string or as numbers, boxes.

Coordinates are those of pycocotools: x to the right, y down, from the upper left corner of the image, polygons flat
lists x0, y0, x1, y1, ...; run lengths count down the columns, from pixels that do not belong to the region.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from data.sources import regions
from data.sources.orientation import Size, turn_mask, turn_size
from data.sources.pictures import BadRecord, Picture
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import Region, check_mask, decode_mask, encode_mask


def read_shape(
    segmentation: Any, box: Any, node: str, picture: Picture, size: Size | None, frame: str
) -> tuple[Region, str]:
    """The region of a segmentation, or of a box [x, y, width, height] where there is none, labelled `node`, and what
    had to be changed of it ("" if nothing). `size` is what the table says of the image, `frame` what EXIF orientation
    means where that does not tell. BadRecord if it cannot be used."""
    turn = regions.turn_of(picture, size, frame)
    width, height = turn_size(picture.size, turn)
    change = ""
    if not segmentation:
        if not box:
            raise BadRecord("neither mask nor box", "give a segmentation or a bbox")
        return regions.of_box(node, regions.box_in(picture, corners(box), turn)), ""
    if isinstance(segmentation, dict):
        counts, (width, height) = read_rle(segmentation, picture)
        turn = regions.turn_of(picture, (width, height), frame)
    elif isinstance(segmentation, list):
        counts, change = read_polygons(segmentation, width, height)
    else:
        raise BadRecord("not a segmentation", f"expected polygons or run lengths, got {str(segmentation)[:40]!r}")
    if turn > 1:
        mask = turn_mask(decode_mask(counts, height, width), turn)
        counts, (height, width) = encode_mask(mask), mask.shape
    region = regions.of_rle(node, counts, height, width, "the segmentation")
    if box:
        try:
            stated = regions.box_in(picture, corners(box), turn)
        except BadRecord:
            stated = region.box  # the mask says where the region is
        if not regions.overlap(stated, region.box):
            detail = f"bbox {box}, pixels of the segmentation in {[round(side) for side in region.box]}: correct either"
            raise BadRecord("box and mask apart", detail)
    return region, change


def corners(box: Any) -> Any:
    """A box [x, y, width, height] by its corners; what is no such box stays as it is, to be refused by name."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        return box
    x, y, width, height = box
    return [x, y, x + width, y + height]


def read_rle(segmentation: dict[str, Any], picture: Picture) -> tuple[bytes, Size]:
    """Compressed run lengths, checked to fill the picture before or after its EXIF orientation, and their width and
    height; BadRecord otherwise."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise BadRecord("not a segmentation", f"expected a size [height, width], got {size!r}")
    height, width = size
    if (width, height) not in (picture.size, picture.stored_size):
        detail = f"it is {width} x {height} px, the image {picture.width} x {picture.height}: give a mask of its size"
        raise BadRecord("mask of another size", detail)
    if isinstance(counts, list):
        runs = [run for run in counts if isinstance(run, int) and run >= 0]
        if len(runs) != len(counts) or sum(runs) != height * width:
            raise BadRecord("damaged mask", f"its run lengths do not fill {width} x {height} px: write it anew")
        counts = coco_mask.frPyObjects({"size": size, "counts": runs}, height, width)["counts"]
    elif isinstance(counts, str):
        try:
            counts = counts.encode("ascii")
            check_mask(counts, height, width)
        except (InputError, ValueError) as error:
            raise BadRecord(
                "damaged mask", f"its run lengths do not fill {width} x {height} px: write it anew"
            ) from error
    else:
        raise BadRecord("not a segmentation", f"expected counts as text or numbers, got {str(counts)[:40]!r}")
    return counts, (width, height)


def read_polygons(polygons: list[Any], width: int, height: int) -> tuple[bytes, str]:
    """Compressed run lengths of the union of polygons, and what had to be left out of them; BadRecord if nothing is
    left inside the image."""
    if all(isinstance(side, int | float) for side in polygons):
        polygons = [polygons]  # a single polygon without the list around it
    lines, change = [], []
    for polygon in polygons:
        line = _points(polygon)
        if len(line) < 3:
            change.append(f"a polygon of {len(line)} points left out")
            continue
        low, high = line.min(axis=0), line.max(axis=0)
        if low[0] >= width or low[1] >= height or high[0] <= 0 or high[1] <= 0:
            change.append("a polygon outside the image left out")
            continue
        if min(low) < -regions.SLACK or high[0] > width + regions.SLACK or high[1] > height + regions.SLACK:
            line = _near(line, width, height)
            if len(line) < 3:  # its box reaches into the image, and it does not
                change.append("a polygon outside the image left out")
                continue
            change.append("a polygon clipped to the image")
        lines.append(line)
    if not lines:
        reason = "polygon outside the image" if "outside" in str(change) else "polygon of fewer than three points"
        raise BadRecord(reason, f"image {width} x {height} px: correct its points or give a bbox alone")
    # The list must not begin with one of four numbers, which pycocotools would take for boxes: there is none by now.
    parts = coco_mask.frPyObjects([line.ravel().tolist() for line in lines], height, width)
    return coco_mask.merge(parts)["counts"], ", ".join(dict.fromkeys(change))


def _points(polygon: Any) -> np.ndarray:
    try:
        points = np.asarray(polygon, np.float64)
    except (ValueError, TypeError):
        points = np.zeros((0, 0))
    if points.ndim == 2 and points.shape[1] == 2:  # pairs, as some tools write them
        points = points.ravel()
    if points.ndim != 1 or points.size % 2 or not np.isfinite(points).all():
        raise BadRecord("not a polygon", f"expected finite numbers x0, y0, x1, y1, ..., got {str(polygon)[:40]}")
    return points.reshape(-1, 2)


def _near(line: np.ndarray, width: int, height: int) -> np.ndarray:
    """The polygon clipped to the image with a margin as wide as the image (Sutherland and Hodgman, 1974).

    Rasterising clips what sticks out by itself, but walks along every pixel of it; far corners would take forever.
    """
    limits = ((0, -width, 1), (0, 2 * width, -1), (1, -height, 1), (1, 2 * height, -1))
    for axis, limit, sign in limits:
        inside = sign * (line[:, axis] - limit) >= 0
        if inside.all():
            continue
        kept = []
        for i in range(len(line)):
            a, b = line[i - 1], line[i]
            if inside[i - 1] != inside[i]:
                crossing = a + (b - a) * ((limit - a[axis]) / (b[axis] - a[axis]))
                crossing[axis] = limit
                kept.append(crossing)
            if inside[i]:
                kept.append(b)
        line = np.array(kept).reshape(-1, 2)
    return line
