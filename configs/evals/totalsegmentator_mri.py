"""TotalSegmentator MRI: structures of its test subjects."""

import ml_collections

from configs.evals import REGION_KINDS, REGION_METRICS


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "TotalSegmentator MRI"
    known.page = "https://doi.org/10.5281/zenodo.11367004"
    known.licence = "CC BY-NC-SA 2.0"
    known.files = (
        ("meta.csv", "the table with the split"),
        ("s*/mri.nii.gz", "volumes"),
        ("s*/segmentations/*.nii.gz", "a mask per structure"),
    )
    known.build = (
        "--source=totalsegmentator",
        "--option=ids=keep",
    )
    known.split = "test"
    known.kinds = REGION_KINDS
    known.metrics = REGION_METRICS
    known.templates = ("{name}", "{name} in an MRI scan")
    return known
