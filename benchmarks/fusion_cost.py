"""What an image costs with 16 regions asked about by masks, for every fusion: FLOPs and time, and their ratios to ours.

    python -m benchmarks.fusion_cost [--models=regions_cpu,S/16] [--images=1,16] [--repeats=9]

`regions_cpu` is the model of `configs/sweeps/baselines_regions.py`. So many images a call, by turns; medians are shown.
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


def answering(config: Any, images: int) -> Callable[[], Any]:
    """A call that embeds images and their regions, compiled."""
    model = MedPCLIP(config.model)
    params = jax.jit(functools.partial(init_params, model, 0))()
    size = config.model.image.size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    masks = np.zeros((images * REGIONS, MASK, MASK), bool)
    for mask, (x, y) in zip(masks, rng.integers(0, MASK - 16, (len(masks), 2)), strict=True):
        mask[y : y + 16, x : x + 16] = True
    prompts = RegionPrompts.from_masks(masks.reshape(images, REGIONS, MASK, MASK))

    @jax.jit
    def answer(params: Any, image: Any, prompts: RegionPrompts) -> tuple[Any, Any]:
        return model.apply({"params": params}, image, prompts, method="embed")

    jax.block_until_ready(answer(params, image, prompts))
    return lambda: jax.block_until_ready(answer(params, image, prompts))


def measure(name: str, images: int, repeats: int) -> list[str]:
    """The rows of the table for one model and number of images a call."""
    configs = {fusion: configuration(name, fusion) for fusion in FUSIONS}
    calls = {fusion: answering(config, images) for fusion, config in configs.items()}
    times: dict[str, list[float]] = {fusion: [] for fusion in FUSIONS}
    for _ in range(repeats):
        for fusion, call in calls.items():
            began = time.perf_counter()
            call()
            times[fusion].append(1000 * (time.perf_counter() - began) / images)
    gflops = {fusion: image_flops(config) / 1e9 for fusion, config in configs.items()}
    medians = {fusion: statistics.median(each) for fusion, each in times.items()}
    rows = []
    for fusion in FUSIONS:
        ratios = (found[fusion] / found[FUSIONS[0]] for found in (gflops, medians))
        cells = (f"{gflops[fusion]:.3g}", f"{medians[fusion]:.1f}", *(f"{ratio:.2f}" for ratio in ratios))
        rows.append(f"| {name} | {images} | {fusion} | {' | '.join(cells)} |")
    return rows


def main(argv: Sequence[str]) -> None:
    del argv
    print(f"{jax.devices()[0].device_kind}, float32, {REGIONS} masks in each image, median of {FLAGS.repeats}")
    print("| model | images a call | fusion | GFLOPs per image | ms per image | GFLOPs / ours | time / ours |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in FLAGS.models:
        for images in FLAGS.images:
            print("\n".join(measure(name, int(images), FLAGS.repeats)), flush=True)


if __name__ == "__main__":
    flags.DEFINE_list("models", ["regions_cpu", "S/16"], "regions_cpu, and variants of configs/common.py.")
    flags.DEFINE_list("images", ["1", "16"], "Images a call.")
    flags.DEFINE_integer("repeats", 9, "Timed calls of each.", lower_bound=1)
    run_cli(main)
