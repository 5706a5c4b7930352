"""TotalSegmentator CT: structures of its test subjects."""

import ml_collections


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
    known.kinds = ("mask", "box", "point", "crop", "none")
    known.metrics = (
        "region/mask/macro",
        "region/mask/within_image",
        "region/box/macro",
        "region/box/within_image",
        "region/point/macro",
        "region/point/within_image",
    )
    return known
