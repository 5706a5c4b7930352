"""Whether region losses harm the global view, on real regions: every fusion with them, and without them, as many steps.

Without region losses the fusions are one model. Half the steps of `regions_cpu.py`, two seeds, the test split; phantoms
are not asked, whose image labels their captions hardly teach.
"""

import ml_collections

from configs import regions_cpu
from configs.sweeps.baselines_phantoms import NO_REGIONS, WAYS
from configs.sweeps.baselines_regions import COMMON

FUSIONS = ("MedP-CLIP (tokens)", "late (SAM-style)", "mask pool", "alpha (Alpha-CLIP)")


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/regions_cpu.py"
    common = {**COMMON, "train.steps": regions_cpu.get_config().train.steps // 2, "eval.kinds": ("mask", "none")}
    ways = {**{title: WAYS[title] for title in FUSIONS}, "no region losses": NO_REGIONS}
    sweep.settings = tuple((title, {**fields, **common}) for title, fields in ways.items())
    sweep.grid = (("seed", (0, 1)),)
    sweep.metrics = ("image/auroc", "image/balanced_accuracy", "presence/auroc", "presence/map", "region/mask/macro")
    return sweep
