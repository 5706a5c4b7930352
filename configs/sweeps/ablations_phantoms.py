"""What makes region prompting work, on phantoms: one change at a time, a quarter of the compute of `smoke.py`.

Changes are screened with one seed. MedP-CLIP and those that came out level with it by every prompt have three.
"""

import ml_collections

from configs import smoke
from configs.sweeps.baselines_phantoms import LABELS, PROMPTS
from configs.sweeps.equal_compute import equal_compute
from medp_clip_jax.prompt_kinds import TRAINED


def only(kind: str) -> dict[str, float]:
    """Trains by one kind of prompt."""
    return {f"input.prompt_kinds.{each}": float(each == kind) for each in TRAINED}


CHANGES = {
    "MedP-CLIP": {},
    "no coverage bias": {"model.prompt.bias": False},
    "bias in the last block only": {"model.prompt.bias_from": 2},
    "4 tokens per region": {"model.prompt.tokens": 4},
    "half of the glimpses dropped": {"model.prompt.glimpse_drop": 0.5},
    "no glimpse": {"model.prompt.glimpse": 0, "model.prompt.context": 0.0},
    "no glimpse of the surroundings": {"model.prompt.context": 0.0},
    "masks only": only("mask"),
    "boxes only": only("box"),
    "clicks only": only("point"),
    "1 region per image": {"input.regions": 1},
    "4 regions per image": {"input.regions": 4},
    "16 regions per image": {"input.regions": 16},
    "no prior correction (tau 0)": {"loss.tau": 0.0},
    "full prior correction (tau 1)": {"loss.tau": 1.0},
    "region to text alone": {"loss.text_to_region": 0.0},
    "text to region alone": {"loss.region_to_text": 0.0},
    "exact masks teach other prompts": {"loss.consistency": 1.0},
    "kin are negatives": {"loss.hierarchy": False},
    "one-hot InfoNCE in the batch": {"loss.region_kind": "one_hot", "loss.text_to_region": 0.0},
    "multi-positive in the batch": {"loss.region_kind": "multi_positive", "loss.text_to_region": 0.0},
    "sigmoid in the batch": {"loss.region_kind": "sigmoid", "loss.text_to_region": 0.0},
}
LEADERS = ("MedP-CLIP", "no coverage bias", "bias in the last block only")


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/smoke.py"
    ways = {title: {**PROMPTS, **fields} for title, fields in CHANGES.items()}
    sweep.settings = equal_compute(smoke.get_config, ways, LABELS, share=0.25)
    sweep.grid = (("seed", (0,)),)
    sweep.cells = tuple(
        {"setting": title, "seed": seed, **fields}
        for seed in (1, 2)
        for title, fields in sweep.settings
        if title in LEADERS
    )
    sweep.metrics = ("region/mask/macro", "region/box/macro", "region/point/macro", "region/mask/twins")
    return sweep
