"""Region losses to compare with: what they are without padding and kin, and that neither counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import SCALE, case, seeds

from medp_clip_jax import losses, pair_losses

BIAS = -3.0
KINDS = pytest.mark.parametrize("kind", pair_losses.KINDS)


def value(kind, regions, labels, target, excluded):
    return pair_losses.KINDS[kind](regions, labels, jnp.asarray(target), SCALE, BIAS, jnp.asarray(excluded))


@KINDS
@settings(max_examples=20, deadline=None)
@given(seeds)
def test_they_are_the_losses_of_images_and_texts_on_regions_and_their_sentences(kind, seed):
    regions, labels, target, related, _ = case(seed)
    target = np.abs(target)  # nothing is padding
    texts, alone = labels[target], np.arange(len(target))
    expected = {
        "one_hot": lambda: losses.image_text_softmax(regions, texts, alone, SCALE),
        "multi_positive": lambda: losses.image_text_softmax(regions, texts, target, SCALE),
        "sigmoid": lambda: losses.image_text_sigmoid(regions, texts, target, SCALE, BIAS),
    }[kind]()
    found = value(kind, regions, labels, target, np.zeros_like(related))
    assert found == pytest.approx(float(expected), rel=2e-5)


@KINDS
@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 4))
def test_padding_changes_nothing_and_gets_no_gradient(kind, seed, padding):
    regions, labels, target, related, _ = case(seed)
    more = np.concatenate([regions, regions[:padding]]), labels, np.append(target, [-1] * padding), related
    assert value(kind, *more) == pytest.approx(float(value(kind, regions, labels, target, related)), rel=1e-5, abs=1e-6)
    gradient = jax.grad(lambda x: value(kind, x, *more[1:]))(jnp.asarray(more[0]))
    assert np.isfinite(gradient).all() and not gradient[np.flatnonzero(more[2] < 0)].any()


@KINDS
def test_regions_of_kin_are_no_negatives(kind):
    regions, labels, _, _, _ = case(0, regions=2, labels=2)
    kin = ~np.eye(2, dtype=bool)
    both = value(kind, regions, labels, [0, 1], kin)
    alone = [value(kind, regions[[i]], labels, [i], kin) for i in (0, 1)]
    assert both == pytest.approx(float(np.mean(alone)), abs=1e-6)
    assert both < value(kind, regions, labels, [0, 1], ~kin & False)


@KINDS
def test_no_regions_are_no_loss(kind):
    regions, labels, _, related, _ = case(1)
    assert value(kind, regions, labels, [-1] * len(regions), related) == 0
