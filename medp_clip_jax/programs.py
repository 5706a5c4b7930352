"""The model's functions as compiled-anywhere programs: `jax.export` artefacts that need none of this package.

Every program takes plain arrays and dicts of arrays: `params` as in `model.safetensors`, nested, then its inputs. The
numbers of images, regions, clicks and texts and the size of masks are left open; the canvas is the trained one.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from medp_clip_jax import standalone
from medp_clip_jax.api import Model
from medp_clip_jax.models.layers import KeysValues
from medp_clip_jax.models.vit import ImageFeatures, Images
from medp_clip_jax.prompts import RegionPrompts

PLATFORMS = ("cpu", "cuda", "tpu")
FOLDER, SUFFIX, LIST = "programs", ".jaxexport", "programs.json"


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of parameters and inputs, and the shapes of the inputs by name, some sizes open."""

    function: Callable[..., Any]
    inputs: dict[str, Any]


def programs(model: Model, params: Any) -> dict[str, Program]:
    """The programs of a model by name; `params` are its parameters or their shapes, with the dtypes to expect.

    `encode_image(params, images)` gives features, which `encode_regions(params, features, prompts)` and, where the
    model has a mask decoder, `segment(params, features, prompts)` take; `encode_text(params, tokens)` stands alone.
    """
    c = model.config
    b, k, p, h, w, t = export.symbolic_shape("batch, regions, points, height, width, texts")
    images = _shapes(pixels=((b, c.image.size, c.image.size, 3), jnp.uint8), rectangle=((b, 4), jnp.float32))
    prompts = _shapes(
        points=((b, k, p, 2), jnp.float32),
        point_labels=((b, k, p), jnp.int32),
        boxes=((b, k, 4), jnp.float32),
        box_valid=((b, k), bool),
        masks=((b, k, h, w), jnp.uint8),
        mask_valid=((b, k), bool),
        valid=((b, k), bool),
    )

    def encode_image(params: Any, images: dict[str, Any]) -> dict[str, Any]:
        found = _apply(model, "encode_image", params, Images(**images))
        plain = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        kept = plain.pop("kept")
        plain |= {"keys": kept.keys, "values": kept.values}
        return {name: value for name, value in plain.items() if value is not None}

    def encode_regions(params: Any, features: dict[str, Any], prompts: dict[str, Any]) -> Any:
        return _apply(model, "encode_regions", params, _features(features), RegionPrompts(**prompts))

    def segment(params: Any, features: dict[str, Any], prompts: dict[str, Any]) -> dict[str, Any]:
        found = _apply(model, "segment", params, _features(features), RegionPrompts(**prompts))
        return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}

    def encode_text(params: Any, tokens: Any) -> Any:
        return _apply(model, "encode_text", params, tokens)

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    features = jax.eval_shape(encode_image, shapes, images)
    tokens = jax.ShapeDtypeStruct((t, c.text.context), jnp.int32)
    found = {
        "encode_image": Program(encode_image, {"images": images}),
        "encode_regions": Program(encode_regions, {"features": features, "prompts": prompts}),
        "encode_text": Program(encode_text, {"tokens": tokens}),
    }
    if c.get("segmenter", {}).get("width"):
        found["segment"] = Program(segment, {"features": features, "prompts": prompts})
    return found


def write_programs(folder: Path, model: Model, params: Any) -> None:
    """Writes the programs into `folder`/programs, with a list of their inputs and the file that runs them.

    `params` are the parameters as released, or their shapes: programs expect their dtypes.
    """
    folder = folder / FOLDER
    folder.mkdir()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    described = {}
    for name, program in programs(model, params).items():
        exported = export.export(jax.jit(program.function), platforms=PLATFORMS)(shapes, *program.inputs.values())
        (folder / f"{name}{SUFFIX}").write_bytes(exported.serialize())
        described[name] = {
            "file": f"{name}{SUFFIX}",
            "inputs": jax.tree.map(_described, program.inputs),
            "output": jax.tree.map(_described, jax.tree.unflatten(exported.out_tree, exported.out_avals)),
        }
    about = {"jax": jax.__version__, "platforms": PLATFORMS, "programs": described}
    (folder / LIST).write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    shutil.copyfile(standalone.__file__, folder / "medp_programs.py")


def _apply(model: Model, method: str, params: Any, *inputs: Any) -> Any:
    return model.module.apply({"params": params}, *inputs, method=method)


def _features(plain: dict[str, Any]) -> ImageFeatures:
    rest = {name: value for name, value in plain.items() if name not in ("keys", "values")}
    return ImageFeatures(**rest, kept=KeysValues(plain["keys"], plain["values"]))


def _shapes(**inputs: tuple[tuple[Any, ...], Any]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(*described) for name, described in inputs.items()}


def _described(x: Any) -> str:
    """As in `uint8[batch, 224, 224, 3]`."""
    return f"{jnp.dtype(x.dtype).name}[{', '.join(map(str, x.shape))}]"
