"""TotalSegmentator CT: structures of its test subjects."""

import ml_collections

from configs.evals import REGION_KINDS, REGION_METRICS


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "TotalSegmentator CT"
    known.page = "https://doi.org/10.5281/zenodo.6802613"
    known.licence = "CC BY 4.0"
    known.files = (
        ("meta.csv", "the table with the split"),
        ("s*/ct.nii.gz", "volumes"),
        ("s*/segmentations/*.nii.gz", "a mask per structure"),
    )
    known.build = (
        "--source=totalsegmentator",
        "--option=ids=keep",
    )
    known.split = "test"
    known.kinds = REGION_KINDS
    known.metrics = REGION_METRICS
    known.templates = ("{name}", "{name} in a CT scan")
    return known
