"""NIH ChestX-ray14: findings of the official test list, and the findings in its boxes."""

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
        ("**/*.png", "images"),
    )
    known.build = (
        "--source=csv_boxes",
        "--option=name=nih_cxr14",
        "--option=ids=keep",
    )
    known.split = "test"
    known.kinds = ("box", "point", "crop", "none")
    known.metrics = (
        "image/nih_cxr14/auroc",
        "image/nih_cxr14/map",
        "region/box/within_dataset",
        "region/point/within_dataset",
        "region/crop/within_dataset",
    )
    return known
