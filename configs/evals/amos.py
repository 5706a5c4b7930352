"""AMOS 2022 (arXiv 2206.08023): fifteen abdominal organs in CT and MRI, the scans of its validation part."""

import ml_collections

from configs.evals import ABDOMEN, REGION_KINDS, REGION_METRICS, asked

ORGANS = ABDOMEN | {
    "duodenum": "duodenum",
    "urinary_bladder": "urinary bladder",
    "prostate_or_uterus": "prostate or uterus",
}


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "AMOS 2022"
    known.page = "https://amos22.grand-challenge.org"
    known.licence = "CC BY-NC-SA"
    known.files = (
        ("imagesVa/*.nii.gz", "volumes of the validation part", 120),
        ("labelsVa/*.nii.gz", "label maps", 120),
    )
    known.build = (
        "--source=amos",
        "--option=ids=keep",
    )
    known.split = "val"
    known.kinds = REGION_KINDS
    known.metrics = REGION_METRICS
    known.sentences = asked(ORGANS, "the {name}", "the {name} in a scan of the abdomen")
    return known
