"""Every way to point at a place, on phantoms: half the compute of `smoke.py`, three seeds each."""

import ml_collections

from configs import smoke
from configs.sweeps.equal_compute import equal_compute

LABELS = 22  # of the phantoms
NO_REGIONS = {"loss.region_to_text": 0.0, "loss.text_to_region": 0.0}
PROMPTS = {"eval.kinds": ("mask", "box", "point", "none")}  # a crop costs a pass per region
ASKED = {"eval.falsification": True, **PROMPTS}
WAYS = {
    "MedP-CLIP (tokens)": {},
    "late (SAM-style)": {"model.fusion": "late", "model.prompt.glimpse": 0, "model.prompt.context": 0.0},
    "late with our glimpses": {"model.fusion": "late"},
    "mask pool": {"model.fusion": "pool"},
    "alpha (Alpha-CLIP)": {"model.fusion": "alpha"},
    "trained on crops": {"input.view": "crop", "input.regions": 1, "eval.kinds": ("none", "crop")},
    "no regions": {**NO_REGIONS, "eval.kinds": ("none", "crop", "blackout", "blur", "red_circle")},
}


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/smoke.py"
    ways = {title: {**ASKED, **fields} for title, fields in WAYS.items()}
    sweep.settings = equal_compute(smoke.get_config, ways, LABELS, share=0.5)
    sweep.grid = (("seed", (0, 1, 2)),)
    sweep.metrics = ("region/mask/macro", "region/box/macro", "region/point/macro", "region/mask/twins")
    return sweep
