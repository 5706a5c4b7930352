"""Towers that a few tokens leave: what an answer costs in memory, and that a gradient's pass gives the same answer."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medp_clip_jax.models import layers
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.step import init_params
from tests import model_cases as cases

DEPTH = 6


@pytest.fixture(scope="module")
def asked():
    """(answers, params, inputs): images, their regions and texts in one pass of towers with much more in the blocks
    than in what walks them."""
    config = cases.small_config(depth=DEPTH, width=128)
    config.text.update(depth=DEPTH, width=128)
    model = MedPCLIP(config)
    params = jax.jit(functools.partial(init_params, model, 0))()
    rng = np.random.default_rng(0)
    inputs = cases.random_images(rng, 1), cases.random_prompts(rng, 1, 2), np.array([[5, 7, 299]], np.int32)
    return lambda params: model.apply({"params": params}, *inputs), params


def test_an_answer_does_not_copy_the_layers(asked):
    answers, params = asked
    towers = (params["visual"]["resblocks"], params["text"]["resblocks"])
    size = min(sum(leaf.nbytes for leaf in jax.tree.leaves(tower)) for tower in towers)
    temporary = jax.jit(answers).lower(params).compile().memory_analysis().temp_size_in_bytes
    assert temporary < size * (DEPTH - 1) / DEPTH


def test_the_pass_of_a_gradient_gives_the_same_answers(asked):
    answers, params = asked
    chex.assert_trees_all_close(jax.jit(answers)(params), jax.jit(lambda p: jax.vjp(answers, p)[0])(params), atol=2e-6)


def test_walking_is_a_plain_loop_in_value_and_gradient():
    rng = np.random.default_rng(1)
    kernels, x, shift = (rng.normal(size=shape).astype(np.float32) for shape in ((DEPTH, 5, 5), (3, 5), (5,)))

    def body(kernel, x, shift):
        return jnp.tanh(x @ kernel + shift)

    def plain(kernels, x, shift):
        for kernel in kernels[:-1]:
            x = body(kernel, x, shift)
        return x

    for unroll in (1, 4):
        walk = functools.partial(layers._walk, body, unroll)
        found, expected = (jax.vjp(each, kernels, x, shift) for each in (walk, plain))
        chex.assert_trees_all_close(walk(kernels, x, shift), found[0], expected[0], rtol=1e-5)
        chex.assert_trees_all_close(found[1](x), expected[1](x), rtol=1e-4, atol=1e-5)
