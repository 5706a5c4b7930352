"""LC25000 (arXiv 1912.12142), lung: cancer or benign tissue. All images, as there is no official split."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "LC25000, lung"
    known.page = "https://github.com/tampapath/lung_colon_image_set"
    known.licence = "see its page"
    known.files = (
        ("lung_colon_image_set/lung_image_sets/lung_aca/*", "images of lung adenocarcinoma", 5000),
        ("lung_colon_image_set/lung_image_sets/lung_n/*", "images of benign lung tissue", 5000),
        ("lung_colon_image_set/lung_image_sets/lung_scc/*", "images of lung squamous cell carcinoma", 5000),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=lc25000_lung",
        "--option=modality=histopathology",
        "--option=anatomy=lung",
        "--option=images=lung_colon_image_set/lung_image_sets",
        "--option=classes=lung_aca=lung adenocarcinoma,lung_n=benign lung tissue,lung_scc=lung squamous cell carcinoma",
        "--split=test",
    )
    known.split = "test"
    known.kinds = ("none",)
    known.metrics = image_metrics("lc25000_lung")
    known.sentences = {
        "lung_adenocarcinoma": (
            "a histology image of lung adenocarcinoma",
            "lung adenocarcinoma under the microscope, H&E",
        ),
        "benign_lung_tissue": (
            "a histology image of benign lung tissue",
            "normal lung tissue under the microscope, H&E",
        ),
        "lung_squamous_cell_carcinoma": (
            "a histology image of squamous cell carcinoma of the lung",
            "lung squamous cell carcinoma under the microscope, H&E",
        ),
    }
    return known
