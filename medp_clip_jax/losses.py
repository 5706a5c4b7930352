"""The contrastive losses, as pure functions of global arrays.

Embeddings are L2-normalised, `scale` is the learned factor of the cosine, and a loss over nothing is 0. `images`
below is the global batch, `regions` all regions of it in a row, `labels` the label bank.
"""

import chex
import jax
import jax.numpy as jnp

Array = jax.Array
NEVER = -1e9  # logit of what a softmax must not see


def region_to_text(
    regions: Array, labels: Array, target: Array, scale: Array, log_prior: Array, tau: float, excluded: Array
) -> tuple[Array, Array]:
    """Softmax of each region over the whole label bank: (mean loss, top-1 accuracy in [0, 1] without the prior).

    `regions` [regions, dim], `labels` [labels, dim], `target` [regions] is a row of the bank or -1 for padding. The
    logits are `scale * cosine + tau * log_prior` (logit adjustment, Menon et al. 2021, arXiv 2007.07314) with
    `log_prior` [labels] that of the sampled regions; `excluded` [labels, labels] takes ancestors and descendants of
    the target (row) out of the denominator.
    """
    check_bank(regions, labels, target, excluded)
    chex.assert_shape(log_prior, (len(labels),))
    valid = target >= 0
    row = jnp.maximum(target, 0)
    cosine = similarities(regions, labels)
    logits = jnp.where(excluded[row], NEVER, scale * cosine + tau * log_prior)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), row[:, None], 1)[:, 0]
    hits = jnp.where(excluded[row], NEVER, cosine).argmax(-1) == row
    return _mean(losses, valid), _mean(hits.astype(jnp.float32), valid)


def text_to_region(regions: Array, labels: Array, target: Array, scale: Array, excluded: Array) -> Array:
    """Multi-positive log-softmax of each label present over all valid regions: mean over positives, then over labels.

    Shapes as in `region_to_text`. Regions of a label's ancestors and descendants are neither positive nor negative.
    The mean over labels, not regions, balances the classes.
    """
    check_bank(regions, labels, target, excluded)
    bank = jnp.arange(len(labels))
    positive = bank[:, None] == target[None]  # [labels, regions]
    candidate = (target >= 0)[None] & ~excluded[:, jnp.maximum(target, 0)]
    logits = jnp.where(candidate, scale * similarities(labels, regions), NEVER)
    losses = -jnp.where(positive, jax.nn.log_softmax(logits), 0).sum(1) / jnp.maximum(positive.sum(1), 1)
    return _mean(losses, positive.any(1))


def image_text_softmax(images: Array, texts: Array, text_id: Array, scale: Array) -> Array:
    """CLIP's symmetric softmax between images [images, dim] and their texts [images, dim].

    Equal `text_id` [images] are all positives of one another, with equal shares (UniCL, arXiv 2204.03610).
    """
    check_pairs(images, texts, text_id)
    positive = (text_id[:, None] == text_id[None]).astype(jnp.float32)
    share = positive / positive.sum(1, keepdims=True)
    logits = scale * similarities(images, texts)
    forth = -(share * jax.nn.log_softmax(logits)).sum(1).mean()
    back = -(share * jax.nn.log_softmax(logits.T)).sum(1).mean()
    return (forth + back) / 2


def image_text_sigmoid(images: Array, texts: Array, text_id: Array, scale: Array, bias: Array) -> Array:
    """SigLIP's pairwise sigmoid (arXiv 2303.15343) with a learned `bias`; equal `text_id` [images] are positives."""
    check_pairs(images, texts, text_id)
    sign = jnp.where(text_id[:, None] == text_id[None], 1.0, -1.0)
    return -jax.nn.log_sigmoid(sign * (scale * similarities(images, texts) + bias)).sum(1).mean()


def distillation(images: Array, base: Array) -> Array:
    """Mean of one minus the cosine of embeddings [images, dim] and a frozen base's, both L2-normalised: in [0, 2].

    A mean over rows, which splits over devices as it is. No gradient reaches the base.
    """
    chex.assert_equal_shape([images, base])
    return (1 - (images * jax.lax.stop_gradient(base)).sum(-1)).mean()


def consistency(regions: Array, exact: Array, taught: Array) -> Array:
    """Mean of one minus the cosine of region embeddings and those of the same regions by their exact masks, in [0, 2].

    Both are [regions, dim] and L2-normalised, of which those that are `taught`, bool [regions], count. No gradient
    reaches the masks' embeddings, which are the teachers.
    """
    chex.assert_equal_shape([regions, exact])
    return _mean(1 - (regions * jax.lax.stop_gradient(exact)).sum(-1), taught)


def similarities(rows: Array, columns: Array) -> Array:
    """Dot products [rows, columns] of `rows` [rows, dim] and `columns` [columns, dim], in full float32 at least.

    A TPU rounds the operands of a float32 product to bfloat16 unless told otherwise, and a scale of up to 100 would
    magnify the error.
    """
    rows, columns = at_least_float32(rows), at_least_float32(columns)
    return jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)


def at_least_float32(x: Array) -> Array:
    """bfloat16 as float32; float64, in which tests ask for the exact gradients, stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _mean(values: Array, where: Array) -> Array:
    return jnp.where(where, values, 0).sum() / jnp.maximum(where.sum(), 1)


def check_bank(regions: Array, labels: Array, target: Array, excluded: Array) -> None:
    chex.assert_rank([regions, labels], 2)
    chex.assert_equal_shape_suffix([regions, labels], 1)
    chex.assert_shape(target, (len(regions),))
    chex.assert_shape(excluded, (len(labels), len(labels)))


def check_pairs(images: Array, texts: Array, text_id: Array) -> None:
    chex.assert_rank([images, texts], 2)
    chex.assert_equal_shape([images, texts])
    chex.assert_shape(text_id, (len(images),))
