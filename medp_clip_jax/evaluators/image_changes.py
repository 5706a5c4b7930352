"""What happens to pictures on their way: five changes of an image in three strengths, with its regions kept in place.

The kinds are those of ImageNet-C (arXiv 1903.12261) that scanners, archives and hands bring about. Which way a change
goes (brighter or darker, to the left or to the right) is a coin per image, from a seed.
"""

import dataclasses
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from medp_clip_jax.canvas import PADDING
from medp_clip_jax.records import Region, RegionExample, decode_image, decode_mask, encode_mask

STRENGTHS = {
    "intensity": (1.4, 2.0, 3.0),  # exponent of the values in [0, 1], or one over it
    "noise": (0.04, 0.08, 0.16),  # deviation of normal noise, of the range of values
    "blur": (0.004, 0.008, 0.016),  # deviation of a Gaussian, in longer image sides
    "rotation": (5.0, 15.0, 30.0),  # degrees about the centre; the picture grows, so that no region is lost
    "jpeg": (40, 20, 10),  # quality
}


@dataclasses.dataclass(frozen=True)
class ChangedCorpus:
    """The records of a corpus after one change of `STRENGTHS`, for `encode.encode_corpus`."""

    corpus: object
    change: str
    strength: float
    seed: int

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""
        return self.corpus.sources

    def source(self, name: str, split: str) -> "ChangedRecords":
        """See `Corpus.source`."""
        return ChangedRecords(self.corpus.source(name, split), self)


@dataclasses.dataclass(frozen=True)
class ChangedRecords(Sequence):
    """A source's records, each changed when it is read, always in the same way."""

    records: Sequence[RegionExample]
    by: ChangedCorpus

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> RegionExample:
        rng = np.random.default_rng((self.by.seed, index))
        return changed(self.records[index], self.by.change, self.by.strength, rng)


def changed(example: RegionExample, change: str, strength: float, rng: np.random.Generator) -> RegionExample:
    """A record after one change of `STRENGTHS`: same regions in the same order, boxes and masks moved where it turns.

    A mask that turning leaves without a pixel becomes a box. The image is stored as PNG, or JPEG for `jpeg`.
    """
    picture = Image.fromarray(decode_image(example.image))
    forward = bool(rng.integers(2))
    if change == "rotation":
        return _turned(example, picture, strength if forward else -strength)
    if change == "jpeg":
        return dataclasses.replace(example, image=_encoded(picture, "JPEG", quality=int(strength)))
    if change == "blur":
        picture = picture.filter(ImageFilter.GaussianBlur(strength * max(picture.size)))
    else:
        values = np.asarray(picture) / 255
        if change == "noise":
            values = values + rng.normal(0, strength, (*values.shape[:2], 1))  # grey stays grey
        else:
            values = values ** (strength if forward else 1 / strength)
        picture = Image.fromarray(np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8))
    return dataclasses.replace(example, image=_encoded(picture, "PNG", compress_level=1))


def _turned(example: RegionExample, picture: Image.Image, degrees: float) -> RegionExample:
    """Everything turned about the centre of the image, counter-clockwise; corners that were nowhere are padding."""

    def turn(image: Image.Image, how: Image.Resampling, fill: int | tuple[int, int, int]) -> Image.Image:
        return image.rotate(degrees, how, expand=True, fillcolor=fill)

    turned = turn(picture, Image.Resampling.BICUBIC, PADDING)
    angle = math.radians(degrees)

    def place(x: float, y: float) -> tuple[float, float]:
        dx, dy = x - picture.width / 2, y - picture.height / 2
        return (
            turned.width / 2 + math.cos(angle) * dx + math.sin(angle) * dy,
            turned.height / 2 - math.sin(angle) * dx + math.cos(angle) * dy,
        )

    regions = []
    for region in example.regions:
        mask = np.zeros((turned.height, turned.width), bool)
        if region.rle:
            drawn = Image.fromarray(decode_mask(region.rle, example.height, example.width).astype(np.uint8) * 255)
            mask = np.asarray(turn(drawn, Image.Resampling.NEAREST, 0)) > 0
        regions.append(_with_mask(region, mask) if mask.any() else _with_box(region, place, turned.size))
    image = _encoded(turned, "PNG", compress_level=1)
    return dataclasses.replace(example, image=image, width=turned.width, height=turned.height, regions=tuple(regions))


def _with_mask(region: Region, mask: np.ndarray) -> Region:
    (rows,), (columns,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return dataclasses.replace(region, box=box, rle=encode_mask(mask), area=float(mask.sum()))


def _with_box(region: Region, place: Callable[[float, float], tuple[float, float]], size: tuple[int, int]) -> Region:
    """The box around the turned corners of a region's box, within the picture."""
    x0, y0, x1, y1 = region.box
    corners = np.clip([place(x, y) for x in (x0, x1) for y in (y0, y1)], 0, size)
    low, high = corners.min(0), corners.max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return dataclasses.replace(region, box=box, rle=b"", area=(box[2] - box[0]) * (box[3] - box[1]))


def _encoded(picture: Image.Image, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
