"""One image or one region of a data set, checked; what is wrong with it is said in one line."""

import math
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from data.sources.files import shown
from data.sources.orientation import Box, Size, turn_box, turn_mask, turn_size
from data.sources.pictures import BadRecord, Picture, read_picture
from medp_clip_jax.records import Region, encode_mask

Row = Mapping[str, Any]
SLACK = 1.0  # px that a box may stick out, by rounding
STORED, SHOWN = "stored", "shown"  # the frame of annotations whose size fits an image before and after its EXIF turn


def read_image(path: pathlib.Path, row: Row) -> Picture:
    """The image of a row, of the width and height it states, if any, before or after its EXIF orientation; BadRecord
    if the file cannot be used."""
    picture = read_picture(path)
    turn_of(picture, stated_size(row, picture), where=shown(path))
    return picture


def stated_size(row: Row, picture: Picture) -> Size | None:
    """Width and height that a row states, a missing one taken from the picture; None where it states neither."""
    width, height = row.get("width"), row.get("height")
    if not width and not height:
        return None
    return width or picture.stored_size[0], height or picture.stored_size[1]


def turn_of(picture: Picture, size: Size | None, frame: str = STORED, where: str = "the image") -> int:
    """The EXIF orientation by which annotations made for an image of `size` are still to be turned: 1 where they fit
    the shown image only. Where both fit, `frame` decides; BadRecord where neither does."""
    if size is None or size == picture.size == picture.stored_size:
        return picture.orientation if frame == STORED else 1
    if size == picture.stored_size:
        return picture.orientation
    if size == picture.size:
        return 1
    detail = f"{where} is {_by(picture.stored_size)}, the table says {_by(size)}: correct either"
    raise BadRecord("image of another size", detail)


def read_mask(path: pathlib.Path) -> np.ndarray:
    """The values of a mask file [height, width], several channels joined by their maximum; of a palette the indices,
    not the colours. BadRecord if unreadable."""
    image = open_mask(path)
    if image.mode in ("RGBA", "LA"):  # opacity says nothing about the region
        image = image.convert(image.mode[:-1])
    values = np.asarray(image)
    return values if values.ndim == 2 else values.max(axis=-1)


def open_mask(path: pathlib.Path) -> Image.Image:
    """The decoded image of a mask file as it is stored, without regard to EXIF; BadRecord if unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                file.load()
                return file
    except FileNotFoundError as error:
        detail = f"{shown(path)}: put the file there, or set mask to null and give a box"
        raise BadRecord("missing mask", detail) from error
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever those lead to
        detail = " ".join(str(error).split()) or type(error).__name__
        raise BadRecord("unreadable mask", f"{shown(path)} ({detail}): give a complete PNG file") from error


def read_region(
    folder: pathlib.Path,
    row: Row,
    node: str,
    picture: Picture,
    size: Size | None = None,
    mask_of: Callable[[pathlib.Path], np.ndarray] = read_mask,
) -> Region:
    """The region of one annotation, labelled `node`, of a picture that its table says is `size` (width, height) large;
    with a mask its box is the mask's tight box. BadRecord if it cannot be used."""
    stated = None if row.get("box") is None else box_in(picture, row["box"], turn_of(picture, size))
    if row.get("mask") is None:
        if stated is None:
            raise BadRecord("neither mask nor box", "give one of them")
        return of_box(node, stated)
    path = folder / str(row["mask"])
    values = mask_of(path)
    value = row.get("mask_value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise BadRecord("not a mask value", f"expected a number or null, got {value!r}")
    mask = values != 0 if value is None else values == value
    region = of_mask(node, mask_in(picture, mask, shown(path)), f"{shown(path)}{_chosen(value)}")
    if stated is not None and not overlap(stated, region.box):
        detail = f"box {_show(stated)}, pixels of the mask in {_show(region.box)}: correct mask_value or box"
        raise BadRecord("box and mask apart", detail)
    return region


def mask_in(picture: Picture, mask: np.ndarray, where: str, frame: str = STORED) -> np.ndarray:
    """A mask [height, width] made for the picture before or after its EXIF orientation, as a mask of the picture;
    BadRecord, naming `where`, if it fits neither."""
    size = mask.shape[1], mask.shape[0]
    try:
        return turn_mask(mask, turn_of(picture, size, frame))
    except BadRecord:
        detail = f"{where} is {_by(size)}, the image {_by(picture.stored_size)}: give a mask of its size"
        raise BadRecord("mask of another size", detail) from None


def box_in(picture: Picture, box: Any, turn: int) -> Box:
    """A box of the picture from one that is still to be turned by the orientation `turn`; checked as by `read_box`."""
    stored = turn_size(picture.size, turn)
    return turn_box(read_box(box, *stored), turn, stored)


def of_mask(node: str, mask: np.ndarray, where: str) -> Region:
    """The region of a mask [height, width] of any dtype; BadRecord, naming `where`, if it is empty."""
    return of_rle(node, encode_mask(mask), mask.shape[0], mask.shape[1], where)


def of_rle(node: str, counts: bytes, height: int, width: int, where: str) -> Region:
    """The region of COCO compressed run lengths that fill height x width; BadRecord, naming `where`, if it is empty."""
    rle = {"size": [height, width], "counts": counts}
    area = float(coco_mask.area(rle))
    if not area:
        raise BadRecord("empty mask", f"{where} has no pixel: correct the mask or remove the region")
    x, y, columns, rows = (float(side) for side in coco_mask.toBbox(rle))
    return Region(node, (x, y, x + columns, y + rows), counts, area)


def of_values(values: np.ndarray) -> Iterator[tuple[int | float, bytes]]:
    """Each value of a label map [height, width] and the COCO compressed run lengths of its pixels, in ascending order.

    One pass over the pixels for all of them: a map of a hundred segments costs little more than one of a single class.
    """
    height, width = values.shape
    flat = values.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]) if flat.size else np.zeros(0, int)
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(flat[starts][order])) + 1) if order.size else []
    for runs in groups:
        edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size)
        if not counts[-1]:  # it ends with the region: as pycocotools writes it
            counts = counts[:-1]
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
        yield flat[starts[runs[0]]].item(), rle["counts"]


def of_box(node: str, box: Box) -> Region:
    """The region of a box alone."""
    x0, y0, x1, y1 = box
    return Region(node, box, b"", (x1 - x0) * (y1 - y0))


def read_box(box: Any, width: int, height: int) -> Box:
    """Four checked floats (x0, y0, x1, y1), clipped to the image where they stick out by rounding; BadRecord
    otherwise."""
    numbers = isinstance(box, list | tuple) and all(
        isinstance(side, int | float) and math.isfinite(side) for side in box
    )
    if not numbers or len(box) != 4:
        raise BadRecord("not a box", f"expected four numbers [x0, y0, x1, y1], got {box!r}")
    x0, y0, x1, y1 = map(float, box)
    if x1 <= x0 or y1 <= y0:
        raise BadRecord("empty box", f"box {_show((x0, y0, x1, y1))}: expected x0 < x1 and y0 < y1")
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    outside = max(abs(a - b) for a, b in zip(clipped, (x0, y0, x1, y1), strict=True)) > SLACK
    if outside or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        detail = f"box {_show((x0, y0, x1, y1))}, image {width} x {height} px: expected pixels of this image"
        raise BadRecord("box outside the image", detail)
    return clipped


def tight_box(mask: np.ndarray) -> Box | None:
    """The smallest half-open box (x0, y0, x1, y1) around the pixels of a mask [height, width]; None if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share any area."""
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _show(box: Box) -> str:
    return f"({', '.join(f'{side:g}' for side in box)})"


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]} px"


def _chosen(value: Any) -> str:
    return "" if value is None else f" of value {value!r}"
