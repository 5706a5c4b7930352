"""What an image costs with 16 regions asked about by masks, for every fusion: FLOPs and time, and their ratios to ours.

    python -m benchmarks.fusion_cost [--models=regions_cpu,S/16,B/16] [--repeats=9]

`regions_cpu` is the model of `configs/sweeps/baselines_regions.py`. One image a call, by turns, the median is taken.
Models are untrained, as their time does not depend on their parameters. FLOPs are those of `medp_clip_jax.cost`: what
the tables of sweeps call `cost/image_gflop`.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from configs import common, regions_cpu
from configs.sweeps.baselines_regions import COMMON
from medp_clip_jax.cost import REGIONS, image_flops
from medp_clip_jax.errors import run_cli
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import init_params

FLAGS = flags.FLAGS
FUSIONS = ("tokens", "pool", "late", "alpha")  # the first is ours
MASK = 64  # side of the masks


def configuration(name: str, fusion: str) -> Any:
    """The whole configuration of a model."""
    config = common.get_config()
    if name == "regions_cpu":
        config = regions_cpu.get_config()
        config.update_from_flattened_dict(COMMON)
    else:
        config.model = common.variant(name)
    config.model.text.update(depth=1, vocab=512)  # not used here
    config.model.fusion = fusion
    return config


def answering(config: Any) -> Callable[[], Any]:
    """A call that embeds one image and its regions, compiled."""
    model = MedPCLIP(config.model)
    params = jax.jit(functools.partial(init_params, model, 0))()
    size = config.model.image.size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    masks = np.zeros((1, REGIONS, MASK, MASK), bool)
    for region, (x, y) in enumerate(rng.integers(0, MASK - 16, (REGIONS, 2))):
        masks[0, region, y : y + 16, x : x + 16] = True
    prompts = RegionPrompts.from_masks(masks)

    @jax.jit
    def answer(params: Any, image: Any, prompts: RegionPrompts) -> tuple[Any, Any]:
        features = model.apply({"params": params}, image, method="encode_image")
        return features.embedding, model.apply({"params": params}, features, prompts, method="encode_regions")

    jax.block_until_ready(answer(params, image, prompts))
    return lambda: jax.block_until_ready(answer(params, image, prompts))


def main(argv: Sequence[str]) -> None:
    del argv
    print(f"{jax.devices()[0].device_kind}, float32, one image with {REGIONS} masks, median of {FLAGS.repeats}")
    print("| model | fusion | GFLOPs | ms | GFLOPs / ours | time / ours |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in FLAGS.models:
        configs = {fusion: configuration(name, fusion) for fusion in FUSIONS}
        calls = {fusion: answering(config) for fusion, config in configs.items()}
        times: dict[str, list[float]] = {fusion: [] for fusion in FUSIONS}
        for _ in range(FLAGS.repeats):
            for fusion, call in calls.items():
                began = time.perf_counter()
                call()
                times[fusion].append(1000 * (time.perf_counter() - began))
        gflops = {fusion: image_flops(config) / 1e9 for fusion, config in configs.items()}
        medians = {fusion: statistics.median(each) for fusion, each in times.items()}
        for fusion in FUSIONS:
            ratios = (found[fusion] / found[FUSIONS[0]] for found in (gflops, medians))
            cells = (f"{gflops[fusion]:.3g}", f"{medians[fusion]:.1f}", *(f"{ratio:.2f}" for ratio in ratios))
            print(f"| {name} | {fusion} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    flags.DEFINE_list("models", ["regions_cpu", "S/16", "B/16"], "regions_cpu, and variants of configs/common.py.")
    flags.DEFINE_integer("repeats", 9, "Timed calls of each.", lower_bound=1)
    run_cli(main)
