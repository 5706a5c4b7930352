"""One training step: forward, losses, update. Everything a step needs comes in as an argument."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from medp_clip_jax import click_training, losses, pair_losses, sharded_losses
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.layers import constrain
from medp_clip_jax.models.vit import Images
from medp_clip_jax.optim import hold
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.sharding import logical_rules

Array = jax.Array
MAX_LOG_SCALE = math.log(100.0)  # CLIP clips the parameter, not its use: a clipped use would leave it without gradient


@flax.struct.dataclass
class Bank:
    """The label bank on the device: what every region is told apart from."""

    tokens: Array  # int32 [labels, variants, length]: sentences of each label
    excluded: Array  # bool [labels, labels]: ancestors and descendants of the row's label
    log_prior: Array  # [labels], of the sampled regions
    embedded: Array | None = None  # [labels, variants, dim]: the sentences, where the text tower is frozen


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
    base: Any = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update on a global batch, on the devices of the ambient mesh: (new state, scalar metrics).

    `base` are the frozen parameters that `loss.distill` holds on to.
    """
    rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
    with nn.logical_axis_rules(logical_rules(config.mesh)):
        (_, metrics), grads = jax.value_and_grad(batch_loss, argnums=1, has_aux=True)(
            model, state.params, config, batch, bank, rng, base
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
    model: MedPCLIP, params: Any, config: Any, batch: Mapping[str, Any], bank: Bank, rng: Array, base: Any = None
) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of the losses on a batch, and its parts."""
    weights, variables = config.loss, {"params": hold(params, config.optim.frozen)}
    devices = max(jax.sharding.get_abstract_mesh().size, 1)
    variant_rng, drop_rng = jax.random.split(rng)
    prompts = batch["prompts"] if weights.region_to_text or weights.text_to_region else None
    inputs = {
        "images": Images(batch["image"], batch["rectangle"]),
        "prompts": with_exact(prompts, batch["exact"]) if weights.consistency else prompts,
        "tokens": batch["text"],
        "keys": jax.vmap(functools.partial(jax.random.fold_in, drop_rng))(batch["position"]),
    }

    def embed(inputs: Any) -> tuple[Any, ...]:
        held = None
        if weights.distill:
            held = model.apply({"params": base}, inputs["images"], method="embed")[0]
        if weights.segment:
            return (*with_masks(model, variables["params"], config, inputs), held)
        return (*model.apply(variables, **inputs), None, held)

    if weights.segment:
        inputs["masks"] = [batch[name] for name in ("target", "target_kind", "annotated")]
    image, regions, text, masks, held = in_microbatches(embed, inputs, config.train.accumulate, devices)
    scale = model.apply(variables, method="scale")
    metrics = {"scale": scale, "regions": (batch["label"] >= 0).sum()}

    # The sharded twins compute the same without ever holding all logits.
    terms, limit = (losses, {}) if devices == 1 else (sharded_losses, {"chunk": weights.chunk})
    parts = {}
    if weights.image_text and weights.image_text_kind == "sigmoid":
        bias = params["logit_bias"]
        parts["image_text"] = terms.image_text_sigmoid(image, text, batch["text_id"], scale, bias, **limit)
    elif weights.image_text:
        parts["image_text"] = terms.image_text_softmax(image, text, batch["text_id"], scale, **limit)
    if weights.distill:
        parts["distill"] = losses.distillation(image, held)
    if weights.consistency:
        regions, exact = (rearrange(x, "b k d -> (b k) d") for x in jnp.split(regions, 2, 1))
        parts["consistency"] = losses.consistency(regions, exact, taught(batch["exact"]).reshape(-1))
    if regions is not None:
        labels = encode_bank(model, variables, bank, variant_rng, devices)
        regions, target = regions.reshape(-1, regions.shape[-1]), batch["label"].reshape(-1)
        kin = bank.excluded if weights.hierarchy else jnp.zeros_like(bank.excluded)
        parts["region_to_text"], metrics["region_accuracy"] = terms.region_to_text(
            regions, labels, target, scale, bank.log_prior, weights.tau, kin, **limit
        )
        if weights.region_kind != "bank":
            paired = pair_losses.KINDS[weights.region_kind]
            parts["region_to_text"] = paired(regions, labels, target, scale, params["logit_bias"], kin)
        parts["text_to_region"] = terms.text_to_region(regions, labels, target, scale, kin, **limit)
    if masks is not None:
        parts["segment"], figures = click_training.total(masks, batch["target_kind"], config.segment)
        metrics |= figures
    total = sum(weights[name] * value for name, value in parts.items())
    return total, {"loss": total, **parts, **metrics}


def with_exact(prompts: RegionPrompts, exact: Array) -> RegionPrompts:
    """Prompts, and after them their regions by their exact masks, uint8 [batch, regions, side, side]: twice as many."""
    valid = taught(exact)
    masks = prompts.replace(
        point_labels=jnp.full_like(prompts.point_labels, -1),
        box_valid=jnp.zeros_like(prompts.box_valid),
        masks=exact,
        mask_valid=valid,
        valid=valid,
    )
    return jax.tree.map(lambda *both: jnp.concatenate(both, 1), prompts, masks)


def taught(exact: Array) -> Array:
    """Regions with an exact mask to learn from, bool [batch, regions]."""
    return exact.max((2, 3)) > 0


def with_masks(model: MedPCLIP, params: Any, config: Any, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Embeddings of images, regions and texts, and the losses of each region's masks; the image is read once."""
    asked = (inputs["images"], inputs["prompts"], inputs["tokens"])
    features, regions, text = model.apply({"params": params}, *asked, method="keep")
    masks = click_training.click_losses(model, params, config, features, *inputs["masks"], inputs["keys"])
    return features.embedding, regions, text, masks


def encode_bank(model: MedPCLIP, variables: Any, bank: Bank, rng: Array, devices: int) -> Array:
    """One random sentence of each label, encoded in equal shares by all devices: [labels, dim]."""
    count, variants, _ = bank.tokens.shape
    chosen = jax.random.randint(rng, (count,), 0, variants)
    if bank.embedded is not None:
        return bank.embedded[jnp.arange(count), chosen]
    return _encode_labels(model, variables, bank.tokens[jnp.arange(count), chosen], devices)


def embed_bank(model: MedPCLIP, params: Any, bank: Bank) -> Bank:
    """The bank with every sentence encoded, once for a whole training of a frozen text tower."""
    devices = max(jax.sharding.get_abstract_mesh().size, 1)
    encode = functools.partial(_encode_labels, model, {"params": params}, devices=devices)
    embedded = jax.lax.map(encode, rearrange(bank.tokens, "labels variants length -> variants labels length"))
    return bank.replace(embedded=rearrange(embedded, "variants labels dim -> labels variants dim"))


def _encode_labels(model: MedPCLIP, variables: Any, sentences: Array, devices: int) -> Array:
    """int32 [labels, length] -> [labels, dim], the rows padded so that every device encodes as many."""
    count = len(sentences)
    rows = jnp.arange(-(-count // devices) * devices) % count
    return model.apply(variables, constrain(sentences[rows], "batch", "tokens"), method="encode_text")[:count]


def in_microbatches(embed: Callable[[Any], Any], inputs: Any, count: int, devices: int) -> Any:
    """`embed(inputs)`, computed one of `count` parts after the other and anew for the gradient (arXiv 2101.06983).

    What is embedded is small and what embedding needs is large: losses see the whole batch at the memory of a part.
    Every device cuts its own share, so that no example moves.
    """
    if count == 1:
        return embed(inputs)

    def split(x: Array) -> Array:
        return constrain(rearrange(x, "(d a m) ... -> a (d m) ...", d=devices, a=count), None, "batch")

    def merge(x: Array) -> Array:
        return constrain(rearrange(x, "a (d m) ... -> (d a m) ...", d=devices), "batch")

    return jax.tree.map(merge, jax.lax.map(jax.checkpoint(embed), jax.tree.map(split, inputs)))
