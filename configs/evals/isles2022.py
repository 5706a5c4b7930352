"""ISLES 2022: stroke lesions in DWI and ADC, all subjects with public masks.

The release of the article has the volumes in folders of a session (dwi, anat), that of the challenge directly in it and
below rawdata.
"""

import ml_collections

from configs.evals import REGION_KINDS, REGION_METRICS


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "ISLES 2022"
    known.page = "https://doi.org/10.5281/zenodo.7153326"
    known.licence = "CC BY 4.0"
    known.files = (
        ("sub-*/ses-*/**/*_dwi.nii.gz|rawdata/sub-*/ses-*/**/*_dwi.nii.gz", "diffusion-weighted volumes", 250),
        (
            "sub-*/ses-*/**/*_adc.nii.gz|rawdata/sub-*/ses-*/**/*_adc.nii.gz",
            "their maps of the diffusion coefficient",
            250,
        ),
        ("derivatives/sub-*/ses-*/*_msk.nii.gz", "lesion masks", 250),
    )
    known.build = (
        "--source=isles",
        "--option=ids=keep",
        "--split=test",
    )
    known.split = "test"
    known.kinds = REGION_KINDS
    known.metrics = REGION_METRICS
    known.sentences = {
        "stroke_lesion": ("an ischemic stroke lesion of the brain", "a diffusion MRI scan showing an infarct"),
    }
    return known
