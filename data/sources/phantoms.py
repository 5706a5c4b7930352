"""The generated phantoms as a source of a corpus."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping

from data import phantom_shapes, phantoms
from data.sources import Items, Source
from medp_clip_jax import records
from medp_clip_jax.corpus import FORMAT
from medp_clip_jax.errors import InputError


def phantom_source(counts: Mapping[str, int], seed: int, size: int) -> Source:
    """Phantoms of `size` x `size` px, `counts` images per split; InputError for a size that they cannot be drawn at."""
    if not phantoms.SMALLEST <= size <= phantoms.LARGEST:
        raise InputError(f"--size={size}: expected {phantoms.SMALLEST} to {phantoms.LARGEST} pixels")
    recipe = [FORMAT, sorted(counts.items()), seed, size]
    code = b"".join(pathlib.Path(str(module.__file__)).read_bytes() for module in (phantoms, phantom_shapes))
    items = {
        split: Items(range(count), functools.partial(_one, split, seed, size))
        for split, count in sorted(counts.items())
        if count > 0
    }
    return Source(
        name="phantoms",
        adapter="phantoms",
        fingerprint=hashlib.sha256(json.dumps(recipe).encode() + code).hexdigest(),
        splits={split: part.stream for split, part in items.items()},
        items=items,
        provenance={"origin": "generated", "licence": "Apache-2.0", "seed": str(seed), "size": str(size)},
    )


def _one(split: str, seed: int, size: int, index: int) -> Iterator[records.RegionExample]:
    yield phantoms.phantom_example(split, index, seed, size)
