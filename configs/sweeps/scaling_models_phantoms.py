"""Accuracy against the size of the image tower, on phantoms, at half the compute of `smoke.py`."""

import ml_collections

from configs import smoke
from configs.sweeps.baselines_phantoms import LABELS
from configs.sweeps.equal_compute import equal_compute

TOWERS = ((96, 3), (48, 2), (64, 3), (128, 4), (192, 6))  # width, depth; the first is that of `smoke.py`


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/smoke.py"
    ways = {
        f"width {width}, depth {depth}": {
            "model.image.width": width,
            "model.image.depth": depth,
            "model.image.heads": max(1, width // 32),
        }
        for width, depth in TOWERS
    }
    sweep.settings = equal_compute(smoke.get_config, ways, LABELS, share=0.5)
    sweep.grid = (("seed", (0,)),)
    sweep.metrics = ("region/mask/macro", "region/box/macro", "region/point/macro", "region/mask/twins")
    sweep.curves = (("region/mask/macro", "cost/image_gflop"),)
    return sweep
