"""The invariants of the region stream, over random prompts, regions, padding and sizes, before and after training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medp_clip_jax import losses
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import Images
from medp_clip_jax.prompts import RegionPrompts
from tests import model_cases as cases

seeds = st.integers(0, 2**32 - 1)
# (size, regions): few, as each is compiled anew; what the images and prompts hold varies. The model is made for 64 px,
# the other size interpolates its positions.
SHAPES = {"float32": ((64, 4), (48, 4), (64, 1)), "bfloat16": ((64, 4),)}
pytestmark = pytest.mark.xdist_group("compiled model")  # compile once: all on one worker
each = pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
both = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def draws(dtype: str, seed: int):
    """Images on part of their canvas with prompts of every kind, in every shape of the dtype."""
    for size, count in SHAPES[dtype]:
        yield draw(seed, size, count)


def draw(seed: int, size: int = 64, count: int = 4, batch: int = 2):
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(0, 0.3, (batch, 2)), rng.uniform(0.7, 1, (batch, 2))
    rectangle = np.concatenate([low, high], -1).astype(np.float32)
    return Images(cases.random_images(rng, batch, size), rectangle), cases.random_prompts(rng, batch, count)


def without_prompts(prompts: RegionPrompts) -> RegionPrompts:
    """Empty by its flags: the values stay what they were."""
    off = np.zeros_like(prompts.box_valid)
    return prompts.replace(box_valid=off, mask_valid=off, point_labels=np.full_like(prompts.point_labels, -1))


@both
@each
@settings(max_examples=10, deadline=None)
@given(seeds)
def test_global_embedding_does_not_depend_on_prompts(dtype, trained, seed):
    _, params = cases.small_model(dtype, trained=trained)
    one_pass, encode_image, encode_regions = cases.compiled(dtype)
    for images, prompts in draws(dtype, seed):
        alone = encode_image(params, images)
        encode_regions(params, alone, prompts)
        again = encode_image(params, images)
        assert np.array_equal(alone.embedding, again.embedding)  # one compilation: to the bit
        together, _ = one_pass(params, images, prompts)
        assert cases.close(together, alone.embedding, dtype)


@both
@each
@settings(max_examples=10, deadline=None)
@given(seeds)
def test_empty_prompt_is_the_global_embedding(dtype, trained, seed):
    _, params = cases.small_model(dtype, trained=trained)
    _, encode_image, encode_regions = cases.compiled(dtype)
    for images, prompts in draws(dtype, seed):
        features = encode_image(params, images)
        answer = encode_regions(params, features, without_prompts(prompts))
        assert cases.close(answer, jnp.broadcast_to(features.embedding[:, None], answer.shape), dtype)


def test_no_prompts_at_all_is_the_global_embedding():
    _, params = cases.small_model(trained=True)
    _, encode_image, encode_regions = cases.compiled()
    features = encode_image(params, draw(0)[0])
    answer = encode_regions(params, features, RegionPrompts.none(2, 3))
    assert cases.close(answer, jnp.broadcast_to(features.embedding[:, None], answer.shape), "float32")


@both
@each
@settings(max_examples=10, deadline=None)
@given(seeds)
def test_one_pass_equals_two_stages(dtype, trained, seed):
    _, params = cases.small_model(dtype, trained=trained)
    one_pass, encode_image, encode_regions = cases.compiled(dtype)
    for images, prompts in draws(dtype, seed):
        _, together = one_pass(params, images, prompts)
        assert cases.close(together, encode_regions(params, encode_image(params, images), prompts), dtype)


@both
@each
@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 3))
def test_regions_do_not_see_each_other_or_padding(dtype, trained, seed, kept):
    """The first `kept` of four regions: among the others, in another order, and with padding in the others' place."""
    _, params = cases.small_model(dtype, trained=trained)
    _, encode_image, encode_regions = cases.compiled(dtype)
    images, prompts = draw(seed)
    features = encode_image(params, images)
    together = encode_regions(params, features, prompts)
    order = np.random.default_rng(seed).permutation(4)
    assert cases.close(encode_regions(params, features, cases.take_regions(prompts, order)), together[:, order], dtype)
    padding = np.arange(4) >= kept

    def blank(x):
        return np.where(padding.reshape(1, 4, *[1] * (x.ndim - 2)), np.zeros_like(x), x)

    padded = encode_regions(params, features, jax.tree.map(blank, prompts))
    assert cases.close(padded[:, :kept], together[:, :kept], dtype)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_region_alone_is_what_it_is_among_others(seed):
    _, params = cases.small_model(trained=True)
    _, encode_image, encode_regions = cases.compiled()
    images, prompts = draw(seed)
    features = encode_image(params, images)
    alone = encode_regions(params, features, cases.take_regions(prompts, slice(0, 1)))
    assert cases.close(alone, encode_regions(params, features, prompts)[:, :1], "float32")


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_extra_point_slots_and_point_order_change_nothing(seed):
    _, params = cases.small_model(trained=True)
    _, encode_image, encode_regions = cases.compiled()
    images, prompts = draw(seed)
    features = encode_image(params, images)
    answer = encode_regions(params, features, prompts)
    spare = prompts.replace(
        points=np.pad(prompts.points, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=0.3),
        point_labels=np.pad(prompts.point_labels, ((0, 0), (0, 0), (0, 2)), constant_values=-1),
    )
    assert cases.close(encode_regions(params, features, spare), answer, "float32")
    turned = prompts.replace(points=prompts.points[:, :, ::-1], point_labels=prompts.point_labels[:, :, ::-1])
    assert cases.close(encode_regions(params, features, turned), answer, "float32")


@both
@settings(max_examples=6, deadline=None)
@given(seeds)
def test_fresh_prompt_parameters_only_look_through_the_bias(dtype, seed):
    """An imported CLIP: with s = 0 every region embedding is the global one; the image's never changes."""
    _, params = cases.small_model(dtype)
    _, encode_image, encode_regions = cases.compiled(dtype)
    images, prompts = draw(seed)
    features = encode_image(params, images)
    blind = {**params, "fusion": {**params["fusion"], "bias_scale": jnp.zeros_like(params["fusion"]["bias_scale"])}}
    answer = encode_regions(blind, features, prompts)
    assert cases.close(answer, jnp.broadcast_to(features.embedding[:, None], answer.shape), dtype)
    same_image = encode_image(blind, images)  # the prompt parameters are none of the image's business
    assert np.array_equal(same_image.embedding, features.embedding)


def loss_of_regions(model: MedPCLIP, params, images, prompts, target, labels):
    _, found, _ = model.apply({"params": params}, images, prompts, np.ones((1, 8), np.int32))
    excluded = jnp.zeros((len(labels), len(labels)), bool)
    flat = found.reshape(-1, found.shape[-1])
    return losses.region_to_text(flat, labels, target, 10.0, jnp.zeros(len(labels)), 0.0, excluded)[0]


def test_prompt_parameters_start_to_learn_at_once():
    """At step 0 the zero-initialised layer and bias scale have gradients; after one update all prompt parameters."""
    model, params = cases.small_model()
    rng = np.random.default_rng(3)
    images, prompts = draw(3, count=6, batch=4)
    prompts = prompts.replace(
        box_valid=np.arange(24).reshape(4, 6) % 2 == 0, mask_valid=np.arange(24).reshape(4, 6) % 3 == 0
    )
    labels = jax.nn.standardize(jnp.asarray(rng.normal(size=(5, 24)), jnp.float32))
    target = jnp.asarray(rng.integers(0, 5, 24))
    grad = jax.jit(jax.grad(lambda p: loss_of_regions(model, p, images, prompts, target, labels)))

    first = grad(params)["fusion"]
    assert np.abs(first["bias_scale"]).max() > 0
    assert np.abs(first["encoder"]["out"]["kernel"]).max() > 0
    assert not np.abs(first["encoder"]["shape_1"]["kernel"]).any()
    update = optax.sgd(0.1)
    moved = optax.apply_updates(params, update.update(grad(params), update.init(params))[0])
    for path, leaf in jax.tree_util.tree_leaves_with_path(grad(moved)["fusion"]):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_canvas_is_never_seen(seed):
    """What stands on patches outside the image rectangle does not reach any embedding of the image."""
    _, params = cases.small_model(trained=True)
    _, encode_image, encode_regions = cases.compiled()
    images, prompts = draw(seed)
    rectangle = np.array([[0.25, 0, 1, 1], [0, 0, 1, 0.5]], np.float32)
    other = images.pixels.copy()
    other[0, :, :16], other[1, 32:] = 7, 250
    before, after = (encode_image(params, Images(pixels, rectangle)) for pixels in (images.pixels, other))
    assert cases.close(before.embedding, after.embedding, "float32")
    answers = [encode_regions(params, features, without_prompts(prompts)) for features in (before, after)]
    assert cases.close(*answers, "float32")
