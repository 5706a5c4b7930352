"""Synthetic torsos with exact masks: the corpus that needs no download.

Each image is a coronal "slice" in the look of one of three modalities. It is drawn back to front in a patient frame (x towards the patient's left,
y towards the feet, 64 units across whatever the image size), bent, rotated, moved and at random mirrored. A pixel belongs to the structure
drawn last on it, so all masks are visible masks: an organ's mask leaves out what lies on top of it, findings included, which keeps a click unambiguous.

Some classes can only be told apart by context (`CONTEXT_TWINS`). The side of a lung or kidney follows from where heart and liver lie, because half
of the images are mirrored and both sides are drawn alike. The three lesions are one and the same blob in one and the same halo, and the halo
fills the lesion's box with a 25 % margin: only what lies further out tells the host.
"""

import dataclasses
import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from medp_clip_jax import records

MODALITIES = ("ct", "mri", "ultrasound")
LESION_HOSTS = {"lung_lesion": ("lung_left", "lung_right"), "liver_lesion": ("liver",), "kidney_lesion": ("kidney_left", "kidney_right")}
CONTEXT_TWINS = (("kidney_left", "kidney_right"), ("lung_left", "lung_right"), tuple(sorted(LESION_HOSTS)))
CROP_MARGIN = 0.25

# Grey value (0..1) of every structure in ct, mri, ultrasound. Neighbours differ by at least .12, findings from what they lie on by .3, and the order
# of the structures changes with the modality, so a grey value alone names nothing.
GREY = {
    "air": (0.02, 0.03, 0.02), "skin": (0.26, 0.80, 0.56), "body": (0.44, 0.36, 0.36), "fat": (0.28, 0.72, 0.20),
    "vertebra": (0.86, 0.55, 0.82), "trachea": (0.06, 0.04, 0.90), "lung_left": (0.12, 0.14, 0.68), "heart": (0.64, 0.62, 0.12),
    "aorta": (0.74, 0.10, 0.08), "liver": (0.58, 0.50, 0.50), "stomach": (0.24, 0.84, 0.70), "spleen": (0.66, 0.20, 0.56),
    "kidney_left": (0.76, 0.42, 0.42), "urinary_bladder": (0.20, 0.92, 0.06), "hepatic_vessel": (0.92, 0.10, 0.90),
    "catheter": (1.00, 0.00, 1.00), "halo": (0.30, 0.72, 0.16), "lesion": (0.68, 0.26, 0.62), "cyst": (0.12, 0.96, 0.04),
    "abscess": (0.94, 0.94, 0.94), "abscess_core": (0.16, 0.16, 0.16), "calcification": (1.00, 0.00, 1.00), "lymph_node": (0.80, 0.06, 0.84),
}
TWIN_GREY = {"lung_right": "lung_left", "kidney_right": "kidney_left", "inferior_vena_cava": "aorta"}

# Organs as ovals: centre x, y, half-axes, rotation in radians, and egg (how much wider the lower end is). Drawn in this order.
OVALS = {
    "lung_right": (-15.5, -15.5, 4.8, 8.0, -0.08, 0.25), "lung_left": (15.5, -15.5, 4.8, 8.0, 0.08, 0.25),
    "heart": (3.2, -11.0, 5.0, 5.6, -0.5, -0.10), "liver": (-11.0, 3.5, 10.0, 5.6, -0.15, 0.0),
    "stomach": (8.6, 2.8, 4.2, 4.4, 0.4, -0.15), "spleen": (18.0, 4.0, 3.0, 4.8, 0.2, 0.0), "urinary_bladder": (0.0, 26.0, 4.8, 2.9, 0.0, 0.0),
}
VERTEBRAE = np.arange(-21.0, 22.0, 5.4)
KIDNEYS = {"kidney_right": -1.0, "kidney_left": 1.0}

# How often a structure that is in the picture becomes a region, relative to the others.
ORGAN_WEIGHT = {
    "lung_left": 1.0, "lung_right": 1.0, "heart": 0.6, "liver": 0.6, "spleen": 0.9, "stomach": 0.9, "kidney_left": 1.5, "kidney_right": 1.5,
    "aorta": 0.8, "inferior_vena_cava": 0.8, "vertebra": 0.8, "trachea": 0.8, "urinary_bladder": 0.8,
}
FINDING_WEIGHT = {
    "lung_lesion": 1.5, "liver_lesion": 1.5, "kidney_lesion": 1.5, "cyst": 0.9, "abscess": 0.9, "calcification": 0.9, "lymph_node": 0.9,
    "hepatic_vessel": 0.9, "catheter": 0.9,
}
CLASSES = tuple(sorted([*ORGAN_WEIGHT, *FINDING_WEIGHT]))
FINDING_HOSTS = {
    **LESION_HOSTS, "cyst": ("liver", "kidney_left", "kidney_right", "spleen"), "abscess": ("liver", "lung_left", "lung_right", "body"),
    "calcification": ("liver", "spleen", "heart"), "lymph_node": ("body",),
}
LAYERS = ("air", "skin", "body", "fat", *CLASSES)
LAYER = {name: number for number, name in enumerate(LAYERS)}


@dataclasses.dataclass
class _Canvas:
    """A picture in the making: grey float32 [size, size], the layer each pixel shows, and every pixel's place in the patient and in the image (units)."""

    unit: float  # pixels per unit
    grey: np.ndarray
    shows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    column: np.ndarray
    row: np.ndarray

    def paint(self, layer: str, distance: np.ndarray, value: float) -> np.ndarray:
        """Draws a shape given by its signed distance in units (positive inside), with edges one pixel soft; returns its mask."""
        cover = np.clip(distance * self.unit + 0.5, 0.0, 1.0)
        self.grey += cover * (value - self.grey)
        mask = cover >= 0.5
        self.shows[mask] = LAYER[layer]
        return mask


def _blank(rng: np.random.Generator, size: int) -> _Canvas:
    """An empty canvas whose patient frame is bent by two waves, turned by up to 10 degrees, scaled and moved."""
    unit = size / 64.0
    ticks = ((np.arange(size, dtype=np.float32) + 0.5) / unit - 32.0).astype(np.float32)
    column, row = np.broadcast_to(ticks[None, :], (size, size)), np.broadcast_to(ticks[:, None], (size, size))
    angle, scale = rng.uniform(-0.17, 0.17), rng.uniform(0.86, 1.0)
    move = rng.uniform(-2.5, 2.5, 2)
    cosine, sine = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    across, down = column - np.float32(move[0]), row - np.float32(move[1])
    x, y = cosine * across + sine * down, cosine * down - sine * across
    wave = rng.uniform(0.10, 0.16, 4).astype(np.float32)
    phase = rng.uniform(0.0, 2.0 * np.pi, 2).astype(np.float32)
    bent_x = x + np.float32(0.8) * np.sin(wave[0] * y + wave[1] * x + phase[0])
    bent_y = y + np.float32(0.8) * np.sin(wave[2] * x + wave[3] * y + phase[1])
    return _Canvas(unit * scale, np.zeros((size, size), np.float32), np.zeros((size, size), np.int16), bent_x, bent_y, column, row)


def _oval(x, y, centre, axes, angle=0.0, egg=0.0, power=2):
    """Signed distance (first order) to an oval; `egg` widens the lower end, `power` above 2 squares it off."""
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across, down = x - np.float32(centre[0]), y - np.float32(centre[1])
    u = (cosine * across + sine * down) / np.float32(axes[0])
    v = (cosine * down - sine * across) / np.float32(axes[1])
    if egg:
        u = u * (1 - np.float32(egg) * v)
    if power == 2:
        radius = np.sqrt(u * u + v * v)
    else:
        radius = (np.abs(u) ** power + np.abs(v) ** power) ** np.float32(1.0 / power)
    return (1 - radius) * np.float32(min(axes))


def _tube(x, y, middle, top, bottom, width, bow):
    """Signed distance to a vertical tube around x = middle, bowed sideways by `bow` units half way down."""
    share = (y - np.float32(top)) / np.float32(bottom - top)
    centre = np.float32(middle) + np.float32(4 * bow) * share * (1 - share)
    return np.minimum(np.float32(width) - np.abs(x - centre), np.float32((bottom - top) / 2) - np.abs(y - np.float32((top + bottom) / 2)))


def _organs(rng: np.random.Generator, canvas: _Canvas, tone: dict[str, float]) -> str:
    """Draws the torso back to front; one vertebral body alone becomes the region "vertebra"."""
    x, y = canvas.x, canvas.y
    waist = rng.uniform(24.5, 26.5)
    torso = _oval(x, y, (0, 0), (waist, 30.5), power=4)
    canvas.grey[:] = tone["air"]
    canvas.paint("skin", torso, tone["skin"])
    canvas.paint("body", torso - np.float32(rng.uniform(1.4, 2.2)), tone["body"])
    chosen = rng.integers(2, len(VERTEBRAE) - 1)
    heights = VERTEBRAE + rng.uniform(-0.5, 0.5)
    spine = np.abs(y[..., None] - heights.astype(np.float32)).min(-1) if False else _nearest(y, heights)
    canvas.paint("body", np.minimum(np.float32(2.1) - np.abs(x), np.float32(1.9) - spine), tone["vertebra"])
    canvas.paint("vertebra", np.minimum(np.float32(2.1) - np.abs(x), np.float32(1.9) - np.abs(y - np.float32(heights[chosen]))), tone["vertebra"])
    canvas.paint("trachea", _tube(x, y, 0, -28.5, -18.5 + rng.uniform(-1, 1), 1.2, rng.uniform(-0.6, 0.6)), tone["trachea"])
    for layer, side in (("inferior_vena_cava", -1), ("aorta", 1)):
        top, bottom = rng.uniform(-8, -4), rng.uniform(15, 20)
        canvas.paint(layer, _tube(x, y, 3.9 * side, top, bottom, rng.uniform(0.95, 1.2), rng.uniform(-0.5, 0.5)), tone[layer])
    for layer, (left, top, wide, high, angle, egg) in OVALS.items():
        jitter, stretch = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.88, 1.08, 2)
        shape = _oval(x, y, (left + jitter[0], top + jitter[1]), (wide * stretch[0], high * stretch[1]), angle + rng.uniform(-0.15, 0.15), egg)
        canvas.paint(layer, shape, tone[layer])
    for layer, side in KIDNEYS.items():
        _kidney(rng, canvas, layer, side, tone)


def _nearest(y, heights):
    """Distance to the nearest of evenly spaced heights, without a [size, size, count] array."""
    step = heights[1] - heights[0]
    index = np.clip(np.rint((y - np.float32(heights[0])) / np.float32(step)), 0, len(heights) - 1)
    return np.abs(y - np.float32(heights[0]) - index * np.float32(step))
