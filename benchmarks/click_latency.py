"""How long a click takes, and how many FLOPs: the image pass, the first click and the next, for 1 and 16 regions.

    python -m benchmarks.click_latency [--models=S/16,B/16,L/14] [--repeats=5]
    python -m benchmarks.click_latency --peer_python=PEERS/bin/python --sam_med2d=CHECKOUT

The second also times SAM-Med2D (ViT-B, 256 px) from a checkout of https://github.com/OpenGVLab/SAM-Med2D, by turns.
Models are untrained, as their time does not depend on their parameters. Every click ends in masks of the image's size;
`name` is what the embedding of these masks takes when it is asked for. `share` is the FLOPs of a next click by those of
the image pass, as the compiler counts them.
"""

import functools
import json
import os
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from configs import common
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import init_params

FLAGS = flags.FLAGS
SLOTS = 8  # clicks
REGIONS = (1, 16)
PEER = pathlib.Path(__file__).with_name("click_peer.py")


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
    """Rows (model, regions, image ms, first ms, next ms, name ms, next GFLOPs, share) of one variant."""
    config = common.variant(name)
    config.text.update(depth=1, vocab=512)  # not used here
    config.segmenter.width = 256
    config.unroll = config.image.depth  # the compiler counts the body of a loop once
    model = MedPCLIP(config)
    params = jax.jit(functools.partial(init_params, model, 0))()

    def apply(method: str) -> Callable[..., Any]:
        return lambda params, *inputs: model.apply({"params": params}, *inputs, method=method)

    def answer(params: Any, features: Any, prompts: Any, previous: Any = None) -> Any:
        return model.apply({"params": params}, features, prompts, previous, named=False, method="segment")

    image = np.zeros((1, config.image.size, config.image.size, 3), np.uint8)
    encode, image_flops = compiled(apply("encode_image"), params, image)
    features = encode(params, image)
    image_ms = median_ms(encode, params, image, repeats=repeats)
    rows = []
    for regions in REGIONS:
        inputs = (params, features, clicks(regions))
        first, _ = compiled(answer, *inputs)
        found = first(*inputs)
        following, flops = compiled(answer, *inputs, found)
        named, _ = compiled(apply("encode_masks"), *inputs, found.logits)
        cases = ((first, inputs), (following, (*inputs, found)), (named, (*inputs, found.logits)))
        times = [median_ms(program, *given, repeats=repeats) for program, given in cases]
        rows.append((name, regions, image_ms, *times, flops / 1e9, flops / image_flops))
    return rows


def peer_ms(repeats: int) -> tuple[str, dict[str, float]]:
    """Versions, and milliseconds of SAM-Med2D's image pass ("image") and of its clicks by the number of regions.

    Raises:
      InputError: its Python or its code cannot be run.
    """
    checkout = pathlib.Path(FLAGS.sam_med2d)
    case = {"checkout": str(checkout), "regions": REGIONS, "repeats": repeats, "threads": os.cpu_count()}
    try:
        done = subprocess.run([FLAGS.peer_python, PEER, json.dumps(case)], capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"--peer_python={FLAGS.peer_python}: {error.strerror}; name a Python with torch") from error
    if done.returncode:
        raise InputError(f"--sam_med2d={checkout}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}; see --help")
    answer = json.loads(done.stdout)
    return answer["versions"], answer["ms"]


def main(argv: Sequence[str]) -> None:
    del argv
    if bool(FLAGS.peer_python) != bool(FLAGS.sam_med2d):
        raise InputError("--peer_python and --sam_med2d go together: a Python with torch, and the code to run there")
    print(f"{jax.devices()[0].device_kind}, float32, one image of 224 px, median of {FLAGS.repeats}")
    print("| model | regions | image ms | first click ms | next click ms | name ms | next GFLOPs | share |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    next_ms, theirs, versions = {}, [], ""
    for name in FLAGS.models:
        for _, regions, *times, flops, share in measure(name, FLAGS.repeats):
            cells = " | ".join(f"{ms:.1f}" for ms in times)
            print(f"| {name} | {regions} | {cells} | {flops:.2f} | {share:.1%} |", flush=True)
            next_ms[name, regions] = times[2]
        if FLAGS.peer_python:
            versions, found = peer_ms(FLAGS.repeats)
            theirs.append(found)
    if not theirs:
        return
    peer = {name: statistics.median(found[name] for found in theirs) for name in theirs[0]}
    for regions in REGIONS:
        ms = peer[str(regions)]
        print(f"| SAM-Med2D, 256 px | {regions} | {peer['image']:.1f} | {ms:.1f} | {ms:.1f} | | | |")
    print(f"\n{versions}; a next click takes, of SAM-Med2D's time:")
    for (name, regions), ms in next_ms.items():
        print(f"- {name}, {regions} region{'s' * (regions > 1)}: {ms / peer[str(regions)]:.2f}")


if __name__ == "__main__":
    flags.DEFINE_list("models", ["S/16", "B/16", "L/14"], "Variants of configs/common.py.")
    flags.DEFINE_integer("repeats", 5, "Timed calls of each.", lower_bound=1)
    flags.DEFINE_string("peer_python", "", "Python with torch, to time SAM-Med2D, too.")
    flags.DEFINE_string("sam_med2d", "", "Checkout of SAM-Med2D.")
    run_cli(main)
