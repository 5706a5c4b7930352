"""SA-Med2D-20M (arXiv 2311.11969): regions of a tenth of its cases, chosen by a hash, as there is no official split."""

import ml_collections

from configs.evals import REGION_KINDS, REGION_METRICS


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "SA-Med2D-20M"
    known.page = "https://huggingface.co/datasets/OpenGVLab/SA-Med2D-20M"
    known.licence = "CC BY-NC-SA 4.0, and those of the sets in it"
    known.files = (
        ("*SAMed2D*v1.json|*SAMed2Dv1.json|annotations/*SAMed2D*v1.json", "the table of images and masks"),
        ("*class_mapping_id.json|annotations/*class_mapping_id.json", "the table of classes"),
        ("images/*.png", "images"),
        ("masks/*.png", "masks"),
    )
    known.build = ("--source=samed2d",)
    known.split = "test"
    known.kinds = REGION_KINDS
    known.metrics = REGION_METRICS
    known.templates = ("{name}", "{name} in a medical image")
    return known
