"""Every way to point at a place, on every patient: three trainings each, which test a third of the patients each.

The corpora are those of `benchmarks.patient_folds`; all else is as in `baselines_regions.py`. Its variant of SAM's way
is left out.
"""

import ml_collections

from configs.sweeps import baselines_regions

FOLDS = ("corpora/fold_0", "corpora/fold_1", "corpora/fold_2")
LEFT_OUT = "late with our glimpses"


def get_sweep() -> ml_collections.ConfigDict:
    sweep = baselines_regions.get_sweep()
    ways = (pair for pair in sweep.settings if pair[0] != LEFT_OUT)
    sweep.settings = tuple((title, {**fields, "data.build": ()}) for title, fields in ways)
    sweep.grid, sweep.cells = (("data.corpus", FOLDS),), ()
    return sweep
