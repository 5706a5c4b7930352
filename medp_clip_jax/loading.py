"""Records to pixels: decoding, the cache of decoded images, and the order in which a source is read."""

import dataclasses
import math
import sys
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image

from medp_clip_jax import spans
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import RegionExample, decode_picture, fitting
from medp_clip_jax.spans import Spans

_OVERSAMPLE = 1.5  # of the canvas: views of 60 % of the area need no upsampling


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A record without its encoded bytes, its picture (perhaps reduced; mode L where it is grey, else RGB), and its
    masks read so far.
    """

    example: RegionExample
    picture: Image.Image
    masks: dict[int, Spans]

    @property
    def pixels(self) -> np.ndarray:
        """The picture as uint8 [height, width] or [height, width, 3]."""
        return np.asarray(self.picture)


class ImageCache:
    """Random access to a source's records as `Loaded`; the first `limit` read, over all caches that share `count`, stay
    in memory.

    Nothing is evicted: under shuffled epochs a least-recently-used cache smaller than its source would never hit.
    """

    def __init__(
        self, records: Sequence[RegionExample], max_side: int, limit: int, count: list[int], lock: threading.Lock
    ):
        self._records, self._max_side, self._limit, self._count, self._lock = records, max_side, limit, count, lock
        self._kept: dict[int, Loaded] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Loaded:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        loaded = load_small(self._records[index], self._max_side)
        with self._lock:  # threads may decode one image twice, but count it once
            if index not in self._kept and self._count[0] < self._limit:
                self._count[0] += 1
                self._kept[index] = loaded
        return loaded

    def __getstate__(self) -> dict:
        """What a worker process needs: it has a lock and decoded images of its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | {"_kept": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class ShuffledEpochs:
    """Endless random access to records: every epoch is a permutation of its own, a function of seed and epoch.

    With `weights`, float [records], an epoch of n draws has record i floor or ceil of n * weights[i] / sum times:
    systematic resampling (Kitagawa, "Monte Carlo filter and smoother", 1996), with another start in each epoch. grain's
    own shuffle is not used because it needs milliseconds per index where a source has only tens of images.
    """

    def __init__(self, records: Sequence, seed: tuple[int, ...], weights: np.ndarray | None = None):
        self._records, self._seed, self._weights = records, seed, weights
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int):
        epoch, place = divmod(index, len(self._records))
        order = self._orders.get(epoch)
        if order is None:
            rng = np.random.default_rng((*self._seed, epoch))
            order = rng.permutation(len(self._records) if self._weights is None else _draws(self._weights, rng))
            near = {other: kept for other, kept in self._orders.items() if abs(other - epoch) == 1}
            self._orders = near | {epoch: order}  # threads may stand on both sides of an epoch's end
        return self._records[int(order[place])]


def _draws(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many indices as there are weights, each as often as its weight says, in order."""
    edges = np.cumsum(weights, dtype=np.float64)
    points = (rng.random() + np.arange(len(weights))) * (edges[-1] / len(weights))
    return np.minimum(np.searchsorted(edges, points, side="right"), len(weights) - 1)


def load(example: RegionExample, side: int) -> Loaded:
    """Decodes a record to at least `side` pixels on its longer side, if it has as many, perhaps to many more; grey
    images keep one channel. InputError names an unreadable record.
    """
    try:
        picture = decode_picture(example.image, side)
    except InputError as error:
        raise InputError(f"{example.dataset}/{example.image_id}: {error}") from error
    if picture.mode == "RGB" and _is_grey(picture):
        picture = picture.getchannel(0)
    return Loaded(dataclasses.replace(example, image=b""), picture, {})


def load_small(example: RegionExample, side: int) -> Loaded:
    """Like `load`, but at most twice `side`: what is kept in memory or scaled for several views."""
    loaded = load(example, side)
    if max(loaded.picture.size) <= 2 * side:
        return loaded
    small = loaded.picture.resize(fitting(loaded.picture.size, side), Image.Resampling.BOX)
    return dataclasses.replace(loaded, picture=small)


def _is_grey(picture: Image.Image) -> bool:
    """Whether the channels of a picture in RGB agree; a few pixels of its diagonal tell colour in nearly all cases."""
    width, height = picture.size
    for step in range(8):
        red, green, blue = picture.getpixel((step * width // 8, step * height // 8))
        if not red == green == blue:
            return False
    pixels = np.asarray(picture)
    return np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])


def region_spans(loaded: Loaded, indices: Sequence[int]) -> list[Spans]:
    """The masks of some regions, read together on first use; InputError names a bad record."""
    example = loaded.example
    missing = [index for index in indices if index not in loaded.masks]
    try:
        read = spans.read([example.regions[index].rle for index in missing], example.height, example.width)
    except InputError as error:
        raise InputError(f"{example.dataset}/{example.image_id}: {error}") from error
    loaded.masks.update(zip(missing, read, strict=True))
    return [loaded.masks[index] for index in indices]


def side_for(view: Sequence[float], example: RegionExample, size: int) -> int:
    """Longer side in pixels that a whole image needs for its view (x0, y0, x1, y1) to fill a canvas of `size`."""
    shown = max(view[2] - view[0], view[3] - view[1])
    return math.ceil(size * max(example.width, example.height) / max(shown, 1))


def max_side(config) -> int:
    """Longest side in pixels at which images are decoded once for all views: crops need all of them."""
    return sys.maxsize if config.input.view == "crop" else round(_OVERSAMPLE * config.model.image.size)
