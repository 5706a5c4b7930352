"""What a training step costs in floating-point operations, counted from the configuration, and what share a chip gives.

Only matrix products and convolutions count, a multiply-add as 2, as is usual for MFU (PaLM, arXiv 2204.02311, appendix
B); XLA's own count is of no use here, because it takes the body of a scan once.
"""

import dataclasses
import math
from typing import Any

from medp_clip_jax.models.fusion_baselines import LAYERS

# Dense bf16 FLOP/s of one jax device, by the longest prefix of its `device_kind`; the vendors' data sheets:
# cloud.google.com/tpu/docs/system-architecture-tpu-vm, nvidia.com (without sparsity).
PEAK = {
    "TPU v4": 275e12,
    "TPU v4 lite": 138e12,
    "TPU v5 lite": 197e12,  # v5e
    "TPU v5e": 197e12,
    "TPU v5": 459e12,  # v5p calls itself so
    "TPU v6 lite": 918e12,  # v6e
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,  # two devices per chip
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,  # SXM
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}
OPTIMIZER = 20  # elementwise operations per parameter: clipping, AdamW, decay, the update
# Gradients cost twice the forward pass, but none reach pixels and prompts, a frozen text tower or the base.
BACKWARD = {"windows": 0.0, "frozen text": 0.0, "base": 0.0}


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one training step on the global batch, in all devices together."""

    forward: dict[str, float]  # part of the model -> one forward pass
    recompute: float  # forward work that remat and accumulation do again
    optimizer: float  # elementwise, and no part of MFU

    @property
    def model(self) -> float:
        """Forward and backward pass: what MFU counts."""
        return sum(value * (1 + BACKWARD.get(part, 2.0)) for part, value in self.forward.items())

    @property
    def hardware(self) -> float:
        """All that is executed, recomputation included."""
        return self.model + self.recompute + self.optimizer


def step_flops(config: Any, labels: int, parameters: int = 0) -> StepFlops:
    """FLOPs of one training step of a configuration with `labels` in its bank; `parameters` only feed the optimiser."""
    model, batch = config.model, config.input.batch_size
    regions = batch * config.input.regions if config.loss.region_to_text or config.loss.text_to_region else 0
    asked = regions * (2 if config.loss.consistency else 1)
    tokens, text, label = image_tokens(model), model.text.context, config.input.label_context
    read = asked * (model.prompt.tokens if model.fusion == "tokens" else 1)  # region tokens
    forward = {
        "image": batch * (_blocks(model.image, tokens) + _ends(model)),
        "regions": read * _region(model, tokens),
        "prompts": asked * _prompt(model, config.input.points) * (model.fusion in ("tokens", "late")),
        "windows": asked * _windows(config),
        "text": batch * _text(model, text),
        "labels": labels * (_text(model, label) - _unread(model.text, label)) if regions else 0.0,
        "unread": -batch * (_unread_image(model, tokens, regions) + _unread(model.text, text)),
        "losses": 2.0 * model.embed * (batch**2 + 2 * regions * labels),
    }
    if regions and model.fusion == "late":
        forward["regions"] += batch * _looked_at(model, tokens)
    if config.loss.distill:
        forward["base"] = forward["image"] - batch * _unread(model.image, tokens)
    if "text" in config.optim.frozen:
        return _with_frozen_text(config, forward, read, parameters)
    recompute = batch * (_again(model, model.image, tokens) + _again(model, model.text, text))
    recompute += read * _region_again(model, tokens)
    if model.remat != "none":
        recompute += forward["prompts"] + forward["windows"]
    if regions:
        recompute += labels * _again(model, model.text, label)
    if config.train.accumulate > 1:  # each microbatch is embedded a second time for its gradient
        recompute += sum(forward[part] for part in ("image", "regions", "prompts", "windows", "text", "unread"))
    return StepFlops(forward, recompute, float(OPTIMIZER * parameters))


def _with_frozen_text(config: Any, forward: dict[str, float], read: int, parameters: int) -> StepFlops:
    """The step of `step_flops` without gradients of the text tower, which reads the captions only: labels are encoded
    once for all steps."""
    model, batch = config.model, config.input.batch_size
    tokens, text = image_tokens(model), model.text.context
    unread = batch * _unread(model.text, text)
    rest = {part: value for part, value in forward.items() if part not in ("text", "labels")}
    rest |= {"unread": forward["unread"] + unread, "frozen text": forward["text"] - unread}
    recompute = batch * _again(model, model.image, tokens) + read * _region_again(model, tokens)
    if model.remat != "none":
        recompute += forward["prompts"] + forward["windows"]
    if config.train.accumulate > 1:
        recompute += sum(rest[part] for part in ("image", "regions", "prompts", "windows", "unread"))
    return StepFlops(rest, recompute, float(OPTIMIZER * parameters))


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 FLOP/s of one jax device of this kind, None where it is not known (CPUs)."""
    known = [name for name in PEAK if device_kind.startswith(name)]
    return PEAK[max(known, key=len)] if known else None


def mfu(model_flops: float, seconds: float, devices: int, device_kind: str) -> float | None:
    """Share of the devices' bf16 peak that a step's model FLOPs take, in [0, 1]; None where the peak is not known."""
    peak = peak_flops(device_kind)
    return None if peak is None or seconds <= 0 else model_flops / (seconds * devices * peak)


def image_tokens(model: Any) -> int:
    """Tokens of the image stream in training: [CLS], if there is one, and the patches that patch dropout leaves."""
    patches = (model.image.size // model.image.patch) ** 2
    patches = max(1, round((1 - model.image.patch_drop) * patches)) if model.image.patch_drop else patches
    return patches + (model.image.pool == "cls")


def _hidden(tower: Any) -> int:
    return int(tower.width * tower.mlp_ratio)


def _blocks(tower: Any, tokens: int) -> float:
    """Blocks of a tower over one sequence: projections and perceptron, then the two products of attention."""
    weights = tower.width * (4 * tower.width + 2 * _hidden(tower))
    return 2.0 * tower.depth * tokens * (weights + 2 * tokens * tower.width)


def _ends(model: Any) -> float:
    """Patch embedding and output projection of one image, and the keys, values and probe of a pooling head."""
    image, tokens = model.image, image_tokens(model)
    embedding = 2.0 * image.width * (tokens - (image.pool == "cls")) * image.patch**2 * 3
    if image.pool == "map":
        return embedding + 4.0 * tokens * image.width**2 + _region(model, tokens)
    return embedding + 2.0 * image.width * model.embed * image.projection


def _unread(tower: Any, tokens: int) -> float:
    """What training's last block leaves out of a sequence: all but keys and values of the tokens that are not read.

    Pooling heads and BERT read all.
    """
    if tower.pool in ("map", "mean") or getattr(tower, "tower", "") == "bert":
        return 0.0
    weights = tower.width * (2 * tower.width + 2 * _hidden(tower))
    return 2.0 * (tokens - 1) * (weights + 2 * tokens * tower.width)


def _unread_image(model: Any, tokens: int, regions: int) -> float:
    """What the image pass of training leaves out: nothing where a fusion reads the last patches."""
    return 0.0 if regions and model.fusion in ("late", "pool") else _unread(model.image, tokens)


def _looked_at(model: Any, tokens: int) -> float:
    """Keys and values of an image's patches in all layers of late fusion."""
    return 2.0 * LAYERS * (tokens - 1) * 2 * model.image.width**2


def _region(model: Any, tokens: int) -> float:
    """One region beyond the image pass. By `tokens`, a token through the tower: query, output projection and
    perceptron; keys and values are the image's. Where there is no [CLS], it only passes the pooling head."""
    image = model.image
    if model.fusion == "alpha":  # a pass of its own, with a fourth channel
        channel = 2.0 * image.width * (tokens - 1) * image.patch**2
        return _blocks(image, tokens) + _ends(model) - _unread(image, tokens) + channel
    if model.fusion == "pool":
        return 2.0 * image.width * (tokens - 1 + model.embed * image.projection)
    if model.fusion == "late":
        weights = image.width * (2 * image.width + 8 * image.width) + 2 * (tokens - 1) * image.width
        return 2.0 * (LAYERS * weights + image.width**2 + image.width * model.embed)
    weights = image.width * (2 * image.width + 2 * _hidden(image))
    readings = image.depth if image.pool == "cls" else 1
    return 2.0 * (readings * (weights + 2 * tokens * image.width) + image.width * model.embed * image.projection)


def _prompt(model: Any, points: int) -> float:
    """The prompt encoder on one region."""
    hidden, slots = model.prompt.hidden, 2 + points
    encoded = slots * hidden * (4 * (2 * model.prompt.octaves + 1) + hidden) + hidden * model.image.width
    looks = bool(model.prompt.glimpse) + bool(model.prompt.context)
    side = math.ceil(model.prompt.glimpse / 2)
    half = math.ceil(side / 2)
    convolutions = _conv(side, 4, hidden // 4) + _conv(half, hidden // 4, hidden // 2)
    return 2.0 * (encoded + looks * (convolutions + half**2 * (hidden // 2) * hidden))


def _conv(side: int, inputs: int, outputs: int) -> int:
    return side**2 * 9 * inputs * outputs


def _windows(config: Any) -> float:
    """Resampling the windows of one region, and the coverage of their cells and of the patches by its mask."""
    model, mask = config.model, config.input.mask_size
    size, side, grid = model.image.size, model.prompt.glimpse, model.image.size // model.image.patch
    looks = bool(side) + bool(model.prompt.context)
    resampled = 3 * size * side * (size + side)
    if model.fusion in ("pool", "alpha"):  # no window is looked at
        return 2.0 * _cover(size if model.fusion == "alpha" else grid, mask)
    return 2.0 * (looks * (resampled + _cover(side, mask)) + _cover(grid, mask))


def _cover(cells: int, mask: int) -> int:
    return cells * mask * (mask + cells)


def _text(model: Any, tokens: int) -> float:
    text, embed = model.text, model.embed
    tokens = text.context if text.pool == "last" else tokens  # SigLIP's texts are padded to it
    hidden = (text.width + embed) // 2
    weights = {"none": 0, "mlp": hidden * (text.width + embed)}.get(text.projection, text.width * embed)
    return _blocks(text, tokens) + 2.0 * weights


def _again(model: Any, tower: Any, tokens: int) -> float:
    """What the backward pass computes again of one sequence's blocks under `remat`; the last block keeps everything.

    `dots` keeps all products with weights; `full` keeps nothing, but nobody needs a block's last product again.
    """
    share = (tower.depth - 1) / tower.depth
    if model.remat == "dots":
        return share * 4.0 * tower.depth * tokens**2 * tower.width
    if model.remat == "full":
        return share * (_blocks(tower, tokens) - 2.0 * tower.depth * tokens * tower.width * _hidden(tower))
    return 0.0


def _region_again(model: Any, tokens: int) -> float:
    image = model.image
    scanned = image.depth - 1 if image.pool == "cls" else 0
    if model.remat == "dots":
        return 4.0 * scanned * tokens * image.width
    if model.remat == "full":
        weights = image.width * (2 * image.width + _hidden(image))
        return 2.0 * scanned * (weights + 2 * tokens * image.width)
    return 0.0
