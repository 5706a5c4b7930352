"""REFUGE (arXiv 1910.03667): glaucoma or not? The training part, the only one with labels in its folders."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "REFUGE"
    known.page = "https://refuge.grand-challenge.org"
    known.licence = "see its page"
    known.files = (
        ("Training400/Glaucoma/*.jpg", "images with glaucoma (unpack REFUGE-Training400.zip)", 40),
        ("Training400/Non-Glaucoma/*.jpg", "images without", 360),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=refuge",
        "--option=modality=colour fundus photography",
        "--option=anatomy=eye",
        "--option=images=Training400",
        "--option=classes=Glaucoma=glaucoma,Non-Glaucoma=no glaucoma",
        "--split=test",
    )
    known.split = "test"
    known.kinds = ("none",)
    known.metrics = image_metrics("refuge")
    known.sentences = {
        "glaucoma": (
            "a fundus photograph of an eye with glaucoma",
            "an enlarged optic cup",
        ),
        "no_glaucoma": (
            "a fundus photograph of an eye without glaucoma",
            "a normal optic disc",
        ),
    }
    return known
