"""Training of the mask decoder: a first prompt, an answer, a click where it is wrong, an answer, and so on.

As in SAM 2 (arXiv 2408.00714) the answer of a round is the mask prompt of the next, gradients run through all rounds,
and after a single click only the best of three masks is corrected.
"""

from typing import Any

import jax
import jax.numpy as jnp

from medp_clip_jax import mask_losses
from medp_clip_jax.clicks import Targets, add_click, first_prompts, next_click, with_absent
from medp_clip_jax.mask_layout import BOX_ONLY, MASK
from medp_clip_jax.models import segmenter
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import ImageFeatures
from medp_clip_jax.prompts import RegionPrompts

Array = jax.Array
PARTS = ("focal", "dice", "iou", "present", "projection")


def click_losses(
    model: MedPCLIP,
    params: Any,
    config: Any,
    features: ImageFeatures,
    target: Array,
    kind: Array,
    annotated: Array,
    keys: Array,
) -> dict[str, Array]:
    """Losses of each region over all rounds, `PARTS` as [batch, regions], 0 where they do not apply.

    `target` uint8 [batch, regions, side, side] are area shares on the canvas, `kind` [batch, regions] is 1 where they
    are masks, 2 where boxes and 0 for padding, `annotated` [batch, side, side] is not 0 where any region lies or the
    canvas is empty; `keys` [batch] is one random key per image. Beside the parts come `first` and `last`,
    the IoU of the answers to the first prompt and after all clicks, and `counted`, whether a region has a mask.
    """
    s = config.segment
    if s.detach:  # the towers are as they are
        features = jax.lax.stop_gradient(features)
        params = {name: part if name == "segmenter" else jax.lax.stop_gradient(part) for name, part in params.items()}
    variables = {"params": params}
    least = jnp.minimum(128, target.max((2, 3), keepdims=True))  # a region smaller than a cell keeps its fullest one
    targets = Targets((target >= least) & (target > 0), kind, jnp.zeros(kind.shape, bool))
    seeds = jax.vmap(lambda key: jax.random.split(key, s.rounds + 2))(keys)
    targets, marked = with_absent(seeds[:, 0], targets, annotated == 0, s.absent)
    prompts = first_prompts(seeds[:, 1], targets, marked, features.rectangle, config)
    prompts = prompts.replace(valid=kind > 0)
    features = model.apply(variables, features, method="look")  # with a gradient of its own
    tokens = model.apply(variables, features, prompts, method="read")[0]
    spare = prompts.points.shape[2] - (s.rounds - 1)  # point slots of the first prompt

    def answer(carry: tuple[RegionPrompts, Array | None], turn: tuple[Array, Array]) -> tuple[Any, dict[str, Array]]:
        prompts, previous = carry
        number, seed = turn
        decoded = model.apply(variables, features, prompts, tokens, previous, method="decode")
        parts = round_losses(decoded, targets, segmenter.ambiguous(prompts) & (previous is None), s)
        logits = segmenter.pick(decoded.masks, segmenter.choose(decoded, prompts))
        parts["score"] = mask_losses.iou(logits > 0, targets.mask)
        wanted, got = targets.mask, logits > 0
        got |= ((targets.kind == BOX_ONLY)[..., None, None]) & wanted  # inside a box nobody knows what is missing
        place, label = next_click(seed, wanted, got)
        label = jnp.where((kind > 0) & ~targets.absent, label, -1)
        prompts = add_click(prompts, spare + number, place, label, features.rectangle)
        return (prompts, logits), parts

    turns = (jnp.arange(s.rounds), jnp.moveaxis(seeds[:, 2:], 1, 0))
    step = jax.checkpoint(answer) if config.model.remat != "none" else answer
    answered, first = step((prompts, None), jax.tree.map(lambda x: x[0], turns))
    _, rest = jax.lax.scan(step, answered, jax.tree.map(lambda x: x[1:], turns), unroll=s.unroll)
    parts = jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), first, rest)
    score = parts.pop("score")
    counted = (targets.kind == MASK) & ~targets.absent
    return {name: part.mean(0) for name, part in parts.items()} | {
        "first": jnp.where(counted, score[0], 0),
        "last": jnp.where(counted, score[-1], 0),
        "counted": counted,
    }


def round_losses(decoded: segmenter.Decoded, targets: Targets, ambiguous: Array, settings: Any) -> dict[str, Array]:
    """Losses of one answer, `PARTS` as [batch, regions]; after a single click those of the best of three masks.

    Which mask is best, focal and Dice loss decide; its IoU is learned for all masks that might have answered.
    """
    target = targets.mask[:, :, None]
    focal, dice = mask_losses.focal(decoded.masks, target), mask_losses.dice(decoded.masks, target)
    # A maximum over rows and columns is dear, and most data has masks only.
    projection = mask_losses.projection(decoded.masks, target) if settings.projection else jnp.zeros_like(dice)
    true = mask_losses.iou(decoded.masks > 0, target)
    iou = jnp.square(decoded.iou - jax.lax.stop_gradient(true))
    several = ambiguous[..., None] == (jnp.arange(decoded.iou.shape[-1]) > 0)  # those that might answer
    box = (targets.kind == BOX_ONLY)[..., None]
    total = jnp.where(box, projection, settings.focal * focal + settings.dice * dice)
    best = jnp.where(several, total, jnp.inf).argmin(-1)
    masked = (targets.kind == MASK) & ~targets.absent
    boxed = (targets.kind == BOX_ONLY) & ~targets.absent
    present = mask_losses.presence(decoded.present, ~targets.absent)

    def at_best(x: Array, where: Array) -> Array:
        return jnp.where(where, segmenter.pick(x, best), 0)

    return {
        "focal": at_best(focal, masked),
        "dice": at_best(dice, masked),
        "iou": jnp.where(masked, jnp.where(several, iou, 0).sum(-1) / several.sum(-1), 0),
        "present": jnp.where(targets.kind > 0, present, 0),
        "projection": at_best(projection, boxed),
    }


def total(parts: dict[str, Array], kind: Array, settings: Any) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of the parts, each a mean over the regions of the batch, and what to report of a step."""
    regions = jnp.maximum((kind > 0).sum(), 1)
    means = {name: parts[name].sum() / regions for name in PARTS}
    counted = jnp.maximum(parts["counted"].sum(), 1)
    scores = {f"mask_iou_{name}": parts[name].sum() / counted for name in ("first", "last")}
    loss = sum(settings[name] * value for name, value in means.items())
    return loss, {f"mask_{name}": value for name, value in means.items()} | scores
