"""Where training starts: the parameters of another model, read from a release or from what `convert` wrote."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from medp_clip_jax import processes
from medp_clip_jax.config import load_config
from medp_clip_jax.errors import InputError
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.step import init_params
from medp_clip_jax.weights import open_weights

POSITIONS = "visual/positional_embedding"


def parameter_shapes(config: ml_collections.ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a configuration's parameters by path, such as `visual/resblocks/attn/in_proj_kernel`."""
    return flat(jax.eval_shape(functools.partial(init_params, MedPCLIP(config.model), 0)))


def flat(params: Any) -> dict[str, Any]:
    """The leaves of nested parameters by path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """What `flat` was given."""
    tree: dict[str, Any] = {}
    for path, leaf in params.items():
        section = tree
        *names, last = path.split("/")
        for name in names:
            section = section.setdefault(name, {})
        section[last] = leaf
    return tree


def complete(config: ml_collections.ConfigDict, params: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`params`, by path, with fresh ones for all that a model of `config` has besides: what prompts add."""
    model = MedPCLIP(config.model)

    def rest() -> dict[str, jax.Array]:
        return {path: leaf for path, leaf in flat(init_params(model, config.seed)).items() if path not in params}

    return {**params, **jax.device_get(jax.jit(rest)())}


def resize_positions(table: np.ndarray, grid: int, lead: int) -> np.ndarray:
    """Positions [lead + side * side, width] for a grid x grid canvas, bicubic and antialiased as in open_clip."""
    side = round((len(table) - lead) ** 0.5)
    rest = jax.image.resize(table[lead:].reshape(side, side, -1), (grid, grid, table.shape[-1]), "cubic")
    return np.concatenate([table[:lead], np.asarray(rest, table.dtype).reshape(grid * grid, -1)])


def read_initial(folder: str | Path, config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """Parameters, by path, of `folder` for the model of `config`; positions are interpolated to its image size.

    A folder may hold one tower only, and need not hold what prompts add.

    Raises:
      InputError: no such folder, or another architecture: a field or a shape differs, or a tensor has no place.
    """
    folder = Path(folder)
    weights = open_weights(folder)
    theirs = load_config(folder / "config.json")
    shapes = {path: tuple(leaf.shape) for path, leaf in parameter_shapes(config).items()}
    for tower in ("visual", "text"):
        if any(path.startswith(f"{tower}/") for path in weights):
            _check_settings(folder, _computes(theirs.model, tower), _computes(config.model, tower))
    image = config.model.image
    params = {}
    for path in weights:
        if path not in shapes:
            raise InputError(f"{folder}: {path} has no place in this configuration; {_hint(folder)}")
        value = weights.read(path)
        if path == POSITIONS and value.shape != shapes[path] and value.shape[1:] == shapes[path][1:]:
            value = resize_positions(value, image.size // image.patch, int(image.pool == "cls"))
        if value.shape != shapes[path]:
            raise InputError(
                f"{folder}: {path} is {list(value.shape)} there and {list(shapes[path])} in this configuration; "
                f"{_hint(folder)}"
            )
        params[path] = value
    return params


def _hint(folder: Path) -> str:
    return f"set config.model to the model section of {folder}/config.json, as configs/finetune_clip.py does"


def _computes(model: Any, tower: str) -> dict[str, Any]:
    """What decides how a tower computes, beside its parameters' shapes."""
    image, text = model.image, model.text
    if tower == "visual":
        fields = {name: model[name] for name in ("activation", "norm_eps")}
        fields |= {name: tuple(model[name]) for name in ("mean", "std")}
        return fields | {f"image.{name}": image[name] for name in ("patch", "heads", "pool")}
    fields = {f"text.{name}": text[name] for name in ("tower", "heads", "pool", "pad")}
    if text.tower == "clip":
        fields |= {"text.activation": text.activation or model.activation, "norm_eps": model.norm_eps}
    return fields


def _check_settings(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for field, value in theirs.items():
        if ours.get(field) != value:
            raise InputError(
                f"config.model.{field}: {ours.get(field)!r}, but {folder} was made with {value!r}; {_hint(folder)}"
            )


def overlay(params: Any, initial: Mapping[str, np.ndarray]) -> Any:
    """`params` with those of `initial` in place, each laid out over the devices as the one that it replaces."""

    def replace(path: Any, leaf: jax.Array) -> jax.Array:
        value = initial.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        if value is None:
            return leaf
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: value[index].astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(replace, params)


def begin(params: Any, config: ml_collections.ConfigDict) -> tuple[Any, Any]:
    """Fresh `params` with those of `config.init` in place, and the frozen base that `loss.distill` asks for, else None.

    Raises:
      InputError: see `read_initial`; or there is something to distil, but no image tower in `init`.
    """
    if not config.init:
        return params, None
    initial = read_initial(config.init, config)
    if processes.is_main():
        fresh = sorted({"/".join(path.split("/")[:2]) for path in flat(params) if path not in initial})
        print(f"init: {len(initial)} parameters from {config.init}; fresh: {', '.join(fresh) or 'none'}", flush=True)
    if not config.loss.distill:
        return overlay(params, initial), None
    held = {name: params[name] for name in ("visual", "logit_scale", "logit_bias")}
    missing = sorted(path for path in flat(held) if path not in initial and path.startswith("visual/"))
    if missing:
        raise InputError(
            f"config.loss.distill: {config.init} has no {missing[0]}; it needs the whole image tower, or set it to 0"
        )
    # Buffers of its own: those of the state are given away in every step.
    base = overlay(jax.tree.map(lambda x: x.copy(), held), initial)
    return overlay(params, initial), base
