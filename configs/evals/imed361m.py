"""IMed-361M (arXiv 2411.12814): regions of the test lists of its data sets."""

import ml_collections

from configs.evals import REGION_KINDS, REGION_METRICS


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "IMed-361M"
    known.page = "https://github.com/uni-medical/IMIS-Bench"
    known.licence = "see its page, and those of the sets in it"
    known.files = (
        ("dataset.json|*/dataset.json", "the table of a data set"),
        ("image/*|*/image/*", "images"),
        ("label/*.npz|*/label/*.npz", "label stacks"),
    )
    known.build = ("--source=imed361m",)
    known.split = "test"
    known.kinds = REGION_KINDS
    known.metrics = REGION_METRICS
    known.templates = ("{name}", "{name} in a medical image")
    return known
