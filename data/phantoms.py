"""Synthetic torsos with exact masks: the corpus that needs no download.

Each image is a coronal "slice" in the look of one of three modalities. It is drawn back to front in a patient frame (x
towards the patient's left, y towards the feet, 64 units a side whatever the image size), bent, turned, moved, and at
random mirrored. A pixel belongs to the structure drawn last on it, so all masks are visible masks: an organ's mask
leaves out whatever lies on it, findings included, which keeps a click unambiguous.

Some classes can only be told apart by context (`CONTEXT_TWINS`). The side of a lung or kidney follows from where heart
and liver lie, because half of the images are mirrored and both sides are drawn alike. The three lesions are one and the
same blob in one and the same halo, and the halo fills the blob's box with a 25 % margin: only what lies further out
tells the host.
"""

import io
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from data.phantom_shapes import Canvas, blank, erode, oval, patient_frame, tube
from medp_clip_jax import records

MODALITIES = ("ct", "mri", "ultrasound")
LUNGS, KIDNEYS = ("lung_left", "lung_right"), ("kidney_left", "kidney_right")
LESION_HOSTS = {"kidney_lesion": KIDNEYS, "liver_lesion": ("liver",), "lung_lesion": LUNGS}
CONTEXT_TWINS = (KIDNEYS, LUNGS, tuple(LESION_HOSTS))
CROP_MARGIN = 0.25
SMALLEST, LARGEST = 48, 256

# Grey value (0..1) in ct, mri, ultrasound. An organ differs from the body by .14 or more, a finding from its hosts by
# .3 or more. The order of the structures changes with the modality, so a grey value alone names nothing.
GREY = {
    "air": (0.02, 0.03, 0.02), "skin": (0.28, 0.80, 0.58), "body": (0.40, 0.34, 0.30), "fat": (0.34, 0.66, 0.24),
    "bone": (0.84, 0.56, 0.80), "trachea": (0.06, 0.04, 0.90), "lung": (0.12, 0.14, 0.58), "heart": (0.66, 0.54, 0.10),
    "vessel": (0.74, 0.10, 0.08), "liver": (0.62, 0.62, 0.56), "stomach": (0.22, 0.84, 0.72),
    "spleen": (0.72, 0.14, 0.12), "kidney": (0.76, 0.40, 0.46), "urinary_bladder": (0.20, 0.92, 0.06),
    "hepatic_vessel": (0.96, 0.08, 0.92), "catheter": (1.00, 0.00, 1.00), "halo": (0.30, 0.74, 0.16),
    "lesion": (0.70, 0.24, 0.64), "cyst": (0.12, 0.96, 0.04), "abscess": (0.96, 0.96, 0.96),
    "abscess_core": (0.16, 0.16, 0.16), "calcification": (1.00, 0.00, 1.00), "lymph_node": (0.80, 0.04, 0.86),
}  # fmt: skip

# Organs as ovals, drawn in this order: centre x, y, half-axes, rotation in radians, egg (the lower end is wider).
OVALS = {
    "lung_right": (-16.5, -16.0, 4.6, 7.8, -0.08, 0.25), "lung_left": (16.5, -16.0, 4.6, 7.8, 0.08, 0.25),
    "heart": (4.0, -11.0, 4.5, 5.4, -0.5, -0.10), "liver": (-11.5, 2.4, 5.2, 10.8, 1.4, 0.3),
    "stomach": (8.6, 2.2, 4.2, 4.4, 0.4, -0.15), "spleen": (18.2, 2.8, 3.0, 4.8, 0.2, 0.0),
    "urinary_bladder": (0.0, 25.2, 4.8, 2.9, 0.0, 0.0),
}  # fmt: skip
VERTEBRAE = np.arange(-21.0, 22.0, 5.4)

# How often a structure that is in the picture becomes a region, relative to the others.
ORGAN_WEIGHT = {
    "lung_left": 1.0, "lung_right": 1.0, "heart": 0.6, "liver": 0.6, "spleen": 0.8, "stomach": 0.8, "kidney_left": 2.0,
    "kidney_right": 2.0, "aorta": 0.8, "inferior_vena_cava": 0.8, "vertebra": 0.8, "trachea": 0.8,
    "urinary_bladder": 0.8,
}  # fmt: skip
# How often a finding is drawn; in drawing order, since what comes first finds more room.
FINDING_WEIGHT = {
    "hepatic_vessel": 0.8, "catheter": 0.8, "kidney_lesion": 1.4, "liver_lesion": 1.8, "lung_lesion": 1.4,
    "abscess": 1.1, "cyst": 1.2, "calcification": 1.2, "lymph_node": 0.9,
}  # fmt: skip
HOSTS = {
    "hepatic_vessel": ("liver",), "abscess": ("liver", *LUNGS, "body"), "cyst": ("liver", *KIDNEYS),
    "calcification": ("liver", "heart"), "lymph_node": ("body",),
}  # fmt: skip
RADIUS = {"hepatic_vessel": 4.0, "abscess": 2.9, "cyst": 2.0, "calcification": 2.1, "lymph_node": 1.6}

CLASSES = tuple(sorted([*ORGAN_WEIGHT, *FINDING_WEIGHT]))
LAYERS = ("air", "skin", "body", "bone", "fat", *CLASSES)
LAYER = {name: number for number, name in enumerate(LAYERS)}
FEWEST_REGIONS, MOST_REGIONS = 5, 9
SMALLEST_ORGAN = 8.0  # square units in view; a sliver of an organ is not a region


def _draw_organs(rng: np.random.Generator, canvas: Canvas, x: np.ndarray, y: np.ndarray, tone: dict) -> None:
    """Draws the torso back to front. All vertebrae are drawn; one of them is the region "vertebra"."""
    unit = np.float32(canvas.unit)
    waist = x * (1 + np.float32(0.045) * np.sin(np.float32(0.13) * y))
    torso = oval(waist, y, (0, 0), (rng.uniform(25.5, 27.0), 30.0), power=4)
    canvas.grey[:] = tone["air"]
    canvas.paint(LAYER["skin"], torso * unit, tone["skin"])
    rim = np.float32(rng.uniform(1.4, 2.0))
    canvas.paint(LAYER["body"], (torso - rim) * unit, tone["body"])
    ribs = np.minimum(np.float32(0.9) - np.abs(torso - rim - np.float32(1.2)), 11 - np.abs(y + 12))
    ribs = np.minimum(ribs, np.float32(1.1) - np.abs(np.mod(y + np.float32(rng.uniform(0, 4)), 4) - 2))
    canvas.paint(LAYER["bone"], ribs * unit, tone["bone"])
    heights = (VERTEBRAE + rng.uniform(-0.5, 0.5)).astype(np.float32)
    nearest = np.clip(np.rint((y - heights[0]) * np.float32(1 / 5.4)), 0, len(heights) - 1)
    spine = np.abs(y - heights[0] - nearest * np.float32(5.4))
    spine = np.minimum(np.float32(2.1) - np.abs(x), np.float32(1.9) - spine) * unit
    canvas.paint(LAYER["bone"], spine, tone["bone"])
    canvas.shows[(spine >= 0) & (nearest == rng.integers(3, len(heights)))] = LAYER["vertebra"]
    trachea = tube(x, y, 0, -27.5, rng.uniform(-19, -17), 1.3, rng.uniform(-0.6, 0.6))
    canvas.paint(LAYER["trachea"], trachea * unit, tone["trachea"])
    for label, side in (("inferior_vena_cava", -4.0), ("aorta", 4.0)):
        ends, width, bow = (rng.uniform(-8, -4), rng.uniform(15, 19)), rng.uniform(1.0, 1.2), rng.uniform(-0.5, 0.5)
        canvas.paint(LAYER[label], tube(x, y, side, *ends, width, bow) * unit, tone["vessel"])
    for label, (left, top, wide, high, angle, egg) in OVALS.items():
        move, stretch = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.9, 1.06, 2)
        centre, axes = (left + move[0], top + move[1]), (wide * stretch[0], high * stretch[1])
        shape = oval(x, y, centre, axes, angle + rng.uniform(-0.12, 0.12), egg)
        canvas.paint(LAYER[label], shape * unit, tone["lung" if label in LUNGS else label])
    for label, side in zip(KIDNEYS, (1.0, -1.0), strict=True):
        _draw_kidney(rng, canvas, x, y, label, side, tone)


def _draw_kidney(rng: np.random.Generator, canvas: Canvas, x, y, label: str, side: float, tone: dict) -> None:
    """A bean in a capsule of fat that fills the bean's box with its margin: no neighbour gives the side away."""
    unit = np.float32(canvas.unit)
    centre = np.array((11.5 * side, 18.4)) + rng.uniform(-0.8, 0.8, 2)
    axes, angle = np.array((4.1, 5.1)) * rng.uniform(0.92, 1.06, 2), -side * rng.uniform(0.0, 0.2)
    canvas.paint(LAYER["fat"], oval(x, y, centre, axes * 1.55, angle, power=4) * unit, tone["fat"])
    hilum = oval(x, y, centre - (side * axes[0] * 1.05, 0), (1.7, 2.0))
    canvas.paint(LAYER[label], np.minimum(oval(x, y, centre, axes, angle), -hilum) * unit, tone["kidney"])


def _place(rng: np.random.Generator, canvas: Canvas, hosts: Sequence[str], inner: int, outer: int):
    """Takes a free square of half-side `outer` pixels whose inner square is all one of the hosts and whose rest is that
    host, body or fat. Returns (window, x, y), x and y in pixels from its centre, or None where there is no room."""
    for host in rng.permutation(hosts):
        table = np.zeros(len(LAYERS), bool)
        table[LAYER[host]] = True
        core = erode(table[canvas.shows], inner)
        table[[LAYER["body"], LAYER["fat"]]] = True
        places = np.flatnonzero(core & erode(table[canvas.shows] & ~canvas.taken, outer))
        if len(places):
            row, column = divmod(int(places[rng.integers(len(places))]), canvas.shows.shape[1])
            window = (slice(row - outer, row + outer + 1), slice(column - outer, column + outer + 1))
            canvas.taken[window] = True
            ticks = np.arange(-outer, outer + 1, dtype=np.float32)
            return window, ticks[None, :], ticks[:, None]
    return None


def _draw_lesion(rng: np.random.Generator, canvas: Canvas, label: str, tone: dict) -> None:
    """The same blob and halo whatever the host: drawn in pixels, so that no bend or turn tells the place."""
    axes = rng.uniform(1.35, 1.75) * canvas.unit * rng.uniform(0.92, 1.08, 2)
    offset, angle = rng.uniform(-0.4, 0.4, 2), rng.uniform(0, np.pi)
    # The blob's box reaches `half` from the centre; power 4 and a pixel more keep the soft rim out of the wider box.
    # Room is sought for the widest blob: else small organs would get small lesions, and the size would tell the host.
    half, widest = (np.floor(reach + 0.4) + 0.5 for reach in (max(axes), 1.75 * 1.08 * canvas.unit))
    rim, room = (reach * (1 + 2 * CROP_MARGIN) * 2 ** (1 / 4) + 1.0 for reach in (half, widest))
    found = _place(rng, canvas, LESION_HOSTS[label], int(widest), int(np.ceil(room)))
    if found:
        window, x, y = found
        canvas.paint(None, oval(x, y, (0, 0), (rim, rim), power=4), tone["halo"], window)
        canvas.paint(LAYER[label], oval(x, y, offset, axes, angle), tone["lesion"], window)


def _draw_catheter(rng: np.random.Generator, canvas: Canvas, x: np.ndarray, y: np.ndarray, tone: dict) -> None:
    """A thin line from one side of the neck, which says nothing about the patient's side, into the heart."""
    start, end = rng.choice((-7.0, 7.0)) + rng.uniform(-1, 1), 2.8 + rng.uniform(-1, 1)
    top, bottom, bow = -27.0, rng.uniform(-13, -8), rng.uniform(-1.5, 1.5)
    share = (y - np.float32(top)) * np.float32(1 / (bottom - top))
    centre = np.float32(start) + (np.float32(end - start) + np.float32(4 * bow) * (1 - share)) * share
    length = (1 - np.abs(2 * share - 1)) * np.float32((bottom - top) / 2)
    line = np.minimum(np.float32(0.75) - np.abs(x - centre) * np.float32(0.85), length) * np.float32(canvas.unit)
    canvas.paint(LAYER["catheter"], line, tone["catheter"])
    canvas.taken |= line > -1.5


def _draw_finding(rng: np.random.Generator, canvas: Canvas, label: str, tone: dict) -> None:
    """A cyst, abscess, lymph node, calcification or hepatic vessel, if one of its hosts has room."""
    unit, radius = canvas.unit, canvas.unit * RADIUS[label] * rng.uniform(0.88, 1.12)
    inner = 0.4 * radius if label == "hepatic_vessel" else 0.8 * radius
    found = _place(rng, canvas, HOSTS[label], int(np.ceil(inner)), int(np.ceil(radius)))
    if not found:
        return
    window, x, y = found
    axes, angle = radius * rng.uniform(0.92, 1.08, 2), rng.uniform(0, np.pi)
    if label == "calcification":
        dots = np.concatenate(([[0.0, 0.0]], rng.uniform(-0.8, 0.8, (rng.integers(2, 5), 2)) * radius))
        dots = dots.astype(np.float32)
        distance = np.sqrt((x[..., None] - dots[:, 0]) ** 2 + (y[..., None] - dots[:, 1]) ** 2).min(-1)
        shape = np.float32(0.8 * unit) - distance
    elif label == "hepatic_vessel":
        along, aside = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        bent = np.abs(aside - rng.uniform(-0.5, 0.5) / radius * along**2)
        shape = np.minimum(np.float32(0.8 * unit) - bent, np.float32(radius) - np.abs(along))
        shape = np.where(canvas.shows[window] == LAYER["liver"], shape, np.float32(-1))
    else:
        shape = oval(x, y, (0, 0), axes * (1.2, 0.85) if label == "lymph_node" else axes, angle)
    canvas.paint(LAYER[label], shape, tone[label], window)
    if label == "abscess":
        canvas.paint(LAYER[label], shape - np.float32(1.15 * unit), tone["abscess_core"], window)


def _develop(rng: np.random.Generator, grey: np.ndarray, modality: str) -> np.ndarray:
    """Adds tissue texture and what the modality adds: uneven gain in a random direction, grain or speckle, gamma."""
    size, ticks = len(grey), np.linspace(-1, 1, len(grey), dtype=np.float32)
    strength = {"ct": 0.03, "mri": 0.16, "ultrasound": 0.14}[modality] * rng.uniform(0.5, 1.0)
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    coarse = Image.fromarray(rng.standard_normal((13, 13), np.float32))
    field = 1 + np.float32(0.04) * np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    field += np.float32(strength * np.cos(angle)) * ticks
    wave = np.float32(0.5 * strength) * np.sin(np.float32(3) * ticks + np.float32(phase))
    field += (np.float32(strength * np.sin(angle)) * ticks + wave)[:, None]
    noise = rng.standard_normal((size, size), np.float32)
    if modality == "ct":
        grey = grey * field + np.float32(rng.uniform(0.02, 0.045)) * noise
    elif modality == "mri":
        sigma = np.float32(rng.uniform(0.02, 0.04))
        grey = np.hypot(grey * field + sigma * noise, sigma * rng.standard_normal((size, size), np.float32))
    else:
        noise[:, 1:] = np.float32(0.8) * noise[:, 1:] + np.float32(0.6) * noise[:, :-1]
        speckle = 1 + np.float32(rng.uniform(0.08, 0.14)) * noise
        grey = grey * field * speckle + np.float32(0.015) * np.abs(noise)
    grey = np.clip(grey, 0.0, 1.0) ** np.float32(rng.uniform(0.8, 1.1)) * np.float32(rng.uniform(225, 255))
    return (grey + np.float32(0.5)).astype(np.uint8)


def _render(rng: np.random.Generator, size: int, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """One torso, not mirrored (the patient's left on the right): uint8 grey [size, size], the layer of each pixel."""
    column, pairs = MODALITIES.index(modality), zip(GREY.items(), rng.uniform(-0.03, 0.03, len(GREY)), strict=True)
    tone = {name: min(max(grey[column] + shift, 0.0), 1.0) for (name, grey), shift in pairs}
    canvas = blank(size)
    x, y = patient_frame(rng, size)
    _draw_organs(rng, canvas, x, y, tone)
    weights = np.array(list(FINDING_WEIGHT.values()))
    drawn = rng.choice(list(FINDING_WEIGHT), rng.integers(3, 6), replace=False, p=weights / weights.sum())
    for label in sorted(drawn, key=list(FINDING_WEIGHT).index):
        if label == "catheter":
            _draw_catheter(rng, canvas, x, y, tone)
        elif label in LESION_HOSTS:
            _draw_lesion(rng, canvas, label, tone)
        else:
            _draw_finding(rng, canvas, label, tone)
    return _develop(rng, canvas.grey, modality), canvas.shows


def _pick_regions(rng: np.random.Generator, shows: np.ndarray) -> list[str]:
    """Every finding and a random few of the organs in view, five to nine in all."""
    pixels = np.bincount(shows.ravel(), minlength=len(LAYERS)) * (64.0 / len(shows)) ** 2
    findings = [label for label in FINDING_WEIGHT if pixels[LAYER[label]]]
    organs = [label for label in ORGAN_WEIGHT if pixels[LAYER[label]] >= SMALLEST_ORGAN]
    wanted = rng.integers(max(FEWEST_REGIONS, len(findings) + 1), MOST_REGIONS + 1) - len(findings)
    weights = np.array([ORGAN_WEIGHT[label] for label in organs])
    picked = rng.choice(organs, wanted, replace=False, p=weights / weights.sum())
    return sorted([*findings, *picked.tolist()])


def _region(label: str, mask: np.ndarray) -> records.Region:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return records.Region(label, box, records.encode_mask(mask), float(np.count_nonzero(mask)))


def phantom_examples(split: str, count: int, seed: int = 0, size: int = 64) -> Iterator[records.RegionExample]:
    """Yields `count` phantoms of size x size pixels with 5 to 9 regions each, one per class at most. Example i depends
    on (split, i, seed, size) alone, so a longer run begins with a shorter one. `image_labels` are the findings in the
    picture; mirroring an image keeps its labels true (`flips`). Raises ValueError for a size outside 48..256."""
    for index in range(count):
        yield phantom_example(split, index, seed, size)


def phantom_example(split: str, index: int, seed: int, size: int) -> records.RegionExample:
    """Example `index` of `phantom_examples`."""
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"phantom size: expected {SMALLEST} to {LARGEST} pixels, got {size}")
    rng = np.random.default_rng((seed, zlib.crc32(split.encode()), index))
    modality, mirrored = MODALITIES[rng.integers(len(MODALITIES))], rng.random() < 0.5
    image, shows = _render(rng, size, modality)
    if mirrored:
        image, shows = image[:, ::-1], shows[:, ::-1]
    labels = _pick_regions(rng, shows)
    png = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(png, format="PNG", compress_level=1)
    name = f"{split}_{seed}_{index:06d}"
    return records.RegionExample(
        png.getvalue(), size, size, dataset="phantoms", image_id=name, group=name, modality=modality,
        anatomy="torso", view="coronal", caption="", flips=True,
        image_labels=tuple(label for label in labels if label in FINDING_WEIGHT),
        regions=tuple(_region(label, shows == LAYER[label]) for label in labels),
    )  # fmt: skip
