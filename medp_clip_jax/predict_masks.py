"""What `predict --segment` adds: several prompts from a file, and masks as pictures and run lengths."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from medp_clip_jax.errors import InputError
from medp_clip_jax.mask_images import on_image, to_rle
from medp_clip_jax.overlay import Shape
from medp_clip_jax.prompts import RegionPrompts

KEYS = {"box": 4, "points": 2, "negative_points": 2}


def read_prompts(path: pathlib.Path) -> list[Shape]:
    """Regions from a JSON file: a list of {"box": [x0, y0, x1, y1], "points": [[x, y], ...], "negative_points": ...} in
    pixels, each with at least one of these; InputError says which entry is not."""
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); give a list of regions") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list of regions, such as [{{'box': [30, 40, 120, 160]}}]")
    shapes = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not entry or set(entry) - set(KEYS):
            raise InputError(f"{path}: region {number}: expected some of {', '.join(KEYS)}, got {entry!r}")
        try:
            box = tuple(float(value) for value in entry["box"]) if "box" in entry else None
            clicks = [tuple((float(x), float(y)) for x, y in entry.get(key, ())) for key in list(KEYS)[1:]]
        except (TypeError, ValueError):
            raise InputError(f"{path}: region {number}: expected numbers in pixels, got {entry!r}") from None
        if box is not None and len(box) != 4:
            raise InputError(f"{path}: region {number}: expected a box of 4 numbers, got {len(box)}")
        shapes.append(Shape("", box, *clicks))
    return shapes


def shape_prompts(shapes: Sequence[Shape], size: tuple[int, int]) -> RegionPrompts:
    """Prompts [1, regions] of regions without masks on an image of `size` (width, height); InputError if they do not
    fit it."""
    most = max(1, *(len(shape.points) + len(shape.negative_points) for shape in shapes))
    parts = []
    for shape in shapes:
        labels = [1] * len(shape.points) + [0] * len(shape.negative_points)
        clicks = [*shape.points, *shape.negative_points, *[(0.0, 0.0)] * (most - len(labels))]
        labels += [-1] * (most - len(labels))
        part = RegionPrompts.from_points([[clicks]], [[labels]], size)
        if shape.box is not None:
            part = RegionPrompts.combine(RegionPrompts.from_boxes([[shape.box]], size), part)
        parts.append(part)
    widest = max(part.points.shape[2] for part in parts)
    return jax.tree.map(lambda *x: np.concatenate(x, 1), *(_widened(part, widest) for part in parts))


def _widened(part: RegionPrompts, slots: int) -> RegionPrompts:
    spare = slots - part.points.shape[2]
    return part.replace(
        points=np.pad(part.points, ((0, 0), (0, 0), (0, spare), (0, 0))),
        point_labels=np.pad(part.point_labels, ((0, 0), (0, 0), (0, spare)), constant_values=-1),
    )


def segment(
    model: Any, params: Any, images: Any, prompts: RegionPrompts, size: tuple[int, int]
) -> tuple[list[np.ndarray], list[dict[str, Any]], np.ndarray]:
    """Masks bool [height, width] of the regions of one image of `size` (width, height), what is known of each (expected
    `iou`, `present`, `area`, `rle`), and their embeddings [regions, dim], re-read from the masks."""
    found = jax.device_get(model.segment(params, model.encode_image(params, images), prompts))
    rectangle = np.asarray(images.rectangle)[0]
    masks = [on_image(logits, rectangle, size) > 0 for logits in found.logits[0]]
    facts = [
        {"iou": round(float(iou), 4), "present": round(float(present), 4), "area": int(mask.sum()), "rle": to_rle(mask)}
        for mask, iou, present in zip(masks, found.iou[0], found.present[0], strict=True)
    ]
    return masks, facts, found.embedding[0]


def write_masks(masks: Sequence[np.ndarray], stem: str) -> list[str]:
    """Writes each mask as a PNG of 0 and 255, `STEM_mask_1.png` and so on; InputError if that cannot be done."""
    names = [f"{stem}_mask_{number}.png" for number in range(1, len(masks) + 1)]
    for name, mask in zip(names, masks, strict=True):
        try:
            Image.fromarray(mask.astype(np.uint8) * 255).save(name)
        except OSError as error:
            raise InputError(f"{name}: cannot be written ({error.strerror}); work in a writable folder") from None
    return names
