"""AdamW with a warm-up cosine, decay on matrices only, and learning rates or freezing per module."""

from typing import Any

import jax
import optax

from medp_clip_jax.errors import InputError

DECAYED = (
    "kernel",
    "in_proj_kernel",
    "conv1",
    "proj",
    "text_projection",
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
        optax.clip_by_global_norm(config.clip_norm),
        optax.masked(adamw, jax.tree.map(lambda stays: not stays, frozen)),
        optax.stateless(lambda updates, _: jax.tree.map(lambda update, factor: update * factor, updates, rates)),
    )
    return optax.apply_if_finite(chain, max_consecutive_errors=2**31 - 1)


def _decayed(params: Any) -> Any:
    return jax.tree.map(lambda path: path.rsplit("/", 1)[-1] in DECAYED, parameter_paths(params))


def parameter_paths(params: Any) -> Any:
    """The tree of `params` with each leaf replaced by its path, such as `visual/resblocks/attn/in_proj_kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "/".join(str(key.key) for key in path), params)


def _under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")
