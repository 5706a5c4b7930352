"""One training step: forward, losses, update. Everything a step needs comes in as an argument."""

import math
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from medp_clip_jax import losses
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import Images
from medp_clip_jax.prompts import RegionPrompts

Array = jax.Array
MAX_LOG_SCALE = math.log(100.0)  # CLIP clips the parameter, not its use: a clipped use would leave it without gradient


@flax.struct.dataclass
class Bank:
    """The label bank on the device: what every region is told apart from."""

    tokens: Array  # int32 [labels, variants, length]: sentences of each label
    excluded: Array  # bool [labels, labels]: ancestors and descendants of the row's label
    log_prior: Array  # [labels], of the sampled regions


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step."""

    step: Array
    params: Any
    opt_state: optax.OptState


def init_params(model: MedPCLIP, seed: int) -> Any:
    """Fresh parameters of the model, as a nested dict of float32 arrays."""
    size, context = model.config.image.size, model.config.text.context
    images, tokens = jnp.zeros((1, size, size, 3), jnp.uint8), jnp.zeros((1, context), jnp.int32)
    return model.init(jax.random.key(seed), images, RegionPrompts.none(1), tokens)["params"]


def train_step(
    model: MedPCLIP,
    optimizer: optax.GradientTransformation,
    config: Any,
    state: TrainState,
    batch: Mapping[str, Any],
    bank: Bank,
) -> tuple[TrainState, dict[str, Array]]:
    """One update on a global batch: (new state, scalar metrics)."""
    rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
    (_, metrics), grads = jax.value_and_grad(batch_loss, argnums=1, has_aux=True)(
        model, state.params, config.loss, batch, bank, rng
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params["logit_scale"] = jnp.minimum(params["logit_scale"], MAX_LOG_SCALE)
    metrics |= {
        "grad_norm": optax.global_norm(grads),
        "bad_steps": opt_state.total_notfinite,  # skipped in all
        "bad_steps_in_a_row": opt_state.notfinite_count,
    }
    return TrainState(state.step + 1, params, opt_state), metrics


def batch_loss(
    model: MedPCLIP, params: Any, config: Any, batch: Mapping[str, Any], bank: Bank, rng: Array
) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of the losses on a batch and its parts; `config` is the loss section."""
    with_regions = bool(config.region_to_text or config.text_to_region)
    variant_rng, drop_rng = jax.random.split(rng)
    count, variants, _ = bank.tokens.shape
    sentences = bank.tokens[jnp.arange(count), jax.random.randint(variant_rng, (count,), 0, variants)]

    def forward(clip: MedPCLIP) -> tuple[Array, ...]:
        images = Images(batch["image"], batch["rectangle"])
        if with_regions:
            image, regions, text = clip(images, batch["prompts"], batch["text"])
        else:
            image, regions, text = clip.encode_image(images).embedding, None, clip.encode_text(batch["text"])
        return image, regions, text, clip.encode_text(sentences), clip.scale(), clip.logit_bias

    image, regions, text, labels, scale, bias = model.apply({"params": params}, method=forward, rngs={"drop": drop_rng})
    metrics = {"scale": scale, "regions": (batch["label"] >= 0).sum()}
    if config.image_text_kind == "sigmoid":
        parts = {"image_text": losses.image_text_sigmoid(image, text, batch["text_id"], scale, bias)}
    else:
        parts = {"image_text": losses.image_text_softmax(image, text, batch["text_id"], scale)}
    if regions is not None:
        regions, target = regions.reshape(-1, regions.shape[-1]), batch["label"].reshape(-1)
        parts["region_to_text"], metrics["region_accuracy"] = losses.region_to_text(
            regions, labels, target, scale, bank.log_prior, config.tau, bank.excluded
        )
        parts["text_to_region"] = losses.text_to_region(regions, labels, target, scale, bank.excluded)
    total = sum(config[name] * value for name, value in parts.items())
    return total, {"loss": total, **parts, **metrics}
