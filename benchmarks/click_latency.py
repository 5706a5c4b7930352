"""How long a click takes, and how many FLOPs: the image pass, the first click and the next, for 1 and 16 regions.

    python -m benchmarks.click_latency [--models=S/16,B/16,L/14] [--repeats=5]

Models are untrained, as their time does not depend on their parameters. The first click includes what all clicks of an
image share; `share` is the FLOPs of a click by those of the image pass, as the compiler counts them.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags

from configs import common
from medp_clip_jax.models import segmenter
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import init_params

FLAGS = flags.FLAGS
SLOTS = 8  # clicks


def compiled(function: Callable[..., Any], *inputs: Any) -> tuple[Callable[..., Any], float]:
    """A compiled function and its FLOPs."""
    program = jax.jit(function).lower(*inputs).compile()
    return program, float(program.cost_analysis()["flops"])


def median_ms(function: Callable[..., Any], *inputs: Any, repeats: int) -> float:
    """Median time of a call in milliseconds, after one that is not counted."""
    jax.block_until_ready(function(*inputs))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*inputs))
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def clicks(regions: int) -> RegionPrompts:
    """One click in each of some regions, with spare slots."""
    points = np.random.default_rng(0).uniform(0, 1, (1, regions, SLOTS, 2))
    labels = np.where(np.arange(SLOTS) == 0, 1, -1) * np.ones((1, regions, 1), int)
    return RegionPrompts.from_points(points, labels, (1, 1))


def measure(name: str, repeats: int) -> list[tuple[Any, ...]]:
    """Rows (model, regions, image ms, first ms, next ms, next GFLOPs, share) of one variant."""
    config = common.variant(name)
    config.text.update(depth=1, vocab=512)  # not used here
    config.segmenter.width = 256
    config.unroll = config.image.depth  # the compiler counts the body of a loop once
    model = MedPCLIP(config)
    params = jax.jit(functools.partial(init_params, model, 0))()

    def apply(method: str) -> Callable[..., Any]:
        return lambda params, *inputs: model.apply({"params": params}, *inputs, method=method)

    def answer(params: Any, features: Any, prompts: Any, previous: Any, detail: Any) -> Any:
        found = apply("decode")(params, features, prompts, previous, detail)
        return segmenter.pick(found.masks, segmenter.choose(found, prompts))

    image = np.zeros((1, config.image.size, config.image.size, 3), np.uint8)
    encode, image_flops = compiled(apply("encode_image"), params, image)
    features = encode(params, image)
    image_ms = median_ms(encode, params, image, repeats=repeats)
    look, _ = compiled(apply("look"), params, features)
    detail = look(params, features)
    look_ms = median_ms(look, params, features, repeats=repeats)
    side, rows = 2 * config.image.size // config.segmenter.stride, []
    for regions in (1, 16):
        inputs = (params, features, clicks(regions), np.zeros((1, regions, side, side), np.float32), detail)
        program, flops = compiled(answer, *inputs)
        next_ms = median_ms(program, *inputs, repeats=repeats)
        rows.append((name, regions, image_ms, look_ms + next_ms, next_ms, flops / 1e9, flops / image_flops))
    return rows


def main(argv: Sequence[str]) -> None:
    del argv
    print(f"{jax.devices()[0].device_kind}, float32, one image of 224 px, median of {FLAGS.repeats}")
    print("model  regions  image ms  first click ms  next click ms  next GFLOPs  share of image FLOPs")
    for name in FLAGS.models:
        for _, regions, *times, flops, share in measure(name, FLAGS.repeats):
            cells = f"{times[0]:>9.1f} {times[1]:>15.1f} {times[2]:>14.1f}"
            print(f"{name:<6} {regions:>7} {cells} {flops:>12.2f} {share:>10.1%}")


if __name__ == "__main__":
    flags.DEFINE_list("models", ["S/16", "B/16", "L/14"], "Variants of configs/common.py.")
    flags.DEFINE_integer("repeats", 5, "Timed calls of each.", lower_bound=1)
    app.run(main)
