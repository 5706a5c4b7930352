"""Whether holding on to a base helps: region training from a model without regions, on real regions, one seed.

From scratch is the first cell of `baselines_regions.py`. The base has taken as many steps without region losses:

    python -m medp_clip_jax.train --config=configs/regions_cpu.py --config.workdir=runs/no_regions_real \\
        --config.model.image.patch=16 --config.train.steps=1000 --config.loss.region_to_text=0.0 \\
        --config.loss.text_to_region=0.0 --config.eval.kinds="('none',)"
    python -m medp_clip_jax.export runs/no_regions_real --output=releases/no_regions_real --noprograms
"""

import ml_collections

from configs.sweeps import baselines_regions, global_view_regions
from configs.sweeps.distillation_phantoms import ways


def get_sweep(base: str = "releases/no_regions_real") -> ml_collections.ConfigDict:
    sweep = baselines_regions.get_sweep()
    common = dict(sweep.settings)[baselines_regions.CLOSE[0]]
    sweep.settings = tuple((title, {**common, **fields}) for title, fields in ways(base).items())
    sweep.grid, sweep.cells = (("seed", (0,)),), ()
    images = [name for name in global_view_regions.get_sweep().metrics if not name.startswith("region/")]
    sweep.metrics = (*sweep.metrics[::2], *images)
    return sweep
