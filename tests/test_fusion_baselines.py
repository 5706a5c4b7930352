"""Fusions to compare with keep the invariants of the region stream that do not depend on how a prompt enters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from medp_clip_jax.config import validate
from medp_clip_jax.errors import InputError
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import Images
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import init_params
from tests import model_cases as cases

fusions = pytest.mark.parametrize("fusion", ["late", "pool", "alpha"])


@functools.lru_cache
def model(fusion):
    """(params, one pass, encode_image, encode_regions), with every parameter moved away from its start."""
    made = MedPCLIP(cases.small_config(fusion=fusion))
    params = jax.jit(functools.partial(init_params, made, 0))()
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.05 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]

    def one_pass(params, images, prompts):
        return made.apply({"params": params}, images, prompts, jnp.ones((1, 6), jnp.int32))[:2]

    def method(name):
        return jax.jit(lambda params, *inputs: made.apply({"params": params}, *inputs, method=name))

    return jax.tree.unflatten(tree, moved), jax.jit(one_pass), method("encode_image"), method("encode_regions")


def asked(regions: int = 4):
    rng = np.random.default_rng(3)
    rectangle = np.float32([[0, 0, 1, 1], [0.1, 0.2, 0.9, 0.8]])
    return Images(cases.random_images(rng, 2), rectangle), cases.random_prompts(rng, 2, regions)


@fusions
def test_one_pass_is_two_stages_and_leaves_the_image_alone(fusion):
    params, one_pass, encode_image, encode_regions = model(fusion)
    images, prompts = asked()
    features = encode_image(params, images)
    image, regions = one_pass(params, images, prompts)
    assert cases.close(image, features.embedding, "float32")
    assert cases.close(regions, encode_regions(params, features, prompts), "float32")
    np.testing.assert_allclose(np.linalg.norm(regions, axis=-1), 1, atol=1e-5)


@fusions
def test_regions_differ_by_their_prompts_and_not_by_other_regions(fusion):
    params, _, encode_image, encode_regions = model(fusion)
    images, prompts = asked()
    features = encode_image(params, images)
    found = encode_regions(params, features, prompts)
    assert (np.einsum("bkd,bjd->bkj", found, found)[:, 0, 1:] < 1 - 1e-4).all()
    order = np.array([2, 0, 3, 1])
    assert cases.close(encode_regions(params, features, cases.take_regions(prompts, order)), found[:, order], "float32")


@fusions
def test_without_a_prompt_a_region_is_the_image(fusion):
    params, _, encode_image, encode_regions = model(fusion)
    features = encode_image(params, asked()[0])
    answer = encode_regions(params, features, RegionPrompts.none(2, 4))
    assert cases.close(answer, jnp.broadcast_to(features.embedding[:, None], answer.shape), "float32")


@fusions
def test_regions_train_all_that_the_fusion_adds(fusion):
    params, one_pass, _, _ = model(fusion)
    images, prompts = asked()
    wanted = jax.random.normal(jax.random.key(0), (2, 4, 24))
    gradient = jax.jit(jax.grad(lambda params: (one_pass(params, images, prompts)[1] * wanted).sum()))(params)
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient["fusion"])
        if not leaf.any()
    ]
    # A constant added to all keys of a query changes no softmax.
    assert all("key" in name and "bias" in name for name in silent), silent


def test_alpha_starts_as_the_image():
    made = MedPCLIP(cases.small_config(fusion="alpha"))
    params = jax.jit(functools.partial(init_params, made, 0))()
    images, prompts = asked()
    image, regions = jax.jit(made.apply)({"params": params}, images, prompts, jnp.ones((1, 6), jnp.int32))[:2]
    assert cases.close(regions, jnp.broadcast_to(image[:, None], regions.shape), "float32")


@pytest.mark.parametrize(("field", "value"), [("image.patch_drop", 0.5), ("segmenter.width", 32)])
def test_what_they_cannot_do_is_refused(field, value):
    config = common.get_config()
    config.workdir, config.model.fusion = "run", "late"
    validate(config)
    config.update_from_flattened_dict({f"model.{field}": value})
    with pytest.raises(InputError, match="take tokens"):
        validate(config)
