"""Every way to point at a place, on every patient: three trainings each, which test a third of the patients each.

The corpora are those of `benchmarks.patient_folds`; all else is as in `baselines_regions.py`. The two ways that lie
closest have a second seed.
"""

import ml_collections

from configs.sweeps import baselines_regions

FOLDS = ("corpora/fold_0", "corpora/fold_1", "corpora/fold_2")


def get_sweep() -> ml_collections.ConfigDict:
    sweep = baselines_regions.get_sweep()
    sweep.settings = tuple((title, {**fields, "data.build": ()}) for title, fields in sweep.settings)
    sweep.grid = (("data.corpus", FOLDS), ("seed", (0,)))
    sweep.cells = tuple(
        {"setting": title, "data.corpus": fold, "seed": 1, **fields}
        for fold in FOLDS
        for title, fields in sweep.settings
        if title in baselines_regions.CLOSE
    )
    sweep.pooled = ("data.corpus",)
    return sweep
