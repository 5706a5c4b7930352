"""What the optimiser does to parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from medp_clip_jax.errors import InputError
from medp_clip_jax.optim import make_optimizer, schedule

PARAMS = {
    "visual": {"conv1": jnp.ones((2, 2)), "ln_pre": {"scale": jnp.ones(2)}},
    "text": {"token_embedding": jnp.ones((3, 2)), "mlp": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((4, 2))}},
    "logit_scale": jnp.ones(()),
}


def settings(**changes):
    config = common.get_config().optim
    config.update({"learning_rate": 0.1, "warmup": 0.0, "clip_norm": 1e9, **changes})
    return config


def updates(config, grads, params=PARAMS):
    optimizer = make_optimizer(config, 100, params)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    _, state = update(grads, state, params)  # the first step of the warm-up has rate 0
    return update(grads, state, params)[0], state


def test_warmup_then_cosine():
    rate = schedule(settings(warmup=0.1, final=0.01), 100)
    assert float(rate(0)) == 0
    assert float(rate(10)) == pytest.approx(0.1)
    assert float(rate(5)) == pytest.approx(0.05)
    assert float(rate(100)) == pytest.approx(0.001)
    assert all(rate(i) >= rate(i + 1) for i in range(10, 100))


def test_only_matrices_decay():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    moved, _ = updates(settings(weight_decay=0.5), zero)
    assert moved["visual"]["conv1"].max() < 0
    assert moved["text"]["mlp"]["kernel"].max() < 0
    for kept in (
        moved["visual"]["ln_pre"]["scale"],
        moved["text"]["token_embedding"],
        moved["text"]["mlp"]["bias"],
        moved["logit_scale"],
    ):
        assert not np.any(kept)


def test_frozen_modules_stay_and_do_not_count_in_the_norm():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    grads["text"]["mlp"]["kernel"] = jnp.full((2, 2), 1e6)  # would swamp a norm that counted it
    moved, _ = updates(settings(frozen=("text",), clip_norm=1.0), grads)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(moved["text"]))
    assert np.all(np.abs(moved["visual"]["conv1"]) > 1e-3)


def test_module_rates_scale_what_lies_under_the_longest_prefix():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    plain, _ = updates(settings(weight_decay=0.0), grads)
    scaled, _ = updates(settings(weight_decay=0.0, module_rates={"text": 0.1, "text/mlp": 0.5}), grads)
    np.testing.assert_allclose(scaled["text"]["token_embedding"], 0.1 * plain["text"]["token_embedding"], rtol=1e-5)
    np.testing.assert_allclose(scaled["text"]["mlp"]["kernel"], 0.5 * plain["text"]["mlp"]["kernel"], rtol=1e-5)
    np.testing.assert_allclose(scaled["visual"]["conv1"], plain["visual"]["conv1"], rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_gradient_changes_nothing_but_the_counters(bad):
    optimizer = make_optimizer(settings(), 100, PARAMS)
    update = jax.jit(optimizer.update)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    _, state = update(grads, optimizer.init(PARAMS), PARAMS)
    broken = {**grads, "logit_scale": jnp.asarray(bad)}
    moved, after = update(broken, state, PARAMS)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(moved))
    assert (int(after.total_notfinite), int(after.notfinite_count)) == (1, 1)
    jax.tree.map(np.testing.assert_array_equal, after.inner_state, state.inner_state)
    again, healed = update(grads, after, PARAMS)
    expected, _ = update(grads, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, again, expected)
    assert (int(healed.total_notfinite), int(healed.notfinite_count)) == (1, 0)


@pytest.mark.parametrize("field", [{"frozen": ("txt",)}, {"module_rates": {"visual/conv": 0.1}}])
def test_a_path_without_parameters_is_named(field):
    with pytest.raises(InputError, match="no parameter lies under"):
        make_optimizer(settings(**field), 10, PARAMS)


def test_the_update_lowers_a_loss():
    optimizer = make_optimizer(settings(), 100, PARAMS)
    params, state = PARAMS, optimizer.init(PARAMS)

    def loss(p):
        return sum(jnp.square(leaf - 0.5).sum() for leaf in jax.tree.leaves(p))

    @jax.jit
    def step(params, state):
        moved, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, moved), state

    for _ in range(30):
        params, state = step(params, state)
    assert loss(params) < 0.1 * loss(PARAMS)
