"""A small model, random prompts of every kind, and what tests compare them by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.optim import make_optimizer
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import Bank, TrainState, init_params, train_step

# Largest difference of L2-normalised embeddings that counts as equal: rounding, accumulated over the blocks.
TOLERANCE = {"float32": 2e-6, "bfloat16": 8e-3}


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
    """(model, params), `trained` for a few steps at a rate that moves every parameter."""
    model = MedPCLIP(small_config(dtype, fusion))
    params = jax.jit(functools.partial(init_params, model, 0))()
    return model, train(model, params) if trained else params


def train(model: MedPCLIP, params, steps: int = 8):
    """Parameters after `steps` updates on one random batch."""
    config = common.get_config()
    config.optim.update(learning_rate=3e-2, warmup=0.1)
    rng = np.random.default_rng(7)
    batch = random_batch(rng)
    bank = Bank(rng.integers(1, 299, (5, 2, 6)).astype(np.int32), np.zeros((5, 5), bool), np.zeros(5, np.float32))
    optimizer = make_optimizer(config.optim, steps, params)
    step = jax.jit(functools.partial(train_step, model, optimizer, config))
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    for _ in range(steps):
        state, _ = step(state, batch, bank)
    return state.params


def random_batch(rng: np.random.Generator, size: int = 8, regions: int = 3) -> dict:
    """A training batch of noise: what is learned from it does not matter."""
    return {
        "image": random_images(rng, size),
        "rectangle": np.tile(np.float32([0, 0, 1, 1]), (size, 1)),
        "prompts": random_prompts(rng, size, regions),
        "label": rng.integers(-1, 5, (size, regions)).astype(np.int32),
        "text": rng.integers(1, 299, (size, 10)).astype(np.int32),
        "position": np.arange(size, dtype=np.int32),
        "text_id": rng.integers(0, 6, size).astype(np.int32),
    }


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
