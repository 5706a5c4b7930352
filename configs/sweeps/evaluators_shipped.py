"""What several evaluation commands say of the shipped model, each with two seeds of what is drawn: phantoms, `test`.

A row is a checkpoint: another release or run in the grid is one more. The corpus is made by

    python -m data.build --source=phantoms --train=1000 --val=100 --test=200 --size=160 --output=corpora/release
"""

import ml_collections

from medp_clip_jax.hub import DEFAULT

EVALUATORS = ("evaluate", "robustness", "falsification", "linear_probe")


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    asked = (("data", ("corpora/release",)), ("sources", ("phantoms",)))
    sweep.grid = (("checkpoint", (DEFAULT,)), ("evaluator", EVALUATORS), ("seed", (0, 1)), *asked)
    sweep.pooled = ("evaluator", "data", "sources")
    sweep.metrics = (
        "region/mask/micro",
        "robustness/noise_0.16/mask/micro/accuracy",
        "probe/regions/mask/full/micro",
        "falsification/region/small/presence/auroc",
    )
    return sweep
