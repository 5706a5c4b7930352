"""ODIR-5K: which of seven diagnoses does an eye have? All published eyes but those with other ones."""

import ml_collections

from configs.evals import classes, image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "ODIR-5K"
    known.page = "https://www.kaggle.com/datasets/andrewmvd/ocular-disease-recognition-odir5k"
    known.licence = "see its page"
    known.files = (
        ("full_df.csv", "the table with a row per eye"),
        ("preprocessed_images/*.jpg", "images", 6392),
    )
    known.build = (
        "--source=image_table",
        "--option=name=odir",
        "--option=modality=colour fundus photography",
        "--option=anatomy=eye",
        "--option=table=full_df.csv",
        "--option=images=preprocessed_images",
        "--option=image=filename",
        "--option=label=labels",
        "--option=patient=ID",
        classes(
            {
                "['N']": "normal fundus",
                "['D']": "diabetic retinopathy",
                "['G']": "glaucoma",
                "['C']": "cataract",
                "['A']": "age-related macular degeneration",
                "['H']": "hypertensive retinopathy",
                "['M']": "pathological myopia",
                "['O']": "",
            }
        ),
        "--split=test",
    )
    known.split = "test"
    known.kinds = ("none",)
    known.metrics = image_metrics("odir")
    known.sentences = {
        "normal_fundus": (
            "a fundus photograph of a normal eye",
            "normal fundus, colour fundus photography",
        ),
        "diabetic_retinopathy": (
            "a fundus photograph of an eye with diabetic retinopathy",
            "diabetic retinopathy, colour fundus photography",
        ),
        "glaucoma": (
            "a fundus photograph of an eye with glaucoma",
            "glaucoma, colour fundus photography",
        ),
        "cataract": (
            "a fundus photograph of an eye with cataract",
            "cataract, colour fundus photography",
        ),
        "age_related_macular_degeneration": (
            "a fundus photograph of an eye with age-related macular degeneration",
            "age-related macular degeneration, colour fundus photography",
        ),
        "hypertensive_retinopathy": (
            "a fundus photograph of an eye with hypertensive retinopathy",
            "hypertensive retinopathy, colour fundus photography",
        ),
        "pathological_myopia": (
            "a fundus photograph of an eye with pathological myopia",
            "pathological myopia, colour fundus photography",
        ),
    }
    return known
