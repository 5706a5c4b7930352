"""Variants of the region stream that are there to compare with keep its invariants, and do what their name says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from medp_clip_jax import losses, pair_losses
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import Images
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import Bank, batch_loss, encode_bank, init_params, with_exact
from tests import model_cases as cases
from tests.test_invariants import draw

VARIANTS = {"tokens": {"tokens": 3}, "late bias": {"bias_from": 1}, "no bias": {"bias": False}}


def variant(**prompt):
    config = cases.small_config()
    config.prompt.update(prompt)
    return MedPCLIP(config)


@functools.lru_cache
def made(**prompt):
    model = variant(**prompt)
    params = cases.train(model, jax.jit(functools.partial(init_params, model, 0))())
    encode = jax.jit(functools.partial(model.apply, method="encode_image"))
    ask = jax.jit(functools.partial(model.apply, method="encode_regions"))
    together = jax.jit(functools.partial(model.apply, tokens=jnp.ones((1, 4), jnp.int32)))
    return {"params": params}, encode, ask, lambda params, *inputs: together(params, *inputs)[:2]


@pytest.mark.parametrize("name", VARIANTS)
def test_invariants_hold(name):
    params, encode, ask, together = made(**VARIANTS[name])
    images, prompts = draw(3)
    features = encode(params, images)
    regions = ask(params, features, prompts)
    image, once = together(params, images, prompts)
    assert regions.shape == (2, 4, 24) and cases.close(once, regions, "float32")
    assert cases.close(image, features.embedding, "float32")
    nothing = ask(params, features, RegionPrompts.none(2, 3))
    assert cases.close(nothing, jnp.broadcast_to(features.embedding[:, None], nothing.shape), "float32")
    order = np.array([2, 0, 3, 1])
    turned = ask(params, features, cases.take_regions(prompts, order))
    assert cases.close(turned, regions[:, order], "float32")


def test_bias_from_the_first_block_is_bias_and_from_none_is_no_bias():
    images, prompts = draw(4)
    params = {"params": cases.small_model(trained=True)[1]}

    def answer(**prompt):
        model = variant(**prompt)
        return model.apply(params, model.apply(params, images, method="encode_image"), prompts, method="encode_regions")

    with jax.disable_jit():  # compiled, programs that compute the same may round differently
        answers = {name: answer(bias_from=first) for name, first in (("all", 0), ("last", 1), ("none", 2))}
        answers["off"] = answer(bias=False)
    assert np.array_equal(answers["none"], answers["off"])
    moved = [float(np.abs(answers["all"] - answers[name]).max()) for name in ("last", "none")]
    assert min(moved) > 1e-3 and np.abs(answers["last"] - answers["none"]).max() > 1e-3


def test_several_tokens_of_a_region_are_told_apart():
    params = made(tokens=3)[0]
    apart = params["params"]["fusion"]["apart"]
    assert apart.shape == (3, 48) and np.abs(apart[0] - apart[1]).max() > 1e-3


def region_loss(kin, **loss):
    """The region part of a step's loss, and what it was made of."""
    config = common.get_config()
    config.loss.update(loss)
    model, params = cases.small_model()
    rng = np.random.default_rng(5)
    batch = cases.random_batch(rng)
    bank = Bank(rng.integers(1, 299, (5, 1, 6)).astype(np.int32), jnp.asarray(kin), jnp.zeros(5))
    parts = batch_loss(model, params, config, batch, bank, jax.random.key(0))[1]
    labels = encode_bank(model, {"params": params}, bank, jax.random.key(0), 1)  # one sentence each
    regions = model.apply(
        {"params": params}, Images(batch["image"], batch["rectangle"]), batch["prompts"], batch["text"]
    )
    given = regions[1].reshape(-1, 24), labels, batch["label"].reshape(-1), parts["scale"]
    return parts["region_to_text"], given, params["logit_bias"]


def test_the_step_takes_the_region_loss_and_the_kin_that_it_is_told_to():
    kin, none = ~np.eye(5, dtype=bool), np.zeros((5, 5), bool)
    kin[2:, :] = kin[:, 2:] = False  # the first two labels are kin
    for kind, paired in pair_losses.KINDS.items():
        found, given, bias = region_loss(kin, region_kind=kind)
        assert found == pytest.approx(float(paired(*given, bias, jnp.asarray(kin))), rel=1e-4)
    for hierarchy, counted in ((True, kin), (False, none)):
        found, given, _ = region_loss(kin, hierarchy=hierarchy)
        expected, _ = losses.region_to_text(*given, jnp.zeros(5), 0.5, jnp.asarray(counted))
        assert found == pytest.approx(float(expected), rel=1e-4)
    assert region_loss(kin, hierarchy=True)[0] < region_loss(kin, hierarchy=False)[0]


def test_exact_masks_teach_what_other_prompts_say_and_learn_nothing_from_them():
    config = common.get_config()
    config.loss.update(consistency=1.0, image_text=0.0, region_to_text=1e-30, text_to_region=0.0)
    model, params = cases.small_model()
    rng = np.random.default_rng(5)
    batch = cases.random_batch(rng)
    exact = np.zeros_like(batch["prompts"].masks, np.uint8)
    exact[:, 1, 2:6, 3:7] = 255  # of the second region alone
    batch |= {"exact": exact}
    bank = Bank(rng.integers(1, 299, (5, 1, 6)).astype(np.int32), jnp.zeros((5, 5), bool), jnp.zeros(5))
    total, parts = batch_loss(model, params, config, batch, bank, jax.random.key(0))
    images = Images(batch["image"], batch["rectangle"])
    masks = with_exact(batch["prompts"], exact)
    assert masks.valid[:, 3:].tolist() == [[False, True, False]] * len(exact)
    assert not masks.box_valid[:, 3:].any() and (masks.point_labels[:, 3:] == -1).all()
    by_prompt, by_mask = (
        model.apply({"params": params}, images, prompts, batch["text"])[1][:, 1]
        for prompts in (batch["prompts"], cases.take_regions(masks, np.array([3, 4, 5])))
    )
    assert total == pytest.approx(float((1 - (by_prompt * by_mask).sum(-1)).mean()), rel=1e-4) and total > 1e-3
    assert parts["consistency"] == total

    one = jnp.eye(3)[:2]
    gradients = jax.grad(losses.consistency, (0, 1))(one, one[::-1], jnp.array([True, False]))
    assert gradients[0][0].any() and not gradients[0][1].any() and not gradients[1].any()
