"""AdamW with a warm-up cosine, decay on matrices only, and learning rates or freezing per module."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medp_clip_jax.errors import InputError

DECAYED = (
    "kernel",
    "in_proj_kernel",
    "conv1",
    "proj",
    "text_projection",
    "text_projection_1",
    "text_projection_2",
)  # weight matrices; not embeddings, norms, biases, scalars


def schedule(config: Any, steps: int) -> optax.Schedule:
    """Learning rate per step: linear warm-up, then a cosine to `final` times the peak."""
    warmup = max(1, round(config.warmup * steps))
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(steps, warmup + 1), config.final * config.learning_rate
    )


def make_optimizer(config: Any, steps: int, params: Any) -> optax.GradientTransformation:
    """The optimiser of `config.optim` for these parameters; a non-finite gradient changes only its counters.

    Raises:
      InputError: `module_rates` or `frozen` name a path that no parameter has.
    """
    paths = parameter_paths(params)
    names = jax.tree.leaves(paths)
    for prefix in (*config.module_rates, *config.frozen):
        if not any(_under(path, prefix) for path in names):
            tops = sorted({"/".join(path.split("/")[:2]) for path in names})
            raise InputError(
                f"config.optim: no parameter lies under {prefix!r}; expected a path such as {', '.join(tops)}"
            )

    def rate(path: str) -> float:
        matching = [prefix for prefix in config.module_rates if _under(path, prefix)]
        return config.module_rates[max(matching, key=len)] if matching else 1.0

    rates = jax.tree.map(rate, paths)
    frozen = jax.tree.map(lambda path: any(_under(path, prefix) for prefix in config.frozen), paths)
    adamw = optax.chain(
        optax.scale_by_adam(config.beta1, config.beta2),
        optax.add_decayed_weights(config.weight_decay, _decayed),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )
    chain = optax.chain(
        optax.masked(optax.set_to_zero(), frozen),  # so that the norm is that of what is trained
        clip(config.clip_norm, paths),
        optax.masked(adamw, jax.tree.map(lambda stays: not stays, frozen)),
        optax.stateless(lambda updates, _: jax.tree.map(lambda update, factor: update * factor, updates, rates)),
    )
    return skip_non_finite(chain)


def clip(norm: float, paths: Any) -> optax.GradientTransformation:
    """Clips by the global norm; a mask decoder has a norm of its own, so that it takes nothing from the towers."""
    decoder = jax.tree.map(lambda path: _under(path, "segmenter"), paths)
    each = optax.stateless(lambda updates, _: _clipped(updates, norm))
    if not any(jax.tree.leaves(decoder)):
        return each
    others = jax.tree.map(lambda inside: not inside, decoder)
    return optax.chain(optax.masked(each, decoder), optax.masked(each, others))


def _clipped(updates: Any, norm: float) -> Any:
    """As `optax.clip_by_global_norm`, by one factor: dividing every gradient takes a quarter of the update's time."""
    factor = jnp.minimum(1.0, norm / optax.global_norm(updates))
    return jax.tree.map(lambda x: x * factor, updates)


def hold(params: Any, frozen: Collection[str]) -> Any:
    """`params` that send no gradient back to those under the path prefixes `frozen`: none is then computed for them."""
    if not frozen:
        return params
    return jax.tree.map(
        lambda path, x: jax.lax.stop_gradient(x) if any(_under(path, prefix) for prefix in frozen) else x,
        parameter_paths(params),
        params,
    )


def skip_non_finite(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optax.apply_if_finite` that looks at the gradient's norm and never gives up; counters as there.

    The norm is needed anyway, and a select fuses with the update; a test of every gradient and a branch cost two more
    passes over all parameters. A norm that overflows is skipped too.
    """

    def init(params: Any) -> optax.ApplyIfFiniteState:
        return optax.apply_if_finite(inner, 0).init(params)

    def update(updates: Any, state: optax.ApplyIfFiniteState, params: Any = None) -> tuple[Any, Any]:
        finite = jnp.isfinite(optax.global_norm(updates))
        updates, after = inner.update(updates, state.inner_state, params)
        updates = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), updates)
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state.inner_state)
        in_a_row = jnp.where(finite, 0, optax.safe_increment(state.notfinite_count))
        total = jnp.where(finite, state.total_notfinite, optax.safe_increment(state.total_notfinite))
        return updates, optax.ApplyIfFiniteState(in_a_row, finite, total, after)

    return optax.GradientTransformation(init, update)


def _decayed(params: Any) -> Any:
    return jax.tree.map(lambda path: path.rsplit("/", 1)[-1] in DECAYED, parameter_paths(params))


def parameter_paths(params: Any) -> Any:
    """The tree of `params` with each leaf replaced by its path, such as `visual/resblocks/attn/in_proj_kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "/".join(str(key.key) for key in path), params)


def _under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")
