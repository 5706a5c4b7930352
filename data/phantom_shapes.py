"""Shapes as signed distances, and the canvas that phantoms.py draws them on."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Canvas:
    """A picture in the making: [size, size] grey values, the layer each pixel shows, and where no finding may go."""

    unit: float  # pixels per unit
    grey: np.ndarray
    shows: np.ndarray
    taken: np.ndarray

    def paint(self, layer: int | None, distance: np.ndarray, value: float, window=slice(None)) -> None:
        """Draws a shape given by its signed distance in pixels (positive inside; the edge is one pixel soft and the
        mask ends where half a pixel is covered). Layer None changes grey values only."""
        cover = np.clip(distance + np.float32(0.5), 0.0, 1.0)
        view = self.grey[window]
        view += cover * (np.float32(value) - view)
        if layer is not None:
            self.shows[window][cover >= 0.5] = layer


def blank(size: int) -> Canvas:
    """An empty canvas of 64 units a side."""
    shape = (size, size)
    return Canvas(size / 64.0, np.zeros(shape, np.float32), np.zeros(shape, np.uint8), np.zeros(shape, bool))


def patient_frame(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel lies in the patient: x, y in units, [size, size] each. The patient is turned by up to 10
    degrees, scaled, moved, and bent by two waves."""
    ticks = ((np.arange(size) + 0.5) * 64.0 / size - 32.0).astype(np.float32)
    angle, scale = rng.uniform(-0.17, 0.17), rng.uniform(0.88, 0.98)
    cosine, sine = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    across, down = (ticks - np.float32(shift) for shift in rng.uniform(-2.5, 2.5, 2))
    x = cosine * across[None] + sine * down[:, None]
    y = cosine * down[:, None] - sine * across[None]
    wave = rng.uniform(-0.14, 0.14, 4).astype(np.float32)
    phase = rng.uniform(0.0, 2.0 * np.pi, 2).astype(np.float32)
    bent_x = x + np.float32(0.8) * np.sin(wave[0] * x + wave[1] * y + phase[0])
    bent_y = y + np.float32(0.8) * np.sin(wave[2] * x + wave[3] * y + phase[1])
    return bent_x, bent_y


def oval(x, y, centre, axes, angle=0.0, egg=0.0, power=2) -> np.ndarray:
    """Signed distance (to first order) to an oval; `egg` widens the lower end, power 4 squares it off."""
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across, down = x - np.float32(centre[0]), y - np.float32(centre[1])
    u = (cosine * across + sine * down) * np.float32(1 / axes[0])
    v = (cosine * down - sine * across) * np.float32(1 / axes[1])
    if egg:
        u = u * (1 - np.float32(egg) * v)
    u, v = u * u, v * v
    radius = np.sqrt(u + v) if power == 2 else np.sqrt(np.sqrt(u * u + v * v))
    return (1 - radius) * np.float32(min(axes))


def tube(x, y, middle, top, bottom, width, bow) -> np.ndarray:
    """Signed distance to an upright tube around x = middle that bows sideways by `bow` half way down."""
    share = (y - np.float32(top)) * np.float32(1 / (bottom - top))
    centre = np.float32(middle) + np.float32(4 * bow) * share * (1 - share)
    length = np.float32((bottom - top) / 2) - np.abs(y - np.float32((top + bottom) / 2))
    return np.minimum(np.float32(width) - np.abs(x - centre), length)


def erode(mask: np.ndarray, reach: int) -> np.ndarray:
    """Where the square of half-side `reach` pixels around a pixel lies wholly in the mask; False near the border."""
    side = 2 * reach + 1
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    total[1:, 1:] = mask.cumsum(0, dtype=np.int32).cumsum(1)
    full = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    inside = np.zeros_like(mask)
    inside[reach : mask.shape[0] - reach, reach : mask.shape[1] - reach] = full == side * side
    return inside
