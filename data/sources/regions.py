"""One image or one region of a folder, checked; what is wrong with it is said in one line."""

import io
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from medp_clip_jax.errors import InputError
from medp_clip_jax.records import Region, decode_image, encode_mask

Row = Mapping[str, Any]
Box = tuple[float, float, float, float]
SLACK = 1.0  # px that a box may stick out, by rounding


class BadRecord(Exception):
    """A record that cannot be used: `reason` is what it is counted under, `detail` what was found and expected."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_image(path: pathlib.Path, row: Row) -> tuple[bytes, int, int]:
    """Encoded PNG or JPEG bytes (other formats become PNG), width and height; BadRecord if the file cannot be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRecord("missing image", f"{path} ({error.strerror}): put the file there") from error
    try:
        pixels = decode_image(data)
    except InputError as error:
        raise BadRecord("unreadable image", f"{path}: {error}") from error
    height, width = pixels.shape[:2]
    stated = row.get("width") or width, row.get("height") or height
    if stated != (width, height):
        detail = f"{path} is {width} x {height} px, the table says {stated[0]} x {stated[1]}: correct either"
        raise BadRecord("image of another size", detail)
    with Image.open(io.BytesIO(data)) as image:
        if image.format not in ("PNG", "JPEG"):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            data = buffer.getvalue()
    return data, width, height


def read_mask(path: pathlib.Path) -> np.ndarray:
    """The values of a mask file [height, width], several channels joined by their maximum; BadRecord if unreadable."""
    try:
        with Image.open(path) as file:
            file.load()
            image: Image.Image = file
            if image.mode in ("RGBA", "LA"):  # opacity says nothing about the region
                image = image.convert(image.mode[:-1])
            values = np.asarray(image)
    except FileNotFoundError as error:
        raise BadRecord("missing mask", f"{path}: put the file there, or set mask to null and give a box") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRecord(
            "unreadable mask", f"{path} ({' '.join(str(error).split())}): give a complete PNG file"
        ) from error
    return values if values.ndim == 2 else values.max(axis=-1)


def read_region(
    folder: pathlib.Path,
    row: Row,
    node: str,
    size: tuple[int, int],
    mask_of: Callable[[pathlib.Path], np.ndarray] = read_mask,
) -> Region:
    """The region of one annotation, labelled `node`, of an image of `size` (width, height); with a mask its box is the
    mask's tight box. BadRecord if it cannot be used."""
    width, height = size
    stated = None if row.get("box") is None else read_box(row["box"], width, height)
    if row.get("mask") is None:
        if stated is None:
            raise BadRecord("neither mask nor box", "give one of them")
        x0, y0, x1, y1 = stated
        return Region(node, stated, b"", (x1 - x0) * (y1 - y0))
    path = folder / str(row["mask"])
    values = mask_of(path)
    if values.shape != (height, width):
        detail = (
            f"{path} is {values.shape[1]} x {values.shape[0]} px, the image {width} x {height}: give a mask of its size"
        )
        raise BadRecord("mask of another size", detail)
    value = row.get("mask_value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise BadRecord("not a mask value", f"expected a number or null, got {value!r}")
    mask = values != 0 if value is None else values == value
    tight = tight_box(mask)
    if tight is None:
        chosen = "" if value is None else f" of value {value!r}"
        raise BadRecord("empty mask", f"{path} has no pixel{chosen}: correct the mask or remove the region")
    if stated is not None and not _overlap(stated, tight):
        detail = f"box {_show(stated)}, pixels of the mask in {_show(tight)}: correct mask_value or box"
        raise BadRecord("box and mask apart", detail)
    return Region(node, tight, encode_mask(mask), float(np.count_nonzero(mask)))


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


def _overlap(a: Box, b: Box) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _show(box: Box) -> str:
    return f"({', '.join(f'{side:g}' for side in box)})"
