"""What a mask decoder costs region recognition: the same steps with and without one, on phantoms, three seeds."""

import ml_collections

from configs import smoke

DECODER = {
    **{
        f"model.segmenter.{name}": value
        for name, value in dict(width=64, depth=1, heads=4, stride=2, detail=32).items()
    },
    **{f"segment.{name}": value for name, value in dict(regions=1, rounds=3, unroll=3, projection=0.0).items()},
    "loss.segment": 1.0,
}
WAYS = {
    "contrastive losses alone": {},
    "with a mask decoder": DECODER,
}


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/smoke.py"
    steps = {"train.steps": smoke.get_config().train.steps // 4}
    sweep.settings = tuple((title, {**fields, **steps}) for title, fields in WAYS.items())
    sweep.grid = (("seed", (0, 1, 2)),)
    sweep.metrics = ("region/mask/macro", "region/box/macro", "region/point/macro", "region/mask/twins")
    return sweep
