"""MedMNIST (Yang et al., Sci Data 2023), the official test part of one of its sets: `medmnist.py:bloodmnist`.

The file of 28 pixels is taken, that of another size by its name: `medmnist.py:bloodmnist_224`. Of the 3-D sets, whose
volumes these models do not read, the three middle slices are asked, and their mean embedding (metrics `group_...`).
AdrenalMNIST3D and VesselMNIST3D are volumes of shapes, TissueMNIST and SynapseMNIST3D are crops: expect little.
"""

import ml_collections

from configs.evals import asked, classes, image_metrics
from medp_clip_jax.errors import InputError

SLICES = 3
ORGANS = {
    "urinary_bladder": "urinary bladder", "femur_left": "left femur", "femur_right": "right femur", "heart": "heart",
    "kidney_left": "left kidney", "kidney_right": "right kidney", "liver": "liver", "lung_left": "left lung",
    "lung_right": "right lung", "pancreas": "pancreas", "spleen": "spleen",
}  # fmt: skip
ORDER_3D = (
    "liver", "kidney_right", "kidney_left", "femur_right", "femur_left", "urinary_bladder", "heart", "lung_right",
    "lung_left", "spleen", "pancreas",
)  # fmt: skip
ON_CT = ("a CT scan of the {name}", "the {name} on CT")
# Set -> modality, anatomy, images of the test part (0 where versions differ), sentences, classes in their order.
SETS = {
    "pathmnist": (
        "histopathology", "colon", 7180, ("a histology image of {name}", "{name} in colorectal tissue, H&E"),
        {
            "adipose_tissue": "adipose tissue",
            "background_of_a_slide": "slide background",
            "tissue_debris": "debris",
            "lymphocytes_in_tissue": "lymphocytes",
            "mucus": "mucus",
            "smooth_muscle": "smooth muscle",
            "colon_mucosa": "normal colon mucosa",
            "tumor_stroma": "cancer-associated stroma",
            "colorectal_adenocarcinoma_epithelium": "colorectal adenocarcinoma epithelium",
        },
    ),
    "chestmnist": (
        "chest x-ray", "chest", 22433, ("a chest x-ray with {name}", "{name} on a chest radiograph"),
        {
            "atelectasis": "atelectasis",
            "cardiomegaly": "cardiomegaly",
            "pleural_effusion": "pleural effusion",
            "lung_infiltrate": "an infiltrate in the lung",
            "lung_mass": "a mass in the lung",
            "lung_nodule": "a nodule in the lung",
            "pneumonia": "pneumonia",
            "pneumothorax": "pneumothorax",
            "consolidation": "consolidation of the lung",
            "pulmonary_edema": "pulmonary edema",
            "emphysema": "emphysema",
            "pulmonary_fibrosis": "pulmonary fibrosis",
            "pleural_thickening": "pleural thickening",
            "hiatal_hernia": "a hiatal hernia",
        },
    ),
    "dermamnist": (
        "dermoscopy", "skin", 2005, ("a dermoscopic image of {name}", "{name} of the skin, dermoscopy"),
        {
            "actinic_keratosis": "an actinic keratosis",
            "basal_cell_carcinoma": "a basal cell carcinoma",
            "benign_keratosis": "a benign keratosis",
            "dermatofibroma": "a dermatofibroma",
            "melanoma": "a melanoma",
            "melanocytic_nevus": "a melanocytic nevus",
            "vascular_skin_lesion": "a vascular lesion",
        },
    ),
    "octmnist": (
        "optical coherence tomography", "retina", 1000, ("an OCT scan of a retina with {name}", "{name} on OCT"),
        {
            "choroidal_neovascularization": "choroidal neovascularization",
            "macular_edema": "diabetic macular edema",
            "drusen": "drusen",
            "normal_retina": "no disease",
        },
    ),
    "pneumoniamnist": (
        "chest x-ray", "chest", 624, ("a chest x-ray of a child {name}", "a radiograph of the lungs {name}"),
        {"no_pneumonia": "without pneumonia", "pneumonia": "with pneumonia"},
    ),
    "retinamnist": (
        "colour fundus photography", "eye", 400, ("a fundus photograph of an eye with {name}", "a retina with {name}"),
        {
            "no_diabetic_retinopathy": "no diabetic retinopathy",
            "mild_diabetic_retinopathy": "mild nonproliferative diabetic retinopathy",
            "moderate_diabetic_retinopathy": "moderate nonproliferative diabetic retinopathy",
            "severe_diabetic_retinopathy": "severe nonproliferative diabetic retinopathy",
            "proliferative_diabetic_retinopathy": "proliferative diabetic retinopathy",
        },
    ),
    "breastmnist": (
        "ultrasound", "breast", 156, ("a breast ultrasound with {name}", "{name} on ultrasound"),
        {
            "malignant_breast_tumor": "a malignant tumor",
            "normal_or_benign_breast_tissue": "normal tissue or a benign lesion",
        },
    ),
    "bloodmnist": (
        "light microscopy (blood smear)", "blood", 3421, ("a blood smear with {name}", "{name} under the microscope"),
        {
            "basophil": "a basophil",
            "eosinophil": "an eosinophil",
            "erythroblast": "an erythroblast",
            "immature_granulocyte": "an immature granulocyte",
            "lymphocyte": "a lymphocyte",
            "monocyte": "a monocyte",
            "neutrophil": "a neutrophil",
            "platelet": "a platelet",
        },
    ),
    "tissuemnist": (
        "fluorescence microscopy", "kidney", 47280, ("{name} of the kidney cortex", "a microscopy image of {name}"),
        {
            "collecting_duct_or_connecting_tubule_cell": "a cell of a collecting duct or connecting tubule",
            "distal_convoluted_tubule_cell": "a cell of a distal convoluted tubule",
            "glomerular_endothelial_cell": "a glomerular endothelial cell",
            "interstitial_endothelial_cell": "an interstitial endothelial cell",
            "leukocyte_in_kidney": "a leukocyte",
            "podocyte": "a podocyte",
            "proximal_tubule_cell": "a cell of a proximal tubule segment",
            "thick_ascending_limb_cell": "a cell of a thick ascending limb",
        },
    ),
    "organamnist": ("ct", "abdomen", 17778, ON_CT, ORGANS),
    "organcmnist": ("ct", "abdomen", 0, ON_CT, ORGANS),
    "organsmnist": ("ct", "abdomen", 0, ON_CT, ORGANS),
    "organmnist3d": ("ct", "abdomen", 610, ON_CT, {label: ORGANS[label] for label in ORDER_3D}),
    "nodulemnist3d": (
        "ct", "chest", 310, ("a chest CT scan with {name}", "{name} in the lung"),
        {"benign_lung_nodule": "a benign nodule", "malignant_lung_nodule": "a malignant nodule"},
    ),
    "adrenalmnist3d": (
        "ct (shape)", "abdomen", 298, ("the shape of {name}", "{name}"),
        {"normal_adrenal_gland": "a normal adrenal gland", "adrenal_hyperplasia": "a hyperplastic adrenal gland"},
    ),
    "fracturemnist3d": (
        "ct", "chest", 240, ("a CT scan of a rib with {name}", "{name} of a rib"),
        {
            "buckle_rib_fracture": "a buckle fracture",
            "nondisplaced_rib_fracture": "a nondisplaced fracture",
            "displaced_rib_fracture": "a displaced fracture",
        },
    ),
    "vesselmnist3d": (
        "mr angiography (shape)", "brain", 382, ("the shape of {name}", "{name} of the brain"),
        {"healthy_brain_vessel": "a healthy vessel", "intracranial_aneurysm": "an aneurysm"},
    ),
    "synapsemnist3d": (
        "electron microscopy", "brain", 352, ("an electron microscopy image of {name}", "{name} of a neuron"),
        {"inhibitory_synapse": "an inhibitory synapse", "excitatory_synapse": "an excitatory synapse"},
    ),
}  # fmt: skip


def get_eval(name: str = "pathmnist") -> ml_collections.ConfigDict:
    called, _, size = name.partition("_")
    if called not in SETS:
        raise InputError(f"no set {called!r} of MedMNIST is defined here: expected one of {', '.join(SETS)}")
    volumes = called.endswith("3d")
    sizes = ("28", "64") if volumes else ("28", "64", "128", "224")
    if size and size not in sizes[1:]:
        raise InputError(f"{name!r}: expected {called}, which is of {sizes[0]} px, or {called}_SIZE of {sizes[1:]}")
    modality, anatomy, images, templates, names = SETS[called]
    known = ml_collections.ConfigDict()
    known.title = name
    known.page = "https://medmnist.com"
    known.licence = "CC BY 4.0, DermaMNIST CC BY-NC 4.0"
    known.files = (
        (f"{name}.npz", f"the set of {size or sizes[0]} px; others: --eval=configs/evals/medmnist.py:{called}_SIZE"),
    )
    known.build = (
        "--source=arrays",
        f"--option=name={called}",
        f"--option=modality={modality}",
        f"--option=anatomy={anatomy}",
        f"--option=files={name}.npz",
        classes({str(number): label for number, label in enumerate(names)}),
        *([f"--option=slices={SLICES}"] if volumes else []),
    )
    known.split = "test"
    known.images = images * (SLICES if volumes else 1)
    known.kinds = ("none",)
    known.metrics = image_metrics(called)
    if volumes:
        known.metrics = tuple(metric.replace(f"/{called}/", f"/{called}/group_") for metric in image_metrics(called))
    if called == "chestmnist":  # any number of findings per image
        known.metrics = (f"image/{called}/auroc", f"image/{called}/map")
    known.sentences = asked(names, *templates)
    return known
