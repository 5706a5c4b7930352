"""Towers that a few tokens leave: what an answer costs in memory, and that a gradient's pass gives the same answer."""

import functools

import chex
import jax
import numpy as np
import pytest

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
    layers = min(sum(leaf.nbytes for leaf in jax.tree.leaves(tower)) for tower in towers)
    temporary = jax.jit(answers).lower(params).compile().memory_analysis().temp_size_in_bytes
    assert temporary < layers * (DEPTH - 1) / DEPTH


def test_the_pass_of_a_gradient_gives_the_same_answers(asked):
    answers, params = asked
    chex.assert_trees_all_close(jax.jit(answers)(params), jax.jit(lambda p: jax.vjp(answers, p)[0])(params), atol=2e-6)
