"""Region losses to compare with the label bank's: regions of a batch against one another's sentences.

Shapes are those of `losses.region_to_text`; `bias` is that of the sigmoid. Values are means over valid regions, and a
loss over nothing is 0. Every one holds all regions x regions logits at once.
"""

import jax
import jax.numpy as jnp

from medp_clip_jax.losses import NEVER, check_bank, similarities

Array = jax.Array


def one_hot(regions: Array, labels: Array, target: Array, scale: Array, bias: Array, excluded: Array) -> Array:
    """CLIP's symmetric softmax (arXiv 2103.00020): a region's own sentence is its one positive, and the same sentence
    of another region a negative."""
    return _softmax(regions, labels, target, scale, excluded, jnp.eye(len(target), dtype=bool))


def multi_positive(regions: Array, labels: Array, target: Array, scale: Array, bias: Array, excluded: Array) -> Array:
    """The symmetric softmax in which all regions of a label are positives of equal share (UniCL, arXiv 2204.03610)."""
    return _softmax(regions, labels, target, scale, excluded, target[:, None] == target)


def sigmoid(regions: Array, labels: Array, target: Array, scale: Array, bias: Array, excluded: Array) -> Array:
    """The pairwise sigmoid (SigLIP, arXiv 2303.15343) in which all regions of a label are positives."""
    logits, candidate = _logits(regions, labels, target, scale, excluded)
    sign = jnp.where(target[:, None] == target, 1.0, -1.0)
    return jnp.where(candidate, -jax.nn.log_sigmoid(sign * (logits + bias)), 0).sum() / _count(target)


KINDS = {"one_hot": one_hot, "multi_positive": multi_positive, "sigmoid": sigmoid}


def _softmax(regions: Array, labels: Array, target: Array, scale: Array, excluded: Array, positive: Array) -> Array:
    logits, candidate = _logits(regions, labels, target, scale, excluded)
    positive &= candidate
    share = positive / jnp.maximum(positive.sum(1, keepdims=True), 1)
    logits = jnp.where(candidate, logits, NEVER)
    return sum(-(share * jax.nn.log_softmax(each)).sum() / _count(target) / 2 for each in (logits, logits.T))


def _logits(regions: Array, labels: Array, target: Array, scale: Array, excluded: Array) -> tuple[Array, Array]:
    """Scaled cosines of regions (rows) and the sentences of regions, and which of them count."""
    check_bank(regions, labels, target, excluded)
    valid, row = target >= 0, jnp.maximum(target, 0)
    candidate = valid[:, None] & valid & ~excluded[row][:, row] & ~excluded[row][:, row].T
    return scale * similarities(regions, labels[row]), candidate


def _count(target: Array) -> Array:
    return jnp.maximum((target >= 0).sum(), 1)
