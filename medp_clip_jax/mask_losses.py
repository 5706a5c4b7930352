"""Losses of predicted masks, one value per mask, as pure functions of logits.

Logits and targets are [..., rows, columns], values [...]; a mean over masks is the caller's.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
ALPHA = 0.25  # of the focal loss, with the exponent 2, as in SAM and SAM 2


def focal(logits: Array, target: Array) -> Array:
    """Mean over pixels of the focal loss (arXiv 1708.02002) of logits against a target in {0, 1}."""
    against = jnp.where(target, -logits, logits)
    weight = jnp.where(target, ALPHA, 1 - ALPHA)
    return (weight * jnp.square(jax.nn.sigmoid(against)) * jax.nn.softplus(against)).mean((-2, -1))


def dice(logits: Array, target: Array) -> Array:
    """One minus the soft Dice of sigmoid(logits) and a target in {0, 1}; 1 is added to both halves of the ratio."""
    return _soft_dice(jax.nn.sigmoid(logits), target.astype(logits.dtype), (-2, -1))


def projection(logits: Array, box: Array) -> Array:
    """BoxInst's loss of a mask that must fill a box (arXiv 2012.02310): Dice of the maxima over rows, over columns.

    `box` is the interior of the box, in {0, 1}. What lies where inside the box is left open.
    """
    chance, box = jax.nn.sigmoid(logits), box.astype(logits.dtype)
    return sum(_soft_dice(chance.max(axis), box.max(axis), (-1,)) for axis in (-2, -1))


def iou(inside: Array, target: Array) -> Array:
    """Intersection over union of two bool masks; 0 where both are empty."""
    shared = (inside & target).sum((-2, -1))
    return shared / jnp.maximum((inside | target).sum((-2, -1)), 1)


def presence(logit: Array, present: Array) -> Array:
    """Binary cross-entropy of the logit that there is an object."""
    return -jnp.where(present, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))


def _soft_dice(chance: Array, target: Array, axes: tuple[int, ...]) -> Array:
    shared, total = (chance * target).sum(axes), chance.sum(axes) + target.sum(axes)
    return 1 - (2 * shared + 1) / (total + 1)
