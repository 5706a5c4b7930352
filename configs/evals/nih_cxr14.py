"""NIH ChestX-ray14 (CVPR 2017): fourteen findings of the official test list, and the findings in its boxes.

An image that the table calls `No Finding` has none of the fourteen; the mean AUROC is over these, as it is published.
"""

import ml_collections


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "NIH ChestX-ray14"
    known.page = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
    known.licence = "free with attribution and a link to the download site"
    known.files = (
        ("Data_Entry_2017*.csv", "the table of findings"),
        ("BBox_List_2017*.csv", "the table of boxes"),
        ("test_list.txt", "the official test list"),
        ("train_val_list.txt", "the official list of the other images"),
        ("**/*.png", "images", 25596),  # of 112120: those of the test list will do
    )
    known.build = (
        "--source=csv_boxes",
        "--option=name=nih_cxr14",
        "--option=ids=keep",
        "--option=normal=No Finding",
    )
    known.split = "test"
    known.images = 25596
    known.kinds = ("box", "point", "crop", "none")
    known.metrics = (
        "image/nih_cxr14/auroc",
        "image/nih_cxr14/map",
        "region/box/within_dataset",
        "region/point/within_dataset",
        "region/crop/within_dataset",
    )
    known.sentences = {
        "atelectasis": ("a chest x-ray with atelectasis", "collapse of a part of the lung"),
        "cardiomegaly": ("a chest x-ray with cardiomegaly", "an enlarged heart"),
        "pleural_effusion": ("a chest x-ray with pleural effusion", "fluid in the pleural space"),
        "lung_infiltrate": ("a chest x-ray with an infiltrate in the lung", "a patchy opacity of the lung"),
        "lung_mass": ("a chest x-ray with a mass in the lung", "a large round opacity of the lung"),
        "lung_nodule": ("a chest x-ray with a nodule in the lung", "a small round opacity of the lung"),
        "pneumonia": ("a chest x-ray with pneumonia", "an opacity of the lung due to an infection"),
        "pneumothorax": ("a chest x-ray with pneumothorax", "air in the pleural space"),
        "consolidation": ("a chest x-ray with consolidation of the lung", "airspace consolidation"),
        "pulmonary_edema": ("a chest x-ray with pulmonary edema", "fluid in the lungs"),
        "emphysema": ("a chest x-ray with emphysema", "hyperinflated lungs"),
        "pulmonary_fibrosis": ("a chest x-ray with pulmonary fibrosis", "scarring of the lungs"),
        "pleural_thickening": ("a chest x-ray with pleural thickening", "a thickened pleura"),
        "hernia": ("a chest x-ray with a hiatal hernia", "a part of the stomach above the diaphragm"),
    }
    return known
