"""NCT-CRC: nine tissues of colorectal cancer, in the 7,180 images of patients of their own (CRC-VAL-HE-7K).

Groups are images, so that intervals are too narrow: which of the 50 patients one is of, neither names nor a table say.
"""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "CRC-VAL-HE-7K"
    known.page = "https://zenodo.org/records/1214456"
    known.licence = "CC BY 4.0"
    known.files = (
        ("ADI/*", "images of adipose tissue"),
        ("BACK/*", "images of slide background"),
        ("DEB/*", "images of debris"),
        ("LYM/*", "images of lymphocytes"),
        ("MUC/*", "images of mucus"),
        ("MUS/*", "images of smooth muscle"),
        ("NORM/*", "images of normal colon mucosa"),
        ("STR/*", "images of cancer-associated stroma"),
        ("TUM/*", "images of colorectal adenocarcinoma epithelium"),
    )
    known.build = (
        "--source=class_folders",
        "--option=name=nct_crc",
        "--option=modality=histopathology",
        "--option=anatomy=colon",
        "--option=classes=ADI=adipose tissue,BACK=slide background,DEB=debris,LYM=lymphocytes,MUC=mucus,"
        "MUS=smooth muscle,NORM=normal colon mucosa,STR=cancer-associated stroma,"
        "TUM=colorectal adenocarcinoma epithelium",
        "--split=test",
    )
    known.split = "test"
    known.images = 7180
    known.kinds = ("none",)
    known.metrics = image_metrics("nct_crc")
    known.sentences = {
        "adipose_tissue": (
            "a histology image of adipose tissue",
            "adipose tissue in colorectal tissue, H&E",
        ),
        "slide_background": (
            "a histology image of slide background",
            "slide background in colorectal tissue, H&E",
        ),
        "debris": (
            "a histology image of debris",
            "debris in colorectal tissue, H&E",
        ),
        "lymphocyte": (
            "a histology image of lymphocytes",
            "lymphocytes in colorectal tissue, H&E",
        ),
        "mucus": (
            "a histology image of mucus",
            "mucus in colorectal tissue, H&E",
        ),
        "smooth_muscle": (
            "a histology image of smooth muscle",
            "smooth muscle in colorectal tissue, H&E",
        ),
        "colon_mucosa": (
            "a histology image of normal colon mucosa",
            "normal colon mucosa in colorectal tissue, H&E",
        ),
        "tumor_stroma": (
            "a histology image of cancer-associated stroma",
            "cancer-associated stroma in colorectal tissue, H&E",
        ),
        "colorectal_adenocarcinoma_epithelium": (
            "a histology image of colorectal adenocarcinoma epithelium",
            "colorectal adenocarcinoma epithelium in colorectal tissue, H&E",
        ),
    }
    return known
