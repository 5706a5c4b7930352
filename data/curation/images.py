"""Rules for one image, and its signature: what is compared to find it again elsewhere."""

import dataclasses
import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image

from data.curation import Finding
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import RegionExample, decode_image
from medp_clip_jax.volumes import optional

RULES = ("corrupt", "small", "flat")
SIDE = 256  # images are looked at in this size at most
THUMB = 16


@dataclasses.dataclass(frozen=True)
class Signature:
    """`exact`: 64 bits of the hash of the bytes; `look`: perceptual hash of 64 bits; `thumb`: grey uint8 [16, 16]."""

    exact: int
    look: int
    thumb: np.ndarray


def look_at(example: RegionExample, config: Any) -> tuple[Finding | None, Signature | None]:
    """The finding of the first rule that fits an image, if any, and its signature, if it can be decoded and is not
    flat: flat images all look alike."""
    try:
        with Image.open(io.BytesIO(example.image)) as file:
            size = file.size
        grey = decode_image(example.image, SIDE).mean(axis=2, dtype=np.float32)
    except (InputError, OSError, ValueError) as error:
        return _found("corrupt", str(error), config), None
    if size != (example.width, example.height):
        detail = f"{size[0]} x {size[1]} px, the record says {example.width} x {example.height}"
        return _found("corrupt", detail, config), None
    deviation = float(grey.std())
    finding = None
    if min(size) < config.small.side:
        finding = _found("small", f"{size[0]} x {size[1]} px", config)
    if deviation < config.flat.deviation:
        return finding or _found("flat", f"grey values deviate by {deviation:.1f}", config), None
    return finding, signature(example.image, grey)


def _found(rule: str, detail: str, config: Any) -> Finding | None:
    return None if config[rule].action == "keep" else Finding(rule, detail=detail)


def signature(data: bytes, grey: np.ndarray) -> Signature:
    """Signature of encoded bytes and the grey values float32 [height, width] in them.

    Raises:
      InputError: ImageHash is not installed.
    """
    imagehash = optional("imagehash", "finding near-duplicates", "curate")
    picture = Image.fromarray(np.rint(grey).astype(np.uint8))
    bits = imagehash.phash(picture).hash.ravel()
    thumb = np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX))
    exact = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    return Signature(exact, int.from_bytes(np.packbits(bits).tobytes(), "big"), thumb)
