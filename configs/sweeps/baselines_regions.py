"""Every way to point at a place, on real regions: half the steps of `regions_cpu.py`, two seeds, on the test split.

The two ways that lie closest have four seeds. Patches are of 16 px. Settings are those of `regions_cpu.py`, which were
chosen on `val`.
"""

import ml_collections

from configs import regions_cpu
from configs.sweeps.baselines_phantoms import ASKED, WAYS
from configs.sweeps.equal_compute import equal_compute

LABELS = 129  # of the images in docs/results.md
CLOSE = ("MedP-CLIP (tokens)", "mask pool")
COMMON = {**ASKED, "model.image.patch": 16, "eval.split": "test"}


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/regions_cpu.py"
    ways = {title: {**COMMON, **fields} for title, fields in WAYS.items()}
    sweep.settings = equal_compute(regions_cpu.get_config, ways, LABELS, share=0.5)
    sweep.grid = (("seed", (0, 1)),)
    sweep.cells = tuple(
        {"setting": title, "seed": seed, **fields}
        for seed in (2, 3)
        for title, fields in sweep.settings
        if title in CLOSE
    )
    sweep.metrics = tuple(
        f"region/{kind}/{name}" for kind in ("mask", "box", "point") for name in ("macro", "within_image")
    )
    return sweep
