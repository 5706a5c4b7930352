"""The record: one encoded image with its labelled regions, as a corpus stores it and everything else reads it."""

import dataclasses
import io
from collections.abc import Sequence

import numba
import numpy as np
import pyspng
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from medp_clip_jax.errors import InputError

_PLAIN = (b"\x08\x00\x00\x00\x00", b"\x08\x02\x00\x00\x00")  # end of a PNG's header: 8 bits, grey or RGB, in rows


@dataclasses.dataclass(frozen=True)
class Region:
    """A labelled place: ontology id, box (x0, y0, x1, y1) in pixels of the stored image, half-open, the COCO
    compressed RLE counts of its whole-image mask (b"" where there is only a box), and its area in px (the box area
    without a mask)."""

    label: str
    box: tuple[float, float, float, float]
    rle: bytes
    area: float


@dataclasses.dataclass(frozen=True)
class RegionExample:
    """An image and what is known about it; texts are "" where unknown, `group` (patient or volume) is the image id
    where unknown, `flips` says that mirroring the image keeps its meaning."""

    image: bytes  # encoded PNG or JPEG
    width: int
    height: int
    dataset: str
    image_id: str
    group: str
    modality: str
    anatomy: str
    view: str
    caption: str
    image_labels: tuple[str, ...]  # ontology ids
    regions: tuple[Region, ...]
    flips: bool = False


def decode_image(data: bytes, max_side: int | None = None) -> np.ndarray:
    """Decodes PNG or JPEG bytes to uint8 [height, width, 3]; grey images are repeated over the channels, alpha is
    dropped.

    With `max_side` the longer side comes out at most that long (area-averaged; a JPEG is already decoded at a
    fraction of its size, which is several times faster). Grey images of more than 8 bits are stretched from their own
    range to 0..255, because medical 16-bit files seldom use the whole range. Raises InputError if the bytes cannot be
    read.
    """
    image = decode_picture(data, max_side)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if max_side is not None and max(image.size) > max_side:
        image = image.resize(fitting(image.size, max_side), Image.Resampling.BOX)
    return np.array(image, np.uint8)


def decode_picture(data: bytes, least_side: int | None = None) -> Image.Image:
    """Like `decode_image`, but a Pillow image of mode L or RGB, not scaled: only a JPEG is decoded at a fraction of its
    size where its longer side keeps `least_side`, which is faster."""
    plain = _plain_png(data)
    if plain is not None:
        return plain
    try:
        with Image.open(io.BytesIO(data)) as file:
            image: Image.Image = file
            if least_side is not None and max(image.size) > least_side:
                file.draft(file.mode, fitting(image.size, least_side))  # JPEG only: never smaller than asked for
            image.load()
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                image = to_8_bits(image)
            if image.mode not in ("L", "RGB"):
                image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        known = isinstance(error, UnidentifiedImageError)
        detail = "not an image format that is known here" if known else " ".join(str(error).split())
        raise InputError(f"cannot read the image ({detail}): give a complete PNG or JPEG file") from error


def _plain_png(data: bytes) -> Image.Image | None:
    """A PNG of 8-bit grey or colour by libspng, in four fifths of Pillow's time; None for everything else, and what
    is damaged."""
    header = data[:29]
    if header[:8] != b"\x89PNG\r\n\x1a\n" or header[24:] not in _PLAIN:
        return None
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    limit = Image.MAX_IMAGE_PIXELS
    if (limit and width * height > limit) or b"tRNS" in data[: data.find(b"IDAT")]:
        return None
    try:
        pixels = pyspng.load(data)
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    except Exception:  # Pillow says what is wrong with it
        return None


def fitting(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A size of the same aspect with the longer side `side`."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits or floats (Pillow's modes I, I;16 and F), stretched from its own finite minimum and
    maximum to 0..255; values that are not finite become the minimum, and so do all where none is."""
    values = np.asarray(image).astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, values[finite].min() if finite.any() else 0)
    low, high = float(values.min()), float(values.max())
    if high > low:
        values = (values - low) * (255 / (high - low))
    else:
        values = np.clip(values / 257, 0, 255)
    return Image.fromarray(np.round(values).astype(np.uint8))


def encode_mask(mask: np.ndarray) -> bytes:
    """COCO compressed RLE counts of a mask [height, width]; every non-zero pixel belongs to it."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"expected a mask [height, width], got shape {mask.shape}")
    return coco_mask.encode(np.asfortranarray(mask != 0).view(np.uint8))["counts"]


def decode_mask(rle: bytes, height: int, width: int) -> np.ndarray:
    """The mask, bool [height, width], of COCO compressed RLE counts; InputError if they do not fill exactly that
    size."""
    check_mask(rle, height, width)
    return coco_mask.decode({"size": [height, width], "counts": rle}).view(bool)


def check_mask(rle: bytes, height: int, width: int) -> None:
    """Raises InputError if COCO compressed RLE counts do not fill exactly that size."""
    mask_runs([rle], height, width)


def mask_runs(rles: Sequence[bytes], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths int64 [runs] of several masks as COCO compressed RLE counts, down the columns, the first of each
    outside the mask, one mask after the other, and how many runs each has, int64 [masks]; InputError if any does not
    fill exactly that size."""
    # pycocotools writes past its buffer on counts that overrun the image, so they are added up first
    stops = np.cumsum([len(rle) for rle in rles])
    runs, count = _runs(np.frombuffer(b"".join(rles), np.uint8), stops, height * width)
    if count.all():
        return runs, count
    problem = "is a box without a mask" if not all(rles) else f"has run lengths that do not fill {width} x {height} px"
    raise InputError(f"the region {problem}: ask `region.rle` first, or rebuild a damaged corpus")


@numba.njit(cache=True)
def _runs(text: np.ndarray, stops: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths and their number per mask, 0 from the first mask on whose string, which ends at its `stops` in the
    text, is none of COCO's or does not add up to `size`: base-32 digits, low first, bit 5 = more follow; from the
    fourth run of a mask on, differences to two back."""
    runs, count = np.empty(text.size, np.int64), np.zeros(stops.size, np.int64)
    total, place = 0, 0
    for mask in range(stops.size):
        first, filled = total, 0
        while place < stops[mask]:
            value, shift, digit = 0, 0, 32
            while digit & 32:
                digit = int(text[place]) - 48 if place < stops[mask] and shift < 60 else -1
                if digit < 0 or digit > 63:
                    return runs[:first], count
                value |= (digit & 31) << shift
                shift += 5
                place += 1
            if digit & 16:  # the sign
                value -= 1 << shift
            if total - first > 2:
                value += runs[total - 2]
            if value < 0 or value > size - filled:
                return runs[:first], count
            filled += value
            runs[total] = value
            total += 1
        if filled < size:
            return runs[:first], count
        count[mask] = total - first
    return runs[:total], count
