"""Embeddings made by hand around a table of regions, so that every metric has a known answer."""

import numpy as np

from medp_clip_jax.eval_input import EvalTable
from medp_clip_jax.evaluators.encode import Encoded
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.records import RegionExample

IDS = ("kidney_left", "kidney_right", "liver", "organ", "tumor")
ONTOLOGY = Ontology(
    [
        Node("organ", "organ"),
        Node("kidney_left", "left kidney", parents=("organ",), laterality="left"),
        Node("kidney_right", "right kidney", parents=("organ",), laterality="right"),
        Node("liver", "liver", parents=("organ",)),
        Node("tumor", "tumor", kind="finding"),
        Node("benign", "benign tumor", kind="finding"),
        Node("malignant", "malignant tumor", kind="finding"),
    ]
)
TEXT = np.eye(len(IDS), 8, dtype=np.float32)  # one axis per label


def image(image_id="a", labels=(), group=None, dataset="set", modality="ct", size=(224, 224)) -> RegionExample:
    return RegionExample(
        b"", *size, dataset, image_id, group or image_id, modality, "abdomen", "", "", tuple(labels), ()
    )


def table(images, regions, area=0.1) -> EvalTable:
    """`regions` are (image row, label) in the order of the images."""
    index = np.array([row for row, _ in regions], np.int32)
    return EvalTable(
        split="test",
        images=list(images),
        records=[("set", i) for i in range(len(images))],
        image_index=index,
        region_index=np.array([i - np.searchsorted(index, row) for i, row in enumerate(index)], np.int32),
        label=[label for _, label in regions],
        box=np.tile(np.float32([1, 2, 11, 12]), (len(regions), 1)),
        area_fraction=np.broadcast_to(np.float32(area), len(regions)),
        has_mask=np.ones(len(regions), bool),
    )


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def answering(answers) -> np.ndarray:
    """Region embeddings that answer with these labels, the true text axis each."""
    return TEXT[[IDS.index(answer) for answer in answers]]


def encoded(regions_table: EvalTable, seed=0, **kinds) -> Encoded:
    """Region embeddings per kind as arrays or lists of answers; images get random embeddings."""
    rng = np.random.default_rng(seed)
    images = unit(rng.normal(size=(len(regions_table.images), 8)))
    made = {k: answering(v) if isinstance(v, (list, tuple)) else v for k, v in kinds.items()}
    return Encoded(regions_table, images, made | {"none": images[regions_table.image_index]}, images.copy())
