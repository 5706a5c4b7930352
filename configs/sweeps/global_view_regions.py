"""Whether region losses harm the global view, on real regions: every fusion with them, and as many steps without.

The cells with them are those of `baselines_regions.py`. Without them the fusions are one model, so that a row says for
how many steps it trained. Phantoms are not asked, whose image labels their captions hardly teach.
"""

import ml_collections

from configs.sweeps import baselines_regions
from configs.sweeps.baselines_phantoms import NO_REGIONS

FUSIONS = ("MedP-CLIP (tokens)", "late (SAM-style)", "mask pool", "alpha (Alpha-CLIP)")


def get_sweep() -> ml_collections.ConfigDict:
    sweep = baselines_regions.get_sweep()
    ways = {title: dict(fields) for title, fields in sweep.settings if title in FUSIONS}
    without = {**baselines_regions.COMMON, **NO_REGIONS, "eval.kinds": ("none",)}
    for title in FUSIONS:
        steps = ways[title]["train.steps"]
        ways[f"no region losses, {steps:,} steps"] = {**without, "train.steps": steps}
    sweep.settings, sweep.cells = tuple(ways.items()), ()
    sweep.metrics = ("image/auroc", "image/balanced_accuracy", "presence/auroc", "presence/map", "region/mask/macro")
    return sweep
