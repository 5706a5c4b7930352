"""What the model that comes with the package names on `test`: of the sources that it trained on, and of those that not.

python -m data.build --source=folder --input=../shared/regions --output=corpora/release
python -m data.build --source=phantoms --train=1000 --val=100 --test=200 --size=160 --output=corpora/release
"""

import ml_collections

from configs import release_small
from medp_clip_jax.hub import DEFAULT

OTHERS = (
    "brain_hemorrhage_ct",
    "bus_bra",
    "chase_db1",
    "ebhi_seg_colorectal",
    "edd2020_endoscopy",
    "hc18_fetal_head",
    "msd_hepatic_vessel_ct",
    "msd_hippocampus",
    "msd_lung_tumor_ct",
    "nih_cxr_boxes",
    "sammed2d_demo_totalseg",
    "wbc_seg_1",
)  # of ../shared/regions, with regions in test


def get_sweep() -> ml_collections.ConfigDict:
    sweep = ml_collections.ConfigDict()
    asked = {
        "checkpoint": DEFAULT,
        "data": "corpora/release",
        "split": "test",
        "kinds": ("mask", "box", "point", "none"),
    }
    sweep.settings = (
        ("sources in training", {**asked, "sources": release_small.ALLOWED}),
        ("sources never seen", {**asked, "sources": OTHERS}),
        ("phantoms", {**asked, "sources": ("phantoms",)}),
    )
    sweep.metrics = tuple(
        f"region/{kind}/{name}" for name in ("micro", "macro", "within_image") for kind in asked["kinds"]
    )
    return sweep
