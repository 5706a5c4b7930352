"""MedMNIST (Yang et al., Sci Data 2023), the official test part of one of its 2-D sets: `medmnist.py:bloodmnist`.

TissueMNIST and RetinaMNIST are left out: kidney cells of eight kinds and grades 0 to 4 have no names that images show.
"""

import ml_collections

from configs.evals import classes, image_metrics
from medp_clip_jax.errors import InputError

ORGANS = (
    "urinary bladder", "left femur", "right femur", "heart", "left kidney", "right kidney", "liver", "left lung",
    "right lung", "pancreas", "spleen",
)  # fmt: skip
# Set -> modality, anatomy, what its classes are called by number.
SETS = {
    "pathmnist": (
        "histopathology", "colon",
        ("adipose tissue", "background of a slide", "tissue debris", "lymphocytes in tissue", "mucus", "smooth muscle",
         "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    ),
    "chestmnist": (
        "chest x-ray", "chest",
        ("atelectasis", "cardiomegaly", "pleural effusion", "lung infiltrate", "lung mass", "lung nodule", "pneumonia",
         "pneumothorax", "consolidation", "pulmonary edema", "emphysema", "pulmonary fibrosis", "pleural thickening",
         "hiatal hernia"),
    ),
    "dermamnist": (
        "dermoscopy", "skin",
        ("actinic keratosis", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma",
         "melanocytic nevus", "vascular skin lesion"),
    ),
    "octmnist": (
        "optical coherence tomography", "retina",
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal retina"),
    ),
    "pneumoniamnist": ("chest x-ray", "chest", ("no pneumonia", "pneumonia")),
    "breastmnist": ("ultrasound", "breast", ("malignant breast tumor", "normal or benign breast tissue")),
    "bloodmnist": (
        "light microscopy (blood smear)", "blood",
        ("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil",
         "platelet"),
    ),
    "organamnist": ("ct", "abdomen", ORGANS),
    "organcmnist": ("ct", "abdomen", ORGANS),
    "organsmnist": ("ct", "abdomen", ORGANS),
}  # fmt: skip


def get_eval(name: str = "pathmnist") -> ml_collections.ConfigDict:
    if name not in SETS:
        raise InputError(f"no set {name!r} of MedMNIST is defined here: expected one of {', '.join(SETS)}")
    modality, anatomy, names = SETS[name]
    known = ml_collections.ConfigDict()
    known.title = name
    known.page = "https://medmnist.com"
    known.licence = "CC BY 4.0, DermaMNIST CC BY-NC 4.0"
    known.files = ((f"{name}.npz|{name}_64.npz|{name}_128.npz|{name}_224.npz", "the set, of one size"),)
    known.build = (
        "--source=arrays",
        f"--option=name={name}",
        f"--option=modality={modality}",
        f"--option=anatomy={anatomy}",
        f"--option=files={name}*.npz",
        classes({str(number): label for number, label in enumerate(names)}),
    )
    known.split = "test"
    known.kinds = ("none",)
    many = name == "chestmnist"  # any number of findings per image
    known.metrics = (f"image/{name}/auroc", f"image/{name}/map") if many else image_metrics(name)
    return known
