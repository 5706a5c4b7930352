"""A corpus in memory for tests: what `corpus.Corpus` offers to the input, without files."""

import io
import types

import numpy as np
from PIL import Image

from configs import common
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.records import Region, RegionExample, encode_mask

ONTOLOGY = Ontology(
    [
        Node("cell", "cell", kind="cell"),
        Node("kidney", "kidney"),
        Node("left_kidney", "left kidney", parents=("kidney",), laterality="left"),
        Node("liver", "liver"),
        Node("nodule", "nodule", kind="finding"),
    ]
)


def png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [height, width] or [height, width, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def region(label: str, mask: np.ndarray) -> Region:
    """A region with its mask [height, width] and that mask's box and area."""
    y, x = np.nonzero(mask)
    return Region(
        label, (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)), encode_mask(mask), mask.sum()
    )


def box_region(label: str, box: tuple[float, float, float, float]) -> Region:
    """A region without a mask."""
    return Region(label, box, b"", (box[2] - box[0]) * (box[3] - box[1]))


def example(regions=(), pixels: np.ndarray | None = None, image_id: str = "a", **fields) -> RegionExample:
    """A record around an image, 48 x 40 black where none is given."""
    pixels = np.zeros((40, 48), np.uint8) if pixels is None else pixels
    texts = {"dataset": "tiny", "group": image_id, "modality": "ct", "anatomy": "abdomen", "view": "", "caption": ""}
    height, width = pixels.shape[:2]
    return RegionExample(
        png(pixels), width, height, image_id=image_id, regions=tuple(regions), **{**texts, "image_labels": (), **fields}
    )


def random_example(rng: np.random.Generator, image_id: str, regions: int = 3, **fields) -> RegionExample:
    """A noisy picture of random size in which each region is a bright ellipse."""
    height, width = rng.integers(24, 64, 2)
    pixels = rng.integers(0, 60, (height, width), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    found = []
    for label in rng.choice(["cell", "left_kidney", "liver", "nodule"], regions):
        cx, cy, rx, ry = rng.uniform((0, 0, 1, 1), (width, height, 12, 12))
        mask = ((x + 0.5 - cx) / rx) ** 2 + ((y + 0.5 - cy) / ry) ** 2 <= 1
        mask[int(cy), int(cx)] = True
        pixels[mask] = 200
        found.append(region(str(label), mask))
    return example(found, pixels, image_id, **fields)


def corpus(sources: dict[str, dict[str, list[RegionExample]]]):
    """The corpus of {source: {split: records}}."""
    return types.SimpleNamespace(
        sources=tuple(sorted(sources)), ontology=ONTOLOGY, source=lambda name, split: sources[name].get(split, [])
    )


def random_corpus(seed: int = 0, **sizes: int):
    """Sources of random pictures; every fourth is without regions."""
    rng = np.random.default_rng(seed)
    return corpus(
        {
            name: {"train": [random_example(rng, f"{name}{i}", 0 if i % 4 == 3 else 3) for i in range(size)]}
            for name, size in sizes.items()
        }
    )


def bank(*ids: str):
    """What the input needs of a label bank; without ids the whole ontology's."""
    return types.SimpleNamespace(ids=ids or tuple(ONTOLOGY))


def tokenizer(texts, length: int) -> np.ndarray:
    """Characters as tokens."""
    return np.array([[ord(letter) % 97 for letter in text[:length].ljust(length, "\0")] for text in texts], np.int32)


def config(**input_fields):
    """A small configuration; keyword arguments replace fields of `config.input`."""
    settings = common.get_config()
    settings.model.image.size, settings.model.text.context, settings.train.steps = 32, 16, 5
    settings.input.update(batch_size=8, regions=3, points=4, mask_size=16, cache_images=16)
    settings.input.update(input_fields)
    settings.eval.update(batch_size=4, regions=3)
    return settings
