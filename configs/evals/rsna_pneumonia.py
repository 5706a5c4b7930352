"""RSNA Pneumonia Detection Challenge (stage 2): is there pneumonia? A tenth of the patients, by hash."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "RSNA Pneumonia Detection Challenge"
    known.page = "https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge"
    known.licence = "competition rules: academic research and education, not to be passed on"
    known.files = (
        ("stage_2_train_labels.csv", "the table of boxes"),
        ("stage_2_train_images/*.dcm", "images", 26684),
    )
    known.build = (
        "--source=csv_boxes",
        "--option=name=rsna_pneumonia",
        "--option=ids=keep",
        "--option=modality=chest x-ray",
        "--option=anatomy=chest",
        "--option=boxes=stage_2_train_labels.csv",
        "--option=images=stage_2_train_images",
        "--option=label=pneumonia",
        "--option=present=Target",
        "--option=absent=no pneumonia",
    )
    known.split = "test"
    known.kinds = ("none",)
    known.metrics = image_metrics("rsna_pneumonia")
    known.sentences = {
        "pneumonia": (
            "a chest X-ray of a patient with pneumonia",
            "a chest X-ray showing a lung opacity of pneumonia",
        ),
        "no_pneumonia": (
            "a chest X-ray of a patient without pneumonia",
            "a chest X-ray without lung opacities",
        ),
    }
    return known
