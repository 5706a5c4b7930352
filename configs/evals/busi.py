"""BUSI (Al-Dhabyani et al., Data in Brief 2020): is a breast ultrasound benign, malignant or normal? All images."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "BUSI"
    known.page = "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
    known.licence = "see its page"
    known.files = (
        ("Dataset_BUSI_with_GT/benign/benign (*).png", "images, benign", 437),
        ("Dataset_BUSI_with_GT/malignant/malignant (*).png", "images, malignant", 210),
        ("Dataset_BUSI_with_GT/normal/normal (*).png", "images, normal", 133),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=busi",
        "--option=modality=ultrasound",
        "--option=anatomy=breast",
        "--option=images=Dataset_BUSI_with_GT",
        "--option=leave_out=*_mask*",
        "--option=classes=benign=benign breast tumor,malignant=malignant breast tumor,normal=normal breast tissue",
        "--split=test",
    )
    known.split = "test"
    known.kinds = ("none",)
    known.metrics = image_metrics("busi")
    known.sentences = {
        "benign_breast_tumor": (
            "a breast ultrasound with a benign tumor",
            "an ultrasound image of a benign breast lesion",
        ),
        "malignant_breast_tumor": (
            "a breast ultrasound with a malignant tumor",
            "an ultrasound image of breast cancer",
        ),
        "normal_breast_tissue": (
            "a breast ultrasound without a lesion",
            "an ultrasound image of normal breast tissue",
        ),
    }
    return known
