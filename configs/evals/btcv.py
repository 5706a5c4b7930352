"""BTCV: thirteen abdominal organs, all scans with public labels."""

import ml_collections

from configs.evals import ABDOMEN, REGION_KINDS, REGION_METRICS, asked

ORGANS = ABDOMEN | {"portal_vein_and_splenic_vein": "portal vein and splenic vein"}


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "BTCV"
    known.page = "https://www.synapse.org/Synapse:syn3193805/wiki/217789"
    known.licence = "after registration with Synapse, not to be passed on"
    known.files = (
        ("Training/img/*.nii.gz|img/*.nii.gz|imagesTr/*.nii.gz", "volumes", 30),
        ("Training/label/*.nii.gz|label/*.nii.gz|labelsTr/*.nii.gz", "label maps", 30),
    )
    known.build = (
        "--source=btcv",
        "--option=ids=keep",
        "--split=test",
    )
    known.split = "test"
    known.kinds = REGION_KINDS
    known.metrics = REGION_METRICS
    known.sentences = asked(ORGANS, "the {name}", "the {name} in a CT scan of the abdomen")
    return known
