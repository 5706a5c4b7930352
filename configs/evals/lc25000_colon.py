"""LC25000 (arXiv 1912.12142), colon: cancer or benign tissue. All images, as there is no official split."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "LC25000, colon"
    known.page = "https://github.com/tampapath/lung_colon_image_set"
    known.licence = "see its page"
    known.files = (
        ("lung_colon_image_set/colon_image_sets/colon_aca/*", "images of colon adenocarcinoma", 5000),
        ("lung_colon_image_set/colon_image_sets/colon_n/*", "images of benign colon tissue", 5000),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=lc25000_colon",
        "--option=modality=histopathology",
        "--option=anatomy=colon",
        "--option=images=lung_colon_image_set/colon_image_sets",
        "--option=classes=colon_aca=colon adenocarcinoma,colon_n=benign colon tissue",
        "--split=test",
    )
    known.split = "test"
    known.kinds = ("none",)
    known.metrics = image_metrics("lc25000_colon")
    known.sentences = {
        "colorectal_adenocarcinoma": (
            "a histology image of colon adenocarcinoma",
            "colon adenocarcinoma under the microscope, H&E",
        ),
        "benign_colon_tissue": (
            "a histology image of benign colon tissue",
            "normal colon tissue under the microscope, H&E",
        ),
    }
    return known
