"""Dense layers whose gradient is asked for in the form that a compiler does best."""

from typing import Any

import flax.linen as nn
import jax

Array = jax.Array


@jax.custom_vjp
def matmul(x: Array, kernel: Array) -> Array:
    """x [..., in] times kernel [in, out]: [..., out].

    For the kernel's gradient, XLA's CPU compiler first copies a [batch, tokens, out] gradient in transposed order, and
    does not where it meets matrices. Other compilers get what JAX writes.
    """
    return x @ kernel


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (to_x,) = jax.vjp(lambda x: x @ kernel, x)[1](gradient)

    def as_written(x: Array, gradient: Array) -> Array:
        return jax.vjp(lambda kernel: x @ kernel, kernel)[1](gradient)[0]

    return to_x, jax.lax.platform_dependent(x, gradient, cpu=_of_matrices, default=as_written)


def _of_matrices(x: Array, gradient: Array) -> Array:
    rows, out = (each.reshape(-1, each.shape[-1]) for each in (x, gradient))
    return rows.T @ out


matmul.defvjp(_forward, _backward)


def dense(features: int, **settings: Any) -> nn.Dense:
    """`flax.linen.Dense` over the last axis, by `matmul`."""
    return nn.Dense(features, dot_general=lambda x, kernel, *_, **__: matmul(x, kernel), **settings)
