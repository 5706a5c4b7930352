"""The losses of `losses.py` for batches split over devices: same values and gradients, no global matrix of logits.

Names, arguments and results are those of `losses.py`; its docstrings hold here. Arguments are global arrays. What has
one row per image or region is split along axis 0 over all axes of the ambient mesh (`jax.set_mesh`); the label bank,
`scale` and `bias` are whole on every device. `chunk` is how many local rows of a matrix of logits exist at a time, and
need not divide their number; 0 means all of them. Each chunk is computed anew in the backward pass, so with a
fixed chunk the memory of a loss grows with the local batch, not with local times global batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from medp_clip_jax.errors import InputError
from medp_clip_jax.losses import NEVER, at_least_float32, check_bank, check_pairs, similarities

Array = jax.Array
Axes = tuple[str, ...]
CHUNK = 256  # rows: fills a matrix unit, and is 64 MiB of logits at a global batch of 65,536


def region_to_text(
    regions: Array,
    labels: Array,
    target: Array,
    scale: Array,
    log_prior: Array,
    tau: float,
    excluded: Array,
    chunk: int = CHUNK,
) -> tuple[Array, Array]:
    """`losses.region_to_text`: each device compares its regions with the whole bank."""
    check_bank(regions, labels, target, excluded)
    chex.assert_shape(log_prior, (len(labels),))

    def local(axes: Axes, split: tuple[Array, ...], whole: tuple[Array, ...]) -> tuple[Array, Array]:
        labels, scale, log_prior, tau, excluded = whole

        def sums(regions: Array, target: Array) -> tuple[Array, ...]:
            valid, row = target >= 0, jnp.maximum(target, 0)
            cosine = similarities(regions, labels)
            logits = jnp.where(excluded[row], NEVER, scale * cosine + tau * log_prior)
            losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), row[:, None], 1)[:, 0]
            hits = jnp.where(excluded[row], NEVER, cosine).argmax(-1) == row
            return jnp.where(valid, losses, 0).sum(), (hits & valid).sum(), valid.sum()

        loss, hits, count = jax.lax.psum(_total(_by_chunks(sums, split, chunk)), axes)
        return loss / jnp.maximum(count, 1), hits / jnp.maximum(count, 1)

    return _over_devices(local, (regions, target), (labels, scale, log_prior, tau, excluded))


def text_to_region(
    regions: Array, labels: Array, target: Array, scale: Array, excluded: Array, chunk: int = CHUNK
) -> Array:
    """`losses.text_to_region`: each device has its regions' columns; the softmax of a label is put together from parts.

    A part is the maximum, the sum of exponentials below it, and the sum and number of positives; parts of chunks and of
    devices combine alike.
    """
    check_bank(regions, labels, target, excluded)

    def local(axes: Axes, split: tuple[Array, ...], whole: tuple[Array, ...]) -> Array:
        labels, scale, excluded = whole

        def parts(regions: Array, target: Array) -> tuple[Array, ...]:
            positive = target[:, None] == jnp.arange(len(labels))
            candidate = (target >= 0)[:, None] & ~excluded.T[jnp.maximum(target, 0)]
            logits = jnp.where(candidate, scale * similarities(regions, labels), NEVER)
            top = jax.lax.stop_gradient(logits.max(0))
            below = logits - top
            return top, jnp.exp(below).sum(0), jnp.where(positive, below, 0).sum(0), positive.sum(0)

        top, exponentials, below, count = _by_chunks(parts, split, chunk)  # [chunks, labels] each
        top = jax.lax.stop_gradient(top)  # the loss does not depend on it, and pmax has no derivative
        drop = top - jax.lax.pmax(top.max(0), axes)
        exponentials, below, count = jax.lax.psum(
            _total((jnp.exp(drop) * exponentials, below + count * drop, count)), axes
        )
        losses = jnp.log(exponentials) - below / jnp.maximum(count, 1)
        return jnp.where(count > 0, losses, 0).sum() / jnp.maximum((count > 0).sum(), 1)

    return _over_devices(local, (regions, target), (labels, scale, excluded))


def image_text_softmax(images: Array, texts: Array, text_id: Array, scale: Array, chunk: int = CHUNK) -> Array:
    """`losses.image_text_softmax`: each device compares its images with all texts, and its texts with all images."""
    check_pairs(images, texts, text_id)

    def local(axes: Axes, split: tuple[Array, ...], whole: tuple[Array, ...]) -> Array:
        images, texts, text_id = split
        (scale,) = whole
        ids = jax.lax.all_gather(text_id, axes, tiled=True)

        @jax.checkpoint  # the backward pass gathers again, rather than keep what was gathered
        def direction(rows_and_columns: tuple[Array, Array]) -> Array:
            rows, columns = rows_and_columns
            columns = jax.lax.all_gather(columns, axes, tiled=True)

            def loss(rows: Array, text_id: Array) -> Array:
                positive = (text_id[:, None] == ids[None]).astype(jnp.float32)
                share = positive / positive.sum(1, keepdims=True)
                return -(share * jax.nn.log_softmax(scale * similarities(rows, columns))).sum()

            return _by_chunks(loss, (rows, text_id), chunk).sum()

        # One direction after the other: no two gathered arrays at a time.
        both = jax.lax.map(direction, (jnp.stack([images, texts]), jnp.stack([texts, images])))
        return jax.lax.psum(both.sum(), axes) / (2 * len(ids))

    return _over_devices(local, (images, texts, text_id), (scale,))


def image_text_sigmoid(
    images: Array, texts: Array, text_id: Array, scale: Array, bias: Array, chunk: int = CHUNK
) -> Array:
    """`losses.image_text_sigmoid`: the texts go round all devices, and meet the images of each."""
    check_pairs(images, texts, text_id)

    def local(axes: Axes, split: tuple[Array, ...], whole: tuple[Array, ...]) -> Array:
        total = jax.lax.psum(_ring_sum(axes, chunk, *split, *whole), axes)
        return total / (len(split[0]) * jax.lax.axis_size(axes))

    return _over_devices(local, (images, texts, text_id), (scale, bias))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring_sum(axes: Axes, chunk: int, images: Array, texts: Array, text_id: Array, scale: Array, bias: Array) -> Array:
    """The sigmoid losses of this device's images with all texts. It has its own derivative because that of a loop
    keeps every visiting block: as many bytes as gathering all texts at once."""

    def visit(block: tuple[Array, Array]) -> tuple[Array, tuple[()]]:
        return _block_loss(images, block[0], scale, bias, text_id, block[1], chunk), ()

    return _round_trip(visit, (texts, text_id), axes)[0]


def _ring_sum_forward(
    axes: Axes, chunk: int, images: Array, texts: Array, text_id: Array, scale: Array, bias: Array
) -> tuple[Array, Any]:
    derivative = jax.value_and_grad(_block_loss, (0, 1, 2, 3))

    def visit(block: tuple[Array, Array]) -> tuple[Any, Array]:
        loss, (images_grad, texts_grad, *rest) = derivative(images, block[0], scale, bias, text_id, block[1], chunk)
        return (loss, images_grad, *rest), texts_grad

    (loss, images_grad, scale_grad, bias_grad), texts_grad = _round_trip(visit, (texts, text_id), axes)
    return loss, (images_grad, texts_grad, scale_grad, bias_grad)


def _ring_sum_backward(axes: Axes, chunk: int, grads: Any, factor: Array) -> tuple[Any, ...]:
    images, texts, scale, bias = (factor * grad for grad in grads)
    return images, texts, None, scale, bias


_ring_sum.defvjp(_ring_sum_forward, _ring_sum_backward)


def _block_loss(
    images: Array, texts: Array, scale: Array, bias: Array, image_id: Array, text_id: Array, chunk: int
) -> Array:
    def loss(images: Array, image_id: Array) -> Array:
        sign = jnp.where(image_id[:, None] == text_id[None], 1.0, -1.0)
        return -jax.nn.log_sigmoid(sign * (scale * similarities(images, texts) + bias)).sum()

    return _by_chunks(loss, (images, image_id), chunk).sum()


def _round_trip(visit: Callable[[Any], tuple[Any, Any]], block: Any, axes: Axes) -> tuple[Any, Any]:
    """Sends each device's block once round all devices; `visit(block)` returns what the device keeps and what goes on
    with the block. Returns the sums of both: the second is back home with its block."""
    devices = jax.lax.axis_size(axes)
    neighbours = [(i, (i + 1) % devices) for i in range(devices)]

    def send(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, neighbours), tree)

    def turn(carry: Any, _: None) -> tuple[Any, None]:
        block, sums = carry
        following = send(block)  # ahead of the work, so that the transfer can hide behind it
        kept, carried = jax.tree.map(jnp.add, sums, visit(block))
        return (following, (kept, send(carried))), None

    zeros = jax.tree.map(lambda x: _vary(jnp.zeros(x.shape, x.dtype), axes), jax.eval_shape(visit, block))
    (_, sums), _ = jax.lax.scan(turn, (block, zeros), length=devices)
    return sums


def _over_devices(local: Callable[..., Any], split: tuple[Any, ...], whole: tuple[Any, ...]) -> Any:
    """`local(axes, split, whole)` on every device of the ambient mesh, with its rows of `split` and all of `whole`."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = mesh.axis_names
    if not axes:
        raise ValueError("a sharded loss needs the mesh that its arrays lie on: call jax.set_mesh(mesh) first")
    rows = len(split[0])
    if rows % mesh.size:
        raise InputError(
            f"a batch of {rows} rows cannot be split over {mesh.size} devices: choose a batch size that they divide"
        )

    def body(split: tuple[Array, ...], whole: tuple[Array, ...]) -> Any:
        # Made device-specific here, outside all loops, the gradients of `whole` are summed over devices once.
        return local(axes, split, tuple(_vary(x, axes) for x in whole))

    return jax.shard_map(body, in_specs=(PartitionSpec(axes), PartitionSpec()), out_specs=PartitionSpec())(
        tuple(map(_wide, split)), tuple(map(_wide, whole))
    )


def _wide(x: Any) -> Array:
    x = jnp.asarray(x)
    return at_least_float32(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _vary(x: Array, axes: Axes) -> Array:
    return jax.lax.pcast(x, axes, to="varying")


def _by_chunks(function: Callable[..., Any], rows: tuple[Array, ...], chunk: int) -> Any:
    """Results of `function(*rows)` on at most `chunk` rows at a time, stacked; each computed anew for its gradient."""
    function = jax.checkpoint(function)
    count = len(rows[0])
    chunk = min(chunk or count, count)
    whole = count - count % chunk
    results = jax.lax.map(lambda part: function(*part), tuple(x[:whole].reshape(-1, chunk, *x.shape[1:]) for x in rows))
    if whole == count:
        return results
    last = function(*(x[whole:] for x in rows))
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), results, last)


def _total(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.sum(0), tree)
