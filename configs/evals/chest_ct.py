"""Chest CT-Scan images: three kinds of lung cancer or none, its test folder."""

import ml_collections

from configs.evals import image_metrics

# Folders of the training part are called differently.
CLASSES = (
    "adenocarcinoma=adenocarcinoma,adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib=adenocarcinoma,"
    "large.cell.carcinoma=large.cell.carcinoma,large.cell.carcinoma_left.hilum_T2_N2_M0_IIIa=large.cell.carcinoma,"
    "squamous.cell.carcinoma=squamous.cell.carcinoma,"
    "squamous.cell.carcinoma_left.hilum_T1_N2_M0_IIIa=squamous.cell.carcinoma,normal=normal"
)


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "Chest CT-Scan images"
    known.page = "https://www.kaggle.com/datasets/mohamedhanyyy/chest-ctscan-images"
    known.licence = "ODbL, as its page says"
    known.files = (
        ("test/adenocarcinoma/*|Data/test/adenocarcinoma/*", "test images of adenocarcinoma"),
        ("test/large.cell.carcinoma/*|Data/test/large.cell.carcinoma/*", "test images of large cell carcinoma"),
        (
            "test/squamous.cell.carcinoma/*|Data/test/squamous.cell.carcinoma/*",
            "test images of squamous cell carcinoma",
        ),
        ("test/normal/*|Data/test/normal/*", "test images of normal lungs"),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=chest_ct",
        "--option=modality=ct",
        "--option=anatomy=chest",
        f"--option=classes={CLASSES}",
    )
    known.split = "test"
    known.images = 315  # sources differ in how many are of which class
    known.kinds = ("none",)
    known.metrics = image_metrics("chest_ct")
    known.sentences = {
        "lung_adenocarcinoma": (
            "a chest CT scan with adenocarcinoma of the lung",
            "lung adenocarcinoma on CT",
        ),
        "lung_large_cell_carcinoma": (
            "a chest CT scan with large cell carcinoma of the lung",
            "large cell lung carcinoma on CT",
        ),
        "lung_squamous_cell_carcinoma": (
            "a chest CT scan with squamous cell carcinoma of the lung",
            "squamous cell lung carcinoma on CT",
        ),
        "no_finding": (
            "a normal chest CT scan",
            "a chest CT scan without lung cancer",
        ),
    }
    return known
