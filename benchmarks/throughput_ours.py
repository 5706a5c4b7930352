"""Our side of `benchmarks.train_throughput`: the train step, and the image tower with many regions per image.

Arguments are one JSON object; then each line on stdin asks for a round, and each line on stdout answers with its
seconds.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import common
from medp_clip_jax.flops import step_flops
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import Images
from medp_clip_jax.optim import make_optimizer
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import Bank, TrainState, init_params, train_step

LABELS = 1000  # of the label bank, where there are regions
MASK = 64  # side of a region's mask


def main() -> None:
    case = json.loads(sys.argv[1])
    config = make_config(case)
    work = {"pairs": train, "train": tower_train, "infer": tower_infer, "infer_kept": tower_infer_kept}[case["work"]]
    run = work(config)
    run()  # compiles
    flops = step_flops(config, LABELS)
    about = {
        "device": jax.devices()[0].device_kind,
        "versions": f"jax {jax.__version__}",
        "flops": flops.model,
        "peer_flops": 3 * (flops.forward["image"] + flops.forward["text"]),  # whole towers, no regions
    }
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        jax.block_until_ready(run())  # not timed: while the other side works, the machine takes back idle memory
        start = time.perf_counter()
        for _ in range(case["steps"]):
            done = run()
        jax.block_until_ready(done)
        print(json.dumps(time.perf_counter() - start), flush=True)


def make_config(case: dict) -> Any:
    """The configuration of a case: the named model with open_clip's vocabulary, its batch and its regions."""
    config = common.get_config()
    config.model = common.variant(case["model"].removeprefix("ViT"))
    config.model.text.update(vocab=49408, context=case["text_length"])
    config.model.update(dtype="bfloat16" if case["device"] == "gpu" else "float32", remat=case["remat"])
    config.model.prompt.hidden = 384
    config.input.update(batch_size=case["batch"], regions=case["regions"], mask_size=MASK)
    if not case["regions"]:
        config.loss.update(region_to_text=0.0, text_to_region=0.0)
    return config.lock()


def inputs(config: Any) -> dict[str, Any]:
    """A batch of noise on the device, with a mask and a box for every region."""
    rng, batch, regions = np.random.default_rng(0), config.input.batch_size, max(config.input.regions, 1)
    size, text = config.model.image.size, config.model.text
    tokens = rng.integers(1, text.vocab - 2, (batch, text.context)).astype(np.int32)
    tokens[:, -1] = text.vocab - 1
    low = rng.uniform(0, 0.5, (batch, regions, 2))
    prompts = RegionPrompts.none(batch, regions).replace(
        boxes=np.concatenate([low, low + rng.uniform(0.1, 0.5, low.shape)], -1).astype(np.float32),
        box_valid=np.ones((batch, regions), bool),
        masks=rng.integers(0, 256, (batch, regions, MASK, MASK), np.uint8),
        mask_valid=np.ones((batch, regions), bool),
        valid=np.ones((batch, regions), bool),
    )
    return jax.device_put(
        {
            "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
            "rectangle": np.tile(np.float32([0, 0, 1, 1]), (batch, 1)),
            "prompts": prompts,
            "label": rng.integers(0, LABELS, (batch, regions)).astype(np.int32),
            "text": tokens,
            "text_id": np.arange(batch, dtype=np.int32),
            "position": np.arange(batch, dtype=np.int32),
        }
    )


def train(config: Any) -> Callable[[], Any]:
    """The train step of `medp_clip_jax.train`, with region losses where the configuration has regions."""
    model, batch = MedPCLIP(config.model), inputs(config)
    rng = np.random.default_rng(1)
    sentences = rng.integers(1, 49408, (LABELS, 2, config.input.label_context)).astype(np.int32)
    bank = Bank(sentences, np.zeros((LABELS, LABELS), bool), np.zeros(LABELS, np.float32))
    params = jax.jit(functools.partial(init_params, model, 0))()
    optimizer = make_optimizer(config.optim, 1000, params)
    step = jax.jit(functools.partial(train_step, model, optimizer, config), donate_argnums=0)
    state, bank = TrainState(jnp.zeros((), jnp.int32), params, jax.jit(optimizer.init)(params)), jax.device_put(bank)
    kept = [state]

    def run() -> Any:
        state, metrics = step(kept.pop(), batch, bank)
        kept.append(state)
        return metrics if jax.default_backend() == "gpu" else jax.block_until_ready(metrics)

    return run


def tower(config: Any) -> tuple[MedPCLIP, Any, dict[str, Any]]:
    """(model, parameters of the image tower and its prompts, batch)."""
    model = MedPCLIP(config.model)
    params = jax.jit(functools.partial(init_params, model, 0))()
    return model, {name: value for name, value in params.items() if name != "text"}, inputs(config)


def one_pass(model: MedPCLIP, params: Any, batch: dict[str, Any]) -> jax.Array:
    """Region embeddings [batch, regions, dim] from the pass that training takes."""

    def regions(clip: MedPCLIP) -> jax.Array:
        return clip.fusion(clip.visual.prepare(Images(batch["image"], batch["rectangle"])), batch["prompts"])[1]

    return model.apply({"params": params}, method=regions)


def tower_train(config: Any) -> Callable[[], Any]:
    """Forward and backward of images with their regions, then AdamW; no text."""
    model, params, batch = tower(config)
    rng = np.random.default_rng(2)
    target = rng.normal(size=(config.input.batch_size, config.input.regions, config.model.embed)).astype(np.float32)
    optimizer = optax.adamw(1e-4, 0.9, 0.98, weight_decay=0.05)

    def step(state: Any, batch: Any, target: Any) -> Any:
        params, moments = state
        grads = jax.grad(lambda params: -(one_pass(model, params, batch) * target).sum())(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments

    step, kept = jax.jit(step, donate_argnums=0), [(params, jax.jit(optimizer.init)(params))]

    def run() -> Any:
        kept.append(step(kept.pop(), batch, target))
        return jax.block_until_ready(kept[-1])

    return run


def tower_infer(config: Any) -> Callable[[], Any]:
    """Images and their regions in one pass."""
    model, params, batch = tower(config)
    apply = jax.jit(functools.partial(one_pass, model))
    return lambda: jax.block_until_ready(apply(params, batch))


def tower_infer_kept(config: Any) -> Callable[[], Any]:
    """The public API's two stages: images once, then their regions from what was kept."""
    model, params, batch = tower(config)

    def method(name: str) -> Callable:
        return jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs, method=name))

    encode_image, encode_regions = method("encode_image"), method("encode_regions")

    def run() -> Any:
        features = encode_image(params, Images(batch["image"], batch["rectangle"]))
        return jax.block_until_ready(encode_regions(params, features, batch["prompts"]))

    return run


if __name__ == "__main__":
    main()
