"""Checks a configuration before anything is built from it, and stores it beside what it produced."""

import difflib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from configs import common
from medp_clip_jax import captions, pair_losses, prompt_kinds, sharding
from medp_clip_jax.errors import InputError
from medp_clip_jax.models.fusion_baselines import FUSIONS
from medp_clip_jax.models.layers import ACTIVATIONS, REMAT
from medp_clip_jax.models.mask_baselines import DECODERS

FREE = ("data.weights", "optim.module_rates")  # sections whose keys the user chooses
CHOICES = {  # field -> what it, or each of its items, may be
    "input.view": ("image", "crop"),
    "input.caption": captions.STYLES,
    "model.fusion": tuple(FUSIONS),
    "model.image.pool": ("cls", "map"),
    "model.text.tower": ("clip", "bert"),
    "model.text.pool": ("end", "last", "cls", "mean"),
    "model.text.projection": ("linear", "bias", "mlp", "none"),
    "model.activation": tuple(ACTIVATIONS),
    "model.text.activation": ("", *ACTIVATIONS),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", *REMAT),
    "model.segmenter.kind": tuple(DECODERS),
    "loss.image_text_kind": ("softmax", "sigmoid"),
    "loss.region_kind": ("bank", *pair_losses.KINDS),
    "eval.kinds": prompt_kinds.EVALUATED,
    "eval.val_kinds": prompt_kinds.EVALUATED,
    "mesh.rules": sharding.AXES,
}
TINY = 1e-12  # stands for "more than 0"
RANGES = {  # least and greatest value -> fields; all the numbers of a section or tuple
    (1, math.inf): (
        *("model.image.size", "model.image.patch", "model.image.width", "model.image.depth", "model.image.heads"),
        *("model.text.width", "model.text.depth", "model.text.heads", "model.embed", "model.unroll"),
        *("input.batch_size", "input.regions", "input.points", "input.label_variants", "input.threads"),
        *("train.steps", "train.log_every", "train.checkpoint_every", "train.keep", "train.max_bad_steps"),
        *("train.accumulate", "loss.chunk", "model.prompt.tokens"),
        *("eval.batch_size", "eval.regions", "segment.regions", "segment.rounds", "segment.unroll"),
        *("model.segmenter.depth", "model.segmenter.heads", "model.segmenter.detail"),
    ),
    (3, math.inf): ("model.text.context", "input.label_context"),  # start, a token, end
    (4, math.inf): ("model.prompt.hidden",),  # the glimpse's first layer has a quarter
    (258, math.inf): ("model.text.vocab",),  # bytes, start and end
    (0, math.inf): (
        *(
            "model.prompt.octaves",
            "model.prompt.glimpse",
            "model.prompt.context",
            "model.prompt.margin",
            "model.prompt.bias_from",
        ),
        *(
            "data.temperature",
            "data.weights",
            "input.jitter",
            "input.prompt_kinds",
            "input.cache_images",
            "input.workers",
        ),
        *("loss.image_text", "loss.region_to_text", "loss.text_to_region", "loss.distill", "loss.tau"),
        "loss.consistency",
        *("loss.segment",),
        *("model.segmenter.width", "segment.first", "segment.noise", "segment.focal", "segment.dice", "segment.iou"),
        *("segment.present", "segment.projection"),
        *("model.text.positions", "model.text.pad"),
        *("optim.learning_rate", "optim.weight_decay", "optim.module_rates", "train.eval_every", "eval.gallery"),
    ),
    (TINY, math.inf): (
        *("model.image.mlp_ratio", "model.text.mlp_ratio", "model.norm_eps"),
        *("model.prompt.click_window", "model.std", "optim.clip_norm"),
    ),
    (0, 0.999): ("model.image.patch_drop",),
    (2, 16): ("model.segmenter.stride",),
    (0, 1): (
        "segment.several",
        "segment.absent",
        "model.mean",
        "model.prompt.glimpse_drop",
        "optim.warmup",
        "optim.final",
    ),
    (TINY, 1): ("input.crop_scale",),
    (0, 0.999999): ("optim.beta1", "optim.beta2"),
    (1, 64): ("input.mask_size",),
    (0, 2**31 - 1): ("seed",),
}
LENGTHS = {"input.crop_scale": 2, "model.mean": 3, "model.std": 3}


def validate(config: ml_collections.ConfigDict) -> None:
    """Compares a configuration with the defaults of `configs/common.py`.

    Raises:
      InputError: an unknown key (naming the nearest known one), a value of another type, or one out of range.
    """
    _compare(config, common.get_config(), "")
    for path, allowed in CHOICES.items():
        for name, value in _items(config, path):
            if value not in allowed:
                raise InputError(f"config.{name}: expected one of {', '.join(allowed)}, got {value!r}")
    for path, length in LENGTHS.items():
        if len(_get(config, path)) != length:
            raise InputError(f"config.{path}: expected {length} numbers, got {_get(config, path)!r}")
    for (least, greatest), paths in RANGES.items():
        for name, value in (item for path in paths for item in _items(config, path)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not least <= value <= greatest:
                wanted = "more than 0" if least == TINY else f"at least {least:g}"
                wanted += "" if greatest == math.inf else f" and at most {greatest:g}"
                raise InputError(f"config.{name}: expected a number, {wanted}, got {value!r}")
    _check_together(config)


def _check_together(config: ml_collections.ConfigDict) -> None:
    """What one field asks of another."""
    for name in ("image", "text"):
        tower = config.model[name]
        if tower.width % tower.heads:
            raise InputError(f"config.model.{name}: width {tower.width} is not a multiple of {tower.heads} heads")
    _check_towers(config)
    image, prompt, scale = config.model.image, config.model.prompt, config.input.crop_scale
    if image.size % image.patch:
        raise InputError(f"config.model.image: size {image.size} is not a multiple of patch {image.patch}")
    if prompt.context and not prompt.glimpse:
        raise InputError("config.model.prompt: context needs glimpse, the side in which it is seen; set it to 16, say")
    if scale[0] > scale[1]:
        raise InputError(f"config.input.crop_scale: expected the smaller share first, got {scale}")
    _check_fusion(config)
    _check_segmenter(config)
    if config.input.label_context > config.model.text.context:
        raise InputError(
            f"config.input.label_context: {config.input.label_context} tokens do not fit the text context of "
            f"{config.model.text.context}; lower it or raise config.model.text.context"
        )
    split = [axis for name in ("batch", "tokens", "width", "hidden") for axis in config.mesh.rules[name]]
    if len(set(split)) < len(split):
        raise InputError(
            f"config.mesh.rules: an axis of the mesh splits batch, tokens, width and hidden at most once, got {split}"
        )
    if not config.workdir:
        raise InputError("config.workdir: expected a directory for the run, got nothing; pass --config.workdir=DIR")


def _check_towers(config: ml_collections.ConfigDict) -> None:
    """What the fields of imported towers ask of one another."""
    image, text, embed = config.model.image, config.model.text, config.model.embed
    pools = {"clip": ("end", "last"), "bert": ("cls", "mean")}[text.tower]
    if text.pool not in pools:
        raise InputError(f"config.model.text.pool: a {text.tower} tower has {' or '.join(pools)}, got {text.pool!r}")
    for name, bare, width in (
        ("image", not image.projection, image.width),
        ("text", text.projection == "none", text.width),
    ):
        if bare and width != embed:
            raise InputError(
                f"config.model.{name}: without a projection its width {width} is the joint space, but config.model."
                f"embed is {embed}; make them equal or give it a projection"
            )
    if text.positions and text.positions < text.context:
        raise InputError(
            f"config.model.text.positions: {text.positions} rows do not reach the context of {text.context}; lower the "
            "context, or set positions to 0"
        )
    if config.loss.consistency and not (config.loss.region_to_text or config.loss.text_to_region):
        raise InputError("config.loss.consistency: compares region embeddings, which no loss asks for; set it to 0")
    if config.loss.distill and not config.init:
        raise InputError("config.loss.distill: needs the model that it holds on to; set config.init, or distill to 0")


def _check_fusion(config: ml_collections.ConfigDict) -> None:
    """What the fusions to compare with cannot do."""
    model = config.model
    if model.fusion == "tokens":
        return
    for name, asked in (
        ('image.pool "map"', model.image.pool == "map"),
        ("image.patch_drop", model.image.patch_drop),
        ("segmenter", model.segmenter.width),
    ):
        if asked:
            raise InputError(f"config.model.fusion: {model.fusion} goes without {name}; leave it out, or take tokens")


def _check_segmenter(config: ml_collections.ConfigDict) -> None:
    """What the mask decoder asks of the towers and of the input."""
    s, image = config.model.segmenter, config.model.image
    if not s.width:
        if config.loss.segment:
            raise InputError(
                "config.loss.segment: there is no mask decoder; set config.model.segmenter.width, say to 128"
            )
        for name in ("kinds", "val_kinds"):
            if prompt_kinds.SEGMENTED in config.eval[name]:
                raise InputError(f"config.eval.{name}: {prompt_kinds.SEGMENTED} needs a mask decoder (model.segmenter)")
        return
    if s.stride & (s.stride - 1) or image.size % (2 * s.stride) or 2 * image.patch % s.stride:
        raise InputError(
            f"config.model.segmenter: stride {s.stride} must be a power of two that divides half the image size "
            f"{image.size} and twice the patch {image.patch}"
        )
    if s.width % (2 * s.heads) or s.detail % 2:
        raise InputError(
            f"config.model.segmenter: width {s.width} must be a multiple of twice the {s.heads} heads, and detail even"
        )
    if not config.loss.segment:
        return
    if image.patch_drop or config.model.prompt.glimpse_drop:
        raise InputError("config.loss.segment: masks need all patches; set patch_drop and glimpse_drop to 0")
    if config.segment.regions > config.input.regions or config.input.view == "crop":
        raise InputError("config.segment.regions: expected at most config.input.regions, and input.view=image")
    if not sum(config.segment.first.values()):
        raise InputError("config.segment.first: expected a share above 0")


def _compare(given: Any, known: Any, path: str) -> None:
    for key, value in given.items():
        name = f"{path}{key}"
        if key not in known:
            paths = _paths(common.get_config())
            near = difflib.get_close_matches(name, paths, 1, 0.0)[0]
            same = [
                p for p in paths if p.rsplit(".", 1)[-1] in difflib.get_close_matches(key, [p.rsplit(".", 1)[-1]], 1)
            ]
            raise InputError(f"config.{name}: no such key; the nearest is config.{(same or [near])[0]}")
        default = known[key]
        if isinstance(default, ml_collections.ConfigDict):
            if not isinstance(value, ml_collections.ConfigDict):
                raise InputError(f"config.{name}: expected a section, got {value!r}")
            if name not in FREE:
                _compare(value, default, f"{name}.")
        elif not _same_kind(value, default):
            raise InputError(f"config.{name}: expected {type(default).__name__} such as {default!r}, got {value!r}")
    for key in known:
        if key not in given and path.rstrip(".") not in FREE:
            raise InputError(f"config.{path}{key}: missing; start a config from configs.common.get_config()")


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list))
    return isinstance(value, type(default))


def _paths(config: ml_collections.ConfigDict, path: str = "") -> list[str]:
    found = []
    for key, value in config.items():
        nested = isinstance(value, ml_collections.ConfigDict)
        found += _paths(value, f"{path}{key}.") if nested else [f"{path}{key}"]
    return found


def _get(config: ml_collections.ConfigDict, path: str) -> Any:
    for key in path.split("."):
        config = config[key]
    return config


def _items(config: ml_collections.ConfigDict, path: str) -> Iterator[tuple[str, Any]]:
    """The values of a section with their paths, the items of a tuple, else the value itself."""
    value = _get(config, path)
    if isinstance(value, ml_collections.ConfigDict):
        for key in value:
            yield from _items(config, f"{path}.{key}")
    else:
        yield from ((path, item) for item in (value if isinstance(value, (tuple, list)) else [value]))


def save_config(config: ml_collections.ConfigDict, path: Path) -> None:
    """Writes the configuration as JSON."""
    path.write_text(json.dumps(config.to_dict(), indent=1, default=list) + "\n")


def load_config(path: Path) -> ml_collections.ConfigDict:
    """Reads what `save_config` wrote, over the defaults, so that a run made before a field existed still loads.

    Raises:
      InputError: the file is absent, damaged, or not a configuration.
    """
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the directory that a training run wrote") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); restore the file of the run") from None
    try:
        return over_defaults({key: value for key, value in stored.items() if key != "release"})  # what a release adds
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a configuration of this version: {error}") from None


def over_defaults(stored: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The defaults with the plain fields of `stored`, as JSON has them; an error of ml_collections where none fit."""
    config = common.get_config()
    _overlay(config, stored)
    return config


def _overlay(config: ml_collections.ConfigDict, stored: Mapping[str, Any]) -> None:
    for key, value in stored.items():
        if isinstance(value, dict) and key in config and isinstance(config[key], ml_collections.ConfigDict):
            _overlay(config[key], value)
        else:
            config[key] = tuple(value) if isinstance(value, list) else value


def first_difference(a: ml_collections.ConfigDict, b: ml_collections.ConfigDict, but: Collection[str]) -> str | None:
    """Path of the first field in which two configurations differ, outside the paths and sections `but`; else None."""
    mine, others = (dict.fromkeys(_paths(config)) for config in (a, b))
    for path in mine | others:
        if any(path == free or path.startswith(free + ".") for free in but):
            continue
        if path not in mine or path not in others or _plain(_get(a, path)) != _plain(_get(b, path)):
            return path
    return None


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
