"""PatchCamelyon (arXiv 1806.03962): metastatic tissue or not? The official test part."""

import ml_collections

from configs.evals import image_metrics


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "PatchCamelyon"
    known.page = "https://github.com/basveeling/pcam"
    known.licence = "CC0"
    known.files = (
        ("**/camelyonpatch_level_2_split_test_x.h5", "the test part's images (unpack the .gz)"),
        ("**/camelyonpatch_level_2_split_test_y.h5", "the test part's labels (unpack the .gz)"),
    )
    known.build = (
        "--source=arrays",
        "--option=name=pcam",
        "--option=modality=histopathology",
        "--option=anatomy=lymph node",
        "--option=files=**/camelyonpatch_level_2_split_test_x.h5",
        "--option=classes=0=lymph node tissue without metastasis,1=lymph node metastasis",
        "--split=test",
    )
    known.split = "test"
    known.images = 32768
    known.kinds = ("none",)
    known.metrics = image_metrics("pcam")
    known.sentences = {
        "lymph_node_tissue_without_metastasis": (
            "a histology image of lymph node tissue without a tumor",
            "normal lymphoid tissue, H&E",
        ),
        "lymph_node_metastasis": (
            "a histology image of lymph node tissue with a metastasis",
            "metastatic breast cancer in a lymph node, H&E",
        ),
    }
    return known
