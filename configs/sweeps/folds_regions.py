"""Every baseline, on every patient: three trainings each, which test a third of the patients each.

The corpora are those of `benchmarks.patient_folds`; all else is as in `baselines_regions.py`.
"""

import ml_collections

from configs.sweeps import baselines_regions
from configs.sweeps.global_view_regions import FUSIONS

FOLDS = ("corpora/fold_0", "corpora/fold_1", "corpora/fold_2")
BASELINES = (*FUSIONS, "trained on crops", "no regions")


def get_sweep() -> ml_collections.ConfigDict:
    sweep = baselines_regions.get_sweep()
    ways = (pair for pair in sweep.settings if pair[0] in BASELINES)
    sweep.settings = tuple((title, {**fields, "data.build": ()}) for title, fields in ways)
    sweep.grid, sweep.cells = (("data.corpus", FOLDS),), ()
    sweep.pooled = ("data.corpus",)
    return sweep
