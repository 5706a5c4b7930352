"""The claim of `folds_regions.py` put to a test that was written down before it was trained.

The patients are divided anew (`benchmarks.patient_folds --draw=1`), the trainings have another seed, and SAM's way with
our glimpses is asked, too. Nothing of the model, the settings or the training differs. MedP-CLIP leads a row by a
prompt (mask, box, click) where the 95 % interval of the paired difference over patients, of the three folds taken
together, lies above zero: in macro over the labels with at least 5 patients, and within images. All rows are shown
whatever they say, and no third draw is made.
"""

import ml_collections

from configs.sweeps import baselines_regions, folds_regions

FOLDS = ("corpora/anew_0", "corpora/anew_1", "corpora/anew_2")
SEED = 1


def get_sweep() -> ml_collections.ConfigDict:
    sweep = folds_regions.get_sweep()
    ways = baselines_regions.get_sweep().settings
    sweep.settings = tuple((title, {**fields, "data.build": (), "seed": SEED}) for title, fields in ways)
    sweep.grid = (("data.corpus", FOLDS),)
    return sweep
