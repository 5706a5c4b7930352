"""Embedded regions of generated pictures: the data of the other examples, in place of yours."""

from typing import Any

import numpy as np

import medp_clip_jax as medp
from data.phantoms import phantom_examples
from medp_clip_jax.records import decode_image


def embedded(checkpoint: str, split: str, images: int) -> tuple[np.ndarray, list[str], tuple[Any, ...]]:
    """Embeddings [regions, dim] of all boxes in `images` pictures, their labels, and what `medp.load` gave."""
    model, params, processor = medp.load(checkpoint)
    embeddings, labels = [], []
    examples = list(phantom_examples(split, images))
    slots = max(len(example.regions) for example in examples)  # padded to one number of regions: one compilation
    for example in examples:
        boxes = [region.box for region in example.regions]
        padded = np.array(boxes + [(0, 0, example.width, example.height)] * (slots - len(boxes)))
        prompts = medp.RegionPrompts.from_boxes(padded[None], (example.width, example.height))
        features = model.encode_image(params, processor.images(decode_image(example.image)))
        embeddings.append(np.asarray(model.encode_regions(params, features, prompts))[0, : len(boxes)])
        labels += [region.label for region in example.regions]
    return np.concatenate(embeddings), labels, (model, params, processor)
