"""Whether holding on to a base helps: region training from a model without regions, on phantoms, one seed.

The base is a release of the baselines' model without regions, trained anew:

    python -m medp_clip_jax.train --config=configs/smoke.py --config.workdir=runs/no_regions \\
        --config.train.steps=1370 --config.loss.region_to_text=0.0 --config.loss.text_to_region=0.0 \\
        --config.eval.kinds="('none',)"
    python -m medp_clip_jax.export runs/no_regions --output=releases/no_regions --noprograms
"""

import ml_collections

from configs import smoke
from configs.sweeps.baselines_phantoms import PROMPTS


def ways(base: str) -> dict[str, dict]:
    """Titles and what they change: where region training starts, and whether it holds on to that."""
    return {
        "from scratch": {},
        "from the base": {"init": base},
        "from the base, distilled": {"init": base, "loss.distill": 1.0},
    }


def get_sweep(base: str = "releases/no_regions") -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/smoke.py"
    common = {**PROMPTS, "train.steps": smoke.get_config().train.steps // 4}
    sweep.settings = tuple((title, {**fields, **common}) for title, fields in ways(base).items())
    sweep.grid = (("seed", (0,)),)
    sweep.metrics = (
        "region/mask/macro",
        "region/box/macro",
        "region/point/macro",
        "region/mask/twins",
        "context/none/modality_accuracy",
    )
    return sweep
