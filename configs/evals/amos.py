"""AMOS 2022 (arXiv 2206.08023): fifteen abdominal organs in CT and MRI, the scans of its validation part."""

import ml_collections


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "AMOS 2022"
    known.page = "https://amos22.grand-challenge.org"
    known.licence = "CC BY-NC-SA"
    known.files = (
        ("imagesVa/*.nii.gz", "volumes of the validation part"),
        ("labelsVa/*.nii.gz", "label maps"),
    )
    known.build = (
        "--source=amos",
        "--option=ids=keep",
    )
    known.split = "val"
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
