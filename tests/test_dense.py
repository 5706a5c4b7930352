"""Dense layers give the outputs and gradients of flax's, for inputs of any number of axes, on one platform or many."""

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medp_clip_jax.models.dense import dense

shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def value_and_gradients(layer, x, seed):
    params = layer.init(jax.random.key(seed), x)

    def loss(params, x):
        y = layer.apply(params, x)
        return (y.astype(jnp.float32) * jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)).sum()

    return jax.value_and_grad(loss, argnums=(0, 1))(params, x)


@hypothesis.given(shapes, st.integers(1, 9), st.sampled_from([jnp.float32, jnp.bfloat16]), st.integers(0, 9))
@hypothesis.settings(max_examples=40)
def test_outputs_and_gradients_are_those_of_flax(shape, features, dtype, seed):
    x = jax.random.normal(jax.random.key(seed), tuple(shape), dtype)
    ours = value_and_gradients(dense(features, dtype=dtype), x, seed)
    theirs = value_and_gradients(nn.Dense(features, dtype=dtype), x, seed)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), ours) == jax.tree.map(lambda a: (a.shape, a.dtype), theirs)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_cpus_get_one_product_of_matrices_and_others_what_jax_writes(platform):
    x, layers = jnp.zeros((2, 3, 4)), [dense(5), nn.Dense(5)]
    programs = [
        jax.jit(lambda x, layer=layer: value_and_gradients(layer, x, 0)).trace(x).lower(lowering_platforms=(platform,))
        for layer in layers
    ]
    ours, theirs = (program.as_text().count("tensor<6x4xf32>") for program in programs)
    assert theirs == 0
    assert (ours > 0) == (platform == "cpu")
