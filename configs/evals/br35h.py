"""Br35H: is there a tumour in a brain MRI? All labelled images, as there is no official split."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "Br35H"
    known.page = "https://www.kaggle.com/datasets/ahmedhamada0/brain-tumor-detection"
    known.licence = "see its page"
    known.files = (
        ("yes/*", "images with a tumour", 1500),
        ("no/*", "images without", 1500),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=br35h",
        "--option=modality=mri",
        "--option=anatomy=brain",
        "--option=classes=yes=yes,no=no,pred=,Br35H-Mask-RCNN=",
        "--split=test",
    )
    known.split = "test"
    known.kinds = ("none",)
    known.metrics = image_metrics("br35h")
    known.sentences = {
        "brain_tumor": (
            "a brain MRI scan with a tumor",
            "an MRI of the head showing a brain tumor",
            "a mass in the brain",
        ),
        "no_finding": (
            "a brain MRI scan without a tumor",
            "an MRI of a normal brain",
            "a healthy brain",
        ),
    }
    return known
