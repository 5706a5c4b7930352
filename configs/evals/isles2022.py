"""ISLES 2022: stroke lesions in DWI and ADC, all subjects with public masks."""

import ml_collections


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "ISLES 2022"
    known.page = "https://doi.org/10.5281/zenodo.7153326"
    known.licence = "CC BY 4.0"
    known.files = (
        ("sub-*/ses-*/dwi/*_dwi.nii.gz|rawdata/sub-*/ses-*/dwi/*_dwi.nii.gz", "diffusion-weighted volumes"),
        ("derivatives/sub-*/ses-*/*_msk.nii.gz", "lesion masks"),
    )
    known.build = (
        "--source=isles",
        "--option=ids=keep",
        "--split=test",
    )
    known.split = "test"
    known.kinds = ("mask", "box", "point", "crop", "none")
    known.metrics = (
        "region/mask/macro",
        "region/mask/within_image",
        "region/box/macro",
        "region/box/within_image",
        "region/point/macro",
        "region/point/within_image",
    )
    return known
