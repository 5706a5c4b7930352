"""ISIC 2018 task 3 (HAM10000, arXiv 1902.03368): which of seven skin lesions is it? The official test part."""

import ml_collections

from configs.evals import classes, image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "ISIC 2018, task 3"
    known.page = "https://challenge.isic-archive.com/data/#2018"
    known.licence = "CC BY-NC 4.0"
    known.files = (
        ("ISIC2018_Task3_Test_GroundTruth/ISIC2018_Task3_Test_GroundTruth.csv", "the test part's diagnoses"),
        ("ISIC2018_Task3_Test_Input/*.jpg", "the test part's images", 1512),
    )
    known.build = (
        "--source=image_table",
        "--option=name=isic2018",
        "--option=modality=dermoscopy",
        "--option=anatomy=skin",
        "--option=table=ISIC2018_Task3_Test_GroundTruth/ISIC2018_Task3_Test_GroundTruth.csv",
        "--option=images=ISIC2018_Task3_Test_Input",
        classes(
            {
                "MEL": "melanoma",
                "NV": "melanocytic nevus",
                "BCC": "basal cell carcinoma",
                "AKIEC": "actinic keratosis",
                "BKL": "benign keratosis",
                "DF": "dermatofibroma",
                "VASC": "vascular skin lesion",
            }
        ),
        "--split=test",
    )
    known.split = "test"
    known.images = 1512
    known.kinds = ("none",)
    known.metrics = image_metrics("isic2018")
    known.sentences = {
        "melanoma": (
            "a dermoscopic image of a melanoma",
            "melanoma of the skin, dermoscopy",
        ),
        "melanocytic_nevus": (
            "a dermoscopic image of a melanocytic nevus",
            "melanocytic nevus of the skin, dermoscopy",
        ),
        "basal_cell_carcinoma": (
            "a dermoscopic image of a basal cell carcinoma",
            "basal cell carcinoma of the skin, dermoscopy",
        ),
        "actinic_keratosis": (
            "a dermoscopic image of an actinic keratosis",
            "actinic keratosis of the skin, dermoscopy",
        ),
        "benign_keratosis": (
            "a dermoscopic image of a benign keratosis",
            "benign keratosis of the skin, dermoscopy",
        ),
        "dermatofibroma": (
            "a dermoscopic image of a dermatofibroma",
            "dermatofibroma of the skin, dermoscopy",
        ),
        "vascular_skin_lesion": (
            "a dermoscopic image of a vascular skin lesion",
            "vascular skin lesion, dermoscopy",
        ),
    }
    return known
