"""COVID-CT (arXiv 2003.13865): is there COVID-19 in a slice? The official test lists; groups are patients."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "COVID-CT"
    known.page = "https://github.com/UCSD-AI4H/COVID-CT"
    known.licence = "of the publishers of the figures"
    known.files = (
        ("Images-processed/CT_COVID/*", "images with COVID-19 (unpack CT_COVID.zip)", 349),
        ("Images-processed/CT_NonCOVID/*", "images without (unpack CT_NonCOVID.zip)", 397),
        ("COVID-CT-MetaInfo.csv", "the table of patients with COVID-19 (save COVID-CT-MetaInfo.xlsx as .csv)"),
        ("NonCOVID-CT-MetaInfo.csv", "the table of patients without"),
        ("Data-split/COVID/testCT_COVID.txt", "the official test list"),
        ("Data-split/NonCOVID/testCT_NonCOVID.txt", "the official test list"),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=covid_ct",
        "--option=modality=ct",
        "--option=anatomy=chest",
        "--option=images=Images-processed",
        "--option=patients=*COVID-CT-MetaInfo.csv",
    )
    known.split = "test"
    known.images = 203
    known.kinds = ("none",)
    known.metrics = image_metrics("covid_ct")
    known.sentences = {
        "covid_19_pneumonia": (
            "a chest CT scan of a patient with COVID-19",
            "a CT scan showing COVID-19 pneumonia",
            "ground-glass opacities of COVID-19 in a lung CT",
        ),
        "no_covid_19_pneumonia": (
            "a chest CT scan of a patient without COVID-19",
            "a CT scan without COVID-19 pneumonia",
            "a lung CT without signs of COVID-19",
        ),
    }
    return known
