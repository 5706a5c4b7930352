"""One step: what microbatches, dropped patches and recomputation may and may not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from launch.abstract_step import bank_shapes
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import Images, canvas_patches, surviving_patches
from medp_clip_jax.step import Bank, batch_loss, embed_bank, encode_bank
from tests import model_cases as cases

GRID = 4  # of the small model


@functools.lru_cache
def gradient(accumulate: int, remat: str = "none"):
    """Loss and gradient on one batch with dropped patches and glimpses."""
    config = common.get_config()
    config.model = cases.small_config()
    config.model.remat = remat
    config.model.image.patch_drop, config.model.prompt.glimpse_drop = 0.5, 0.5
    config.train.accumulate = accumulate
    model, (_, params) = MedPCLIP(config.model), cases.small_model(trained=True)
    rng = np.random.default_rng(3)
    batch = cases.random_batch(rng)
    bank = Bank(rng.integers(1, 299, (5, 2, 6)).astype(np.int32), np.zeros((5, 5), bool), np.zeros(5, np.float32))

    def loss(params, batch, bank):
        return batch_loss(model, params, config, batch, bank, jax.random.key(5))

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch, bank)


@pytest.mark.parametrize(("accumulate", "remat"), [(4, "none"), (1, "dots"), (2, "full")])
def test_microbatches_and_recomputation_change_neither_loss_nor_gradient(accumulate, remat):
    (expected, _), expected_grads = gradient(1)
    (loss, _), grads = gradient(accumulate, remat)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    difference = jax.tree.map(jnp.subtract, grads, expected_grads)
    assert optax.global_norm(difference) < 1e-5 * optax.global_norm(expected_grads)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected_grads):  # in a small leaf rounding weighs more
        found = functools.reduce(lambda tree, key: tree[key.key], path, difference)
        assert jnp.linalg.norm(found) <= 1e-4 * jnp.linalg.norm(leaf), jax.tree_util.keystr(path)


def test_a_frozen_text_tower_reads_the_labels_once_for_all_steps():
    model, params = cases.small_model(trained=True)
    config = common.get_config()
    config.optim.frozen = ("text",)
    rng = np.random.default_rng(3)
    batch = cases.random_batch(rng)
    bank = Bank(rng.integers(1, 299, (5, 3, 6)).astype(np.int32), np.zeros((5, 5), bool), np.zeros(5, np.float32))
    embedded = jax.jit(functools.partial(embed_bank, model))(params, bank)
    assert embedded.embedded.shape == (5, 3, model.config.embed)
    assert embedded.embedded.dtype == bank_shapes(config, 5).embedded.dtype

    @jax.jit
    def run(bank, rng):
        return jax.value_and_grad(batch_loss, 1, has_aux=True)(model, params, config, batch, bank, rng)

    for seed in range(3):  # other sentences of the labels
        (expected, _), expected_grads = run(bank, jax.random.key(seed))
        (loss, _), grads = run(embedded, jax.random.key(seed))
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
        difference = jax.tree.map(jnp.subtract, grads, expected_grads)
        assert optax.global_norm(difference) < 1e-5 * optax.global_norm(expected_grads)
    found = jax.jit(functools.partial(encode_bank, model, {"params": params}, devices=1))
    assert not np.allclose(found(embedded, jax.random.key(0)), found(embedded, jax.random.key(1)), atol=1e-3)


def keys(count: int, seed: int = 0):
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(count))


def embed(params, images, prompts, keys, drop=0.5):
    return jitted(drop)(params, images, prompts, keys)


@functools.lru_cache
def jitted(drop):
    config = cases.small_config()
    config.image.patch_drop = drop
    model = MedPCLIP(config)
    tokens = np.ones((1, 8), np.int32)
    return jax.jit(lambda params, images, prompts, keys: model.apply({"params": params}, images, prompts, tokens, keys))


def test_what_is_dropped_does_not_depend_on_prompts_or_on_the_rest_of_the_batch():
    rng = np.random.default_rng(0)
    _, params = cases.small_model(trained=True)
    images = cases.random_images(rng, 4)
    first, second = cases.random_prompts(rng, 4, 3), cases.random_prompts(rng, 4, 3)
    image, regions, _ = embed(params, images, first, keys(4))
    again, others, _ = embed(params, images, second, keys(4))
    assert np.array_equal(image, again)
    assert not cases.close(regions, others, "float32")
    order = np.array([2, 0, 3, 1])
    shuffled, _, _ = embed(params, images[order], jax.tree.map(lambda x: x[order], first), keys(4)[order])
    assert cases.close(shuffled, image[order], "float32")
    assert not cases.close(embed(params, images, first, keys(4, seed=1))[0], image, "float32")


def test_an_empty_prompt_is_the_global_embedding_on_the_survivors_too():
    rng = np.random.default_rng(1)
    _, params = cases.small_model(trained=True)
    prompts = cases.random_prompts(rng, 4, 2)
    none = prompts.replace(
        box_valid=np.zeros_like(prompts.box_valid),
        mask_valid=np.zeros_like(prompts.mask_valid),
        point_labels=np.full_like(prompts.point_labels, -1),
    )
    image, regions, _ = embed(params, cases.random_images(rng, 4), none, keys(4))
    assert cases.close(regions, np.broadcast_to(image[:, None], regions.shape), "float32")


def test_a_region_without_a_surviving_patch_keeps_its_glimpse():
    rng = np.random.default_rng(2)
    _, params = cases.small_model(trained=True)
    images, share = cases.random_images(rng, 16), 1 / GRID
    rectangle = np.tile(np.float32([0, 0, 1, 1]), (16, 1))
    prompts = cases.random_prompts(rng, 16, 1)
    off = np.zeros_like(prompts.mask_valid)
    # the box is the first patch, which half of the images drop
    prompts = prompts.replace(
        boxes=np.tile(np.float32([0, 0, share, share]), (16, 1, 1)),
        box_valid=~off,
        mask_valid=off,
        point_labels=np.full_like(prompts.point_labels, -1),
    )
    dropped = ~(np.asarray(surviving_patches(keys(16), rectangle, GRID, 0.5)) == 0).any(1)
    assert 0 < dropped.sum() < 16
    changed = images.copy()
    changed[:, :16, :16] = 255 - changed[:, :16, :16]
    image, regions, _ = embed(params, images, prompts, keys(16))
    image_changed, regions_changed, _ = embed(params, changed, prompts, keys(16))
    assert np.isfinite(regions).all()
    assert np.array_equal(image[dropped], image_changed[dropped])  # the image stream does not see the patch
    assert (np.abs(regions - regions_changed).max(-1)[dropped] > 1e-4).all()  # the region does, by its glimpse


@pytest.mark.parametrize("drop", [0.1, 0.5, 0.9])
def test_survivors_are_distinct_patches_and_the_canvas_goes_first(drop):
    rectangle = np.float32([[0, 0, 1, 1], [0, 0.25, 1, 0.75], [0.5, 0.5, 0.6, 0.6]])
    kept = np.asarray(surviving_patches(keys(3), rectangle, 8, drop))
    assert kept.shape == (3, round((1 - drop) * 64))
    canvas = np.asarray(canvas_patches(rectangle, 8))
    for row, patches in enumerate(kept):
        assert (np.diff(patches) > 0).all() and 0 <= patches.min() and patches.max() < 64
        on_canvas, real = canvas[row][patches].sum(), (~canvas[row]).sum()
        assert on_canvas == max(0, len(patches) - real)


def test_dropping_nothing_is_the_same_as_having_no_keys():
    rng = np.random.default_rng(4)
    _, params = cases.small_model(trained=True)
    images = Images(cases.random_images(rng, 2), np.tile(np.float32([0, 0.1, 1, 0.9]), (2, 1)))
    prompts = cases.random_prompts(rng, 2, 2)
    with_keys, without = embed(params, images, prompts, keys(2), 0.0), embed(params, images, prompts, None, 0.5)
    for a, b in zip(with_keys, without, strict=True):
        assert cases.close(a, b, "float32")
