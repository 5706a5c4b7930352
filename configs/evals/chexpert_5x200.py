"""CheXpert 5x200 (GLoRIA, ICCV 2021): which of five findings is it? 200 chest x-rays of each, which have no other."""

import ml_collections

from configs.evals import classes, image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "CheXpert 5x200"
    known.page = "https://github.com/marshuang80/gloria"
    known.licence = "CheXpert: Stanford University Dataset Research Use Agreement"
    known.files = (
        ("chexpert_5x200.csv", "the list that GLoRIA's page links to"),
        (
            "CheXpert-v1.0/train/patient*/study*/*.jpg",
            "images of CheXpert-v1.0 or CheXpert-v1.0-small, the folder under the list's name for it",
            1000,  # the listed ones will do
        ),
    )
    known.build = (
        "--source=image_table",
        "--option=name=chexpert_5x200",
        "--option=modality=chest x-ray",
        "--option=anatomy=chest",
        "--option=table=chexpert_5x200.csv",
        "--option=image=Path",
        classes(
            {
                "Atelectasis": "atelectasis",
                "Cardiomegaly": "cardiomegaly",
                "Consolidation": "consolidation",
                "Edema": "pulmonary edema",
                "Pleural Effusion": "pleural effusion",
            }
        ),
        "--option=group=(patient\\d+)",
        "--split=test",
    )
    known.split = "test"
    known.images = 1000
    known.kinds = ("none",)
    known.metrics = image_metrics("chexpert_5x200")
    known.sentences = {
        "atelectasis": (
            "a chest x-ray with atelectasis",
            "bibasilar atelectasis",
        ),
        "cardiomegaly": (
            "a chest x-ray with cardiomegaly",
            "an enlarged cardiac silhouette",
        ),
        "consolidation": (
            "a chest x-ray with consolidation",
            "airspace consolidation of the lung",
        ),
        "pulmonary_edema": (
            "a chest x-ray with pulmonary edema",
            "pulmonary vascular congestion and edema",
        ),
        "pleural_effusion": (
            "a chest x-ray with pleural effusion",
            "blunting of the costophrenic angle by an effusion",
        ),
    }
    return known
