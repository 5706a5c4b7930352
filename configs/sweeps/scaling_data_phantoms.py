"""Accuracy against the number of annotated regions, on phantoms: the steps of `smoke.py`, fewer images to see."""

import ml_collections

IMAGES = (250, 500, 1000, 2000, 4000)  # 1/16 to all, with about 7 regions each


def corpus(images: int) -> dict[str, object]:
    """The corpus of `smoke.py` with its first `images` training images; the other splits are the same."""
    if images == IMAGES[-1]:  # `smoke.py` as it is
        return {}
    arguments = ("--source=phantoms", f"--train={images}", "--val=200", "--test=400", "--size=64")
    return {"data.corpus": f"corpora/phantoms_{images}", "data.build": arguments}


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    sweep.config = "configs/smoke.py"
    sweep.settings = tuple((f"{images:,} images", corpus(images)) for images in IMAGES)
    sweep.grid = (("seed", (0,)),)
    sweep.metrics = ("region/mask/macro", "region/box/macro", "region/point/macro", "region/mask/twins")
    return sweep
