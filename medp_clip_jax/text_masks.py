"""Text to mask: a sentence selects regions of an image, or none.

Every cell of a grid is asked what a click there would be called; where the sentence wins, the mask decoder proposes
regions, and what their masks show is compared with the sentence again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medp_clip_jax.api import Model
from medp_clip_jax.errors import InputError
from medp_clip_jax.models.vit import ImageFeatures
from medp_clip_jax.prompts import RegionPrompts

Array = jax.Array
PROPOSALS = 8  # clicks per text
SAME = 0.6  # IoU above which two proposals are one region


@dataclasses.dataclass(frozen=True)
class Found:
    """Regions of one image that a text names, best first; none where it is not there."""

    logits: np.ndarray  # float32 [found, side, side] over the canvas, above 0 inside
    score: np.ndarray  # float32 [found], in [0, 1]: the text's probability times expected IoU times presence
    best: float  # of all proposals, whether or not it counts: that the image has such a region at all
    chance: np.ndarray  # float32 [grid, grid]: the text's probability at every cell of the image


def similarity(model: Model, params: Any, features: ImageFeatures, texts: Array, grid: int = 16) -> Array:
    """Cosines of texts with a click on every cell of a grid over the image, [batch, texts, grid, grid].

    `texts` [texts, dim] are L2-normalised. The clicks are regions of one pass, like any others.
    """
    return jnp.moveaxis(_clicked(model, params, features, grid) @ jnp.asarray(texts, jnp.float32).T, -1, 1)


def _clicked(model: Model, params: Any, features: ImageFeatures, grid: int) -> Array:
    """Embeddings of a click on the centre of every cell, [batch, grid, grid, dim]."""
    centres = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    points = np.stack(np.meshgrid(centres, centres), -1).reshape(1, -1, 1, 2)
    batch = features.embedding.shape[0]
    prompts = _clicks(np.broadcast_to(points, (batch, *points.shape[1:])))
    found = model.encode_regions(params, features, prompts)
    return found.reshape(batch, grid, grid, -1)


def _clicks(points: np.ndarray) -> RegionPrompts:
    return RegionPrompts.from_points(points, np.ones(points.shape[:3], int), (1, 1))


def find(
    model: Model,
    params: Any,
    features: ImageFeatures,
    bank: np.ndarray,
    wanted: Sequence[int],
    grid: int = 16,
    threshold: float = 0.3,
) -> list[list[Found]]:
    """For each image, the regions that each `wanted` row of `bank` names rather than any other row.

    `bank` [texts, dim] are L2-normalised: texts to find, and labels that they compete with. A proposal counts if its
    score reaches `threshold`; without any, the image has no such region. Proposals that share most of their area are
    one. Raises InputError where the model has no mask decoder or there is nothing to compete with.
    """
    if not model.config.segmenter.width:
        raise InputError("this model has no mask decoder: load one that was trained with loss.segment")
    if len(bank) < 2:
        raise InputError("bank: expected texts and labels that they compete with, such as all of the run")
    rows = np.asarray(wanted)
    chance = np.asarray(_probabilities(_clicked(model, params, features, grid), bank, params))[..., rows]
    points = np.stack([[_peaks(each[..., t]) for t in range(len(rows))] for each in chance])
    answer = jax.device_get(model.segment(params, features, _clicks(points.reshape(len(points), -1, 1, 2))))
    named = np.asarray(_probabilities(answer.embedding, bank, params))
    own = np.take_along_axis(named, np.repeat(rows, PROPOSALS)[None, :, None], 2)[..., 0]
    score = own * answer.iou * answer.present
    shape = (len(points), len(rows), PROPOSALS)
    score, logits = score.reshape(shape), answer.logits.reshape(*shape, *answer.logits.shape[2:])
    return [
        [_kept(logits[b, t], score[b, t], chance[b, ..., t], threshold) for t in range(len(rows))]
        for b in range(len(points))
    ]


@jax.jit
def _probabilities(regions: Array, bank: Array, params: Any) -> Array:
    """Probabilities of the texts [..., texts] for regions [..., dim]."""
    return jax.nn.softmax(jnp.exp(params["logit_scale"]) * regions @ bank.T, -1)


def _peaks(chance: np.ndarray) -> np.ndarray:
    """Centres (x, y) in [0, 1] of the `PROPOSALS` best local maxima of a map [grid, grid], or of its best cells."""
    top = chance == ndimage.maximum_filter(chance, 3)
    order = np.argsort(-(chance + top), axis=None, kind="stable")[:PROPOSALS]
    rows, columns = np.unravel_index(order, chance.shape)
    return (np.stack([columns, rows], -1) + 0.5) / len(chance)


def _kept(logits: np.ndarray, score: np.ndarray, chance: np.ndarray, threshold: float) -> Found:
    """The proposals that count, each region once."""
    inside = logits > 0
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        overlap = [(inside[i] & inside[j]).sum() / max((inside[i] | inside[j]).sum(), 1) for j in kept]
        if score[i] >= threshold and inside[i].any() and not any(each > SAME for each in overlap):
            kept.append(int(i))
    return Found(logits[kept], score[kept], float(score.max()), chance)
