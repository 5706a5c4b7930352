"""Losses against plain loops over their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medp_clip_jax import losses

SCALE = 7.0
seeds = st.integers(0, 2**32 - 1)


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def case(seed, regions=9, labels=6):
    rng = np.random.default_rng(seed)
    related = np.triu(rng.random((labels, labels)) < 0.2, 1)
    log_prior = np.log(rng.dirichlet(np.ones(labels))).astype(np.float32)
    return (
        unit(rng, regions, 8),
        unit(rng, labels, 8),
        rng.integers(-1, labels, regions),
        related | related.T,
        log_prior,
    )


def log_softmax_of(logits, index):
    logits = np.asarray(logits, np.float64)
    return logits[index] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([0.0, 0.5, 1.0]))
def test_region_to_text_is_the_mean_over_valid_regions(seed, tau):
    z, u, target, excluded, prior = case(seed)
    expected, hits = [], []
    for k, label in enumerate(target):
        if label < 0:
            continue
        kept = [c for c in range(len(u)) if not excluded[label, c]]
        logits = [SCALE * z[k] @ u[c] + tau * prior[c] for c in kept]
        expected.append(-log_softmax_of(logits, kept.index(label)))
        hits.append(max(kept, key=lambda c: z[k] @ u[c]) == label)
    loss, accuracy = losses.region_to_text(z, u, jnp.asarray(target), SCALE, prior, tau, excluded)
    np.testing.assert_allclose(loss, np.mean(expected) if expected else 0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(accuracy, np.mean(hits) if hits else 0, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_text_to_region_is_the_mean_over_labels_present(seed):
    z, u, target, excluded, _ = case(seed)
    expected = []
    for label in sorted(set(target[target >= 0].tolist())):
        kept = [k for k in range(len(z)) if target[k] >= 0 and not excluded[label, target[k]]]
        logits = [SCALE * u[label] @ z[k] for k in kept]
        expected.append(np.mean([-log_softmax_of(logits, kept.index(k)) for k in kept if target[k] == label]))
    loss = losses.text_to_region(z, u, jnp.asarray(target), SCALE, excluded)
    np.testing.assert_allclose(loss, np.mean(expected) if expected else 0, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_padding_regions_change_nothing(seed):
    z, u, target, excluded, prior = case(seed)
    extra = unit(np.random.default_rng(seed + 1), 4, 8)
    more, padded = np.concatenate([z, extra]), np.concatenate([target, np.full(4, -1)])
    for a, b in (
        (losses.text_to_region(z, u, target, SCALE, excluded), losses.text_to_region(more, u, padded, SCALE, excluded)),
        (
            losses.region_to_text(z, u, target, SCALE, prior, 0.5, excluded)[0],
            losses.region_to_text(more, u, padded, SCALE, prior, 0.5, excluded)[0],
        ),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_batch_without_regions_has_no_region_loss_and_no_gradient():
    z, u, _, excluded, prior = case(0)
    none = jnp.full(len(z), -1)

    def total(z, u):
        return losses.region_to_text(z, u, none, SCALE, prior, 0.5, excluded)[0] + losses.text_to_region(
            z, u, none, SCALE, excluded
        )

    value, grads = jax.value_and_grad(total, (0, 1))(jnp.asarray(z), jnp.asarray(u))
    assert value == 0
    assert all(np.array_equal(g, np.zeros_like(g)) for g in grads)


def test_prior_correction_favours_rare_labels_at_test_time():
    """With tau > 0 a head label must win by more: without the prior a rare label's region has less loss."""
    u = np.eye(2, dtype=np.float32)
    z = np.array([[0.6, 0.8]], np.float32)  # a region of the rare label 1, rightly nearer to it
    prior = np.log(np.array([0.99, 0.01], np.float32))
    plain, corrected = (
        losses.region_to_text(z, u, jnp.array([1]), SCALE, prior, tau, np.zeros((2, 2), bool))[0] for tau in (0.0, 0.5)
    )
    assert corrected > plain  # so training pushes rare labels further


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_image_text_softmax_and_sigmoid_by_definition(seed):
    rng = np.random.default_rng(seed)
    x, t, ids = unit(rng, 7, 8), unit(rng, 7, 8), rng.integers(0, 4, 7)
    logits, same = SCALE * x @ t.T, ids[:, None] == ids[None]
    softmax = 0.0
    for matrix in (logits, logits.T):
        for i in range(7):
            softmax -= np.mean([log_softmax_of(matrix[i], j) for j in range(7) if same[i, j]]) / 14
    np.testing.assert_allclose(losses.image_text_softmax(x, t, ids, SCALE), softmax, rtol=1e-5)
    signed = np.where(same, 1, -1) * (logits - 3.0)
    np.testing.assert_allclose(
        losses.image_text_sigmoid(x, t, ids, SCALE, -3.0), np.log1p(np.exp(-signed)).sum() / 7, rtol=1e-5
    )


@pytest.mark.parametrize("loss", ["region_to_text", "text_to_region"])
def test_relatives_of_the_target_are_not_pushed_away(loss):
    z, u, target, _, prior = case(5)
    target = np.full_like(target, 0)
    excluded = np.zeros((6, 6), bool)
    excluded[0, 3] = excluded[3, 0] = True

    def total(u):
        if loss == "region_to_text":
            return losses.region_to_text(z, u, target, SCALE, prior, 0.0, excluded)[0]
        return losses.text_to_region(z, u, target, SCALE, excluded)

    grad = jax.grad(total)(jnp.asarray(u))
    assert not np.abs(grad[3]).any()
