"""Every fusion on phantoms, three seeds each: `smoke.py` with nothing else changed."""

import ml_collections


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/smoke.py"
    sweep.grid = (("model.fusion", ("tokens", "late", "pool", "alpha")), ("seed", (0, 1, 2)))
    sweep.metrics = ("region/mask/macro", "region/box/macro", "region/point/macro", "region/mask/twins")
    return sweep
