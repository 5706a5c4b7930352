"""A small model, random prompts of every kind, and what tests compare them by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.prompts import RegionPrompts

# Largest difference of L2-normalised embeddings that counts as equal: rounding, accumulated over the blocks.
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2}


def small_config(dtype: str = "float32", fusion: str = "tokens", **image):
    """The model section of a small configuration whose region stream has several blocks and heads."""
    model = common.get_config().model
    model.image.update({"size": 64, "patch": 16, "width": 48, "depth": 2, "heads": 4, **image})
    model.text.update(context=16, vocab=300, width=32, depth=2, heads=2)
    model.update(embed=24, dtype=dtype, fusion=fusion)
    model.prompt.update(hidden=32, context=0.6)
    return model


@functools.lru_cache
def small_model(dtype: str = "float32", fusion: str = "tokens", trained: bool = False):
    """(model, params); `trained` moves every parameter away from its initial value, as training steps do."""
    model = MedPCLIP(small_config(dtype, fusion))
    rng = np.random.default_rng(0)
    inputs = random_images(rng, 1), random_prompts(rng, 1, 1), np.ones((1, 8), np.int32)
    params = jax.jit(model.init)(jax.random.key(0), *inputs)["params"]
    if trained:
        keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
        params = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(next(keys), x.shape, x.dtype), params)
    return model, params


@functools.lru_cache
def compiled(dtype: str = "float32", fusion: str = "tokens"):
    """(one pass, encode_image, encode_regions), jitted: as (params, ...) functions."""
    model, _ = small_model(dtype, fusion)

    def apply(method):
        return jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs, method=method))

    tokens = np.ones((1, 8), np.int32)
    one_pass = jax.jit(lambda params, images, prompts: model.apply({"params": params}, images, prompts, tokens)[:2])
    return one_pass, apply("encode_image"), apply("encode_regions")


def random_images(rng: np.random.Generator, batch: int, size: int = 64) -> np.ndarray:
    return rng.integers(0, 256, (batch, size, size, 3), np.uint8)


def random_prompts(rng: np.random.Generator, batch: int, regions: int, points: int = 3, mask: int = 9) -> RegionPrompts:
    """Any combination of kinds per region, from none to all."""
    low = rng.uniform(0, 0.9, (batch, regions, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.02, 1, low.shape) * (1 - low)], -1)
    masks = (rng.random((batch, regions, mask, mask)) * 255 * (rng.random((batch, regions, mask, mask)) < 0.3)).astype(
        np.uint8
    )
    masks[..., mask // 2, mask // 2] = 200
    return RegionPrompts(
        points=rng.random((batch, regions, points, 2), np.float32),
        point_labels=rng.integers(-1, 2, (batch, regions, points)).astype(np.int32),
        boxes=boxes.astype(np.float32),
        box_valid=rng.random((batch, regions)) < 0.5,
        masks=masks,
        mask_valid=rng.random((batch, regions)) < 0.5,
        valid=np.ones((batch, regions), bool),
    )


def take_regions(prompts: RegionPrompts, index) -> RegionPrompts:
    return jax.tree.map(lambda x: x[:, index], prompts)


def close(a, b, dtype: str) -> bool:
    return float(jnp.abs(jnp.asarray(a, jnp.float32) - jnp.asarray(b, jnp.float32)).max()) <= TOLERANCE[dtype]
