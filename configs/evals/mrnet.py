"""MRNet (PLOS Med. 2018, 15(11)): abnormality, tear of the cruciate ligament and of the meniscus, per examination."""

import ml_collections


def get_eval() -> ml_collections.ConfigDict:
    known = ml_collections.ConfigDict()
    known.title = "MRNet"
    known.page = "https://stanfordmlgroup.github.io/competitions/mrnet/"
    known.licence = "Stanford's research use agreement; not to be passed on"
    known.files = (
        ("valid-abnormal.csv", "the table of abnormal examinations"),
        ("valid-acl.csv", "the table of tears of the cruciate ligament"),
        ("valid-meniscus.csv", "the table of tears of a meniscus"),
        ("valid/axial/*.npy", "axial stacks", 120),
        ("valid/coronal/*.npy", "coronal stacks", 120),
        ("valid/sagittal/*.npy", "sagittal stacks", 120),
    )
    known.build = ("--source=mrnet", "--option=name=mrnet", "--option=ids=keep")
    known.split = "val"
    known.kinds = ("none",)
    known.metrics = ("image/mrnet/group_auroc", "image/mrnet/group_map", "image/mrnet/auroc")
    known.sentences = {
        "knee_abnormality": ("a knee MRI with an abnormality", "an abnormal MRI of the knee"),
        "acl_tear": ("a knee MRI with a tear of the anterior cruciate ligament", "an MRI of a torn ACL"),
        "meniscus_tear": ("a knee MRI with a tear of a meniscus", "an MRI of a torn meniscus"),
    }
    return known
