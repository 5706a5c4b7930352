"""The prompts of an evaluation as they went into the model: kept per region, digested, and stored beside the results.

A digest is of what the model reads: the corners of boxes, the coordinates and signs of clicks, the 8-bit maps of masks;
of nothing that is padding. It does not depend on batches or processes, so that two results are on the same prompts
exactly where their digests agree.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from medp_clip_jax.prompts import RegionPrompts

FILE = "prompts.npz"
LIMIT = 128 * 2**20  # bytes of mask maps of one kind: more are digested and not stored
TOGETHER = 1024  # regions that processes tell each other at a time
FIELDS = tuple(field.name for field in dataclasses.fields(RegionPrompts))

Kept = dict[str, np.ndarray]  # the fields of `RegionPrompts` without the axis of images: [regions, ...]


def keep(kept: Kept, prompts: RegionPrompts, rows: np.ndarray, regions: int) -> None:
    """Puts the prompts of a batch where they belong among `regions` in all: `rows` int [batch, regions of an image] are
    their places, -1 is padding. An empty `kept` is filled first with regions that are not asked."""
    asked = rows >= 0
    for name in FIELDS:
        value = np.asarray(getattr(prompts, name))
        if name not in kept:
            kept[name] = np.zeros((regions, *value.shape[2:]), value.dtype)
        kept[name][rows[asked]] = value[asked]


def of_images(prompts: RegionPrompts, images: Sequence[int]) -> Kept:
    """All prompts of some images of a batch, one image after the other."""
    values = {name: np.asarray(getattr(prompts, name))[np.asarray(images, int)] for name in FIELDS}
    return {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}


def joined(kept: Kept) -> Kept:
    """What all processes of the job kept, each of its own regions; every process has to ask."""
    if jax.process_count() == 1:
        return kept
    result = {name: np.empty_like(value) for name, value in kept.items()}
    for name, value in kept.items():
        for start in range(0, len(value), TOGETHER):
            rows = slice(start, start + TOGETHER)
            result[name][rows] = multihost_utils.process_allgather(value[rows]).sum(0, dtype=value.dtype)
    return result


def per_region(kept: Kept) -> np.ndarray:
    """A digest of each region's prompt, uint64 [regions]; 0 for regions that were not asked."""
    found = np.zeros(len(kept["valid"]), np.uint64)
    for row in np.flatnonzero(kept["valid"]):
        points = kept["point_labels"][row] >= 0
        parts = {
            "points": kept["points"][row][points],
            "labels": kept["point_labels"][row][points],
            "box": kept["boxes"][row] if kept["box_valid"][row] else np.zeros(0, np.float32),
            "mask": kept["masks"][row] if kept["mask_valid"][row] else np.zeros((0, 0), np.uint8),
        }
        digest = hashlib.sha256()
        for name, value in parts.items():
            digest.update(f"{name} {value.dtype.str} {value.shape} ".encode() + value.tobytes())
        found[row] = int.from_bytes(digest.digest()[:8], "little")
    return found


def combined(digests: np.ndarray) -> str:
    """One digest of those of all regions, in their order: 16 hexadecimal digits."""
    return hashlib.sha256(np.asarray(digests, "<u8").tobytes()).hexdigest()[:16]


def of_kinds(kinds: Mapping[str, Kept]) -> dict[str, str]:
    """The digest of each kind of prompt over all regions."""
    return {kind: combined(per_region(kept)) for kind, kept in kinds.items()}


def save(directory: str | os.PathLike[str], keys: np.ndarray, kinds: Mapping[str, Kept]) -> None:
    """Writes `prompts.npz`: `keys` str [regions] (see `predictions.region_keys`) and per kind the fields that it uses,
    such as `box|boxes`; maps are those of the regions that have one. A kind with more than LIMIT bytes of maps is left
    out."""
    arrays = {"keys": keys}
    for kind, kept in kinds.items():
        maps = kept["masks"][kept["mask_valid"]]
        if maps.nbytes <= LIMIT:
            arrays |= {f"{kind}|{name}": kept[name] for name in FIELDS if name != "masks"} | {f"{kind}|masks": maps}
    np.savez_compressed(pathlib.Path(directory) / FILE, **arrays)


def load(path: str | os.PathLike[str]) -> tuple[np.ndarray, dict[str, Kept]]:
    """The keys and prompts that `save` wrote into the folder `path`, maps at their regions again."""
    with np.load(pathlib.Path(path) / FILE, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    kinds: dict[str, Kept] = {}
    for name, value in arrays.items():
        kind, _, field = name.partition("|")
        if field:
            kinds.setdefault(kind, {})[field] = value
    for kept in kinds.values():
        maps = np.zeros((len(kept["valid"]), *kept["masks"].shape[1:]), kept["masks"].dtype)
        maps[kept["mask_valid"]] = kept["masks"]
        kept["masks"] = maps
    return arrays["keys"], kinds
