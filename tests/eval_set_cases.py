"""Tiny copies of published evaluation sets, each in its exact layout: `COPIES[name](folder)` writes one."""

import json

import dicom_cases
import h5py
import numpy as np
import test_sources_csv_boxes
import test_sources_imed361m
import test_sources_samed2d
import test_sources_volumes
from sources_cases import marked, save
from volume_cases import body, nifti


def _images(folder, *paths):
    for i, path in enumerate(paths):
        save(folder / path, marked(i)[0])
    return folder


def covid_ct(folder):
    tables = {"COVID": "File name,Patient ID,Age", "NonCOVID": "image name,caption,patient id"}
    for label, names in (("COVID", ("a 1.png", "b.png", "b%1.png")), ("NonCOVID", ("1.jpg", "2.png", "3.jpg"))):
        _images(folder, *(f"Images-processed/CT_{label}/{name}" for name in names))
        for split, listed in (("train", names[:1]), ("test", names[1:])):
            path = folder / f"Data-split/{label}/{split}CT_{label}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(listed) + "\n")
        rows = [
            f"{name},Patient {i},57" if label == "COVID" else f"{name},x,Patient {i}" for i, name in enumerate(names)
        ]
        rows[2] = rows[2].replace("Patient 2", "Patient 1")
        (folder / f"{'Non' * (label == 'NonCOVID')}COVID-CT-MetaInfo.csv").write_text("\n".join([tables[label], *rows]))
    return folder


def br35h(folder):
    return _images(folder, "yes/y0.jpg", "no/no0.jpg", "pred/pred0.jpg", "Br35H-Mask-RCNN/TEST/y1.jpg")


def chest_ct(folder):
    places = {"adenocarcinoma": "left.lower.lobe_T2_N0_M0_Ib", "large.cell.carcinoma": "left.hilum_T2_N2_M0_IIIa"}
    places |= {"squamous.cell.carcinoma": "left.hilum_T1_N2_M0_IIIa"}
    for split in ("train", "valid", "test"):
        _images(folder, *(f"{split}/{kind}{'' if split == 'test' else f'_{at}'}/1.png" for kind, at in places.items()))
        _images(folder, f"{split}/normal/1 - Copy.png")
    return folder


def lc25000(part, classes):
    root = f"lung_colon_image_set/{part}_image_sets"
    return lambda folder: _images(folder, *(f"{root}/{part}_{name}/{part}{name}1.jpeg" for name in classes))


def nct_crc(folder):
    names = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
    return _images(folder, *(f"{name}/{name}-TCGA-AAICEQFN.tif" for name in names))


def totalsegmentator(file):
    def write(folder):
        image, labels = body()
        for case, split in (("s0001", "train"), ("s0002", "test")):
            test_sources_volumes.save(nifti(image), folder / f"{case}/{file}")
            for value, name in ((1, "kidney_left"), (2, "liver")):
                mask = nifti((labels == value).astype(np.uint8))
                test_sources_volumes.save(mask, folder / f"{case}/segmentations/{name}.nii.gz")
            with (folder / "meta.csv").open("a") as table:
                table.write(f"image_id;age;split\n{case};60;{split}\n" if case == "s0001" else f"{case};60;{split}\n")
        return folder

    return write


def imed361m(folder):
    test_sources_imed361m.write(folder / "BTCV")
    return folder


def samed2d(folder):
    cases = {f"ct_00--AbdomenCT1K--Case_{i:05}--x_0040": ("0000_000",) for i in range(40)}  # a tenth is the test
    found = test_sources_samed2d.write(folder, cases)
    assert json.loads((found / "SAMed2D_v1.json").read_text())
    return found


def busi(folder):
    for kind in ("benign", "malignant", "normal"):
        _images(folder, *(f"Dataset_BUSI_with_GT/{kind}/{kind} (1){end}.png" for end in ("", "_mask", "_mask_1")))
    return folder


def chexpert_5x200(folder):
    findings = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    lines = [f"Path,Sex,{','.join(findings)},Fracture"]
    for i, finding in enumerate(findings):
        path = f"CheXpert-v1.0/train/patient{i:05}/study1/view1_frontal.jpg"
        _images(folder, path)
        lines.append(f"{path},Male,{','.join(str(float(finding == other)) for other in findings)},")
    (folder / "chexpert_5x200.csv").write_text("\n".join(lines) + "\n")
    return folder


def isic2018(folder):
    names = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    lines = [f"image,{','.join(names)}"]
    for i, name in enumerate(names):
        _images(folder, f"ISIC2018_Task3_Test_Input/ISIC_00345{i}.jpg")
        lines.append(f"ISIC_00345{i},{','.join(str(float(name == other)) for other in names)}")
    table = folder / "ISIC2018_Task3_Test_GroundTruth/ISIC2018_Task3_Test_GroundTruth.csv"
    table.parent.mkdir()
    table.write_text("\n".join(lines) + "\n")
    return folder


def odir(folder):
    lines = ["ID,Patient Age,Left-Fundus,Right-Fundus,N,D,G,C,A,H,M,O,filepath,labels,target,filename"]
    for i, name in enumerate("NDGCAHMO"):
        _images(folder, f"preprocessed_images/{i}_right.jpg")
        marks = ",".join(str(int(name == other)) for other in "NDGCAHMO")
        lines.append(
            f"{i},69,{i}_left.jpg,{i}_right.jpg,{marks},../x/{i}_right.jpg,['{name}'],\"[1, 0]\",{i}_right.jpg"
        )
    (folder / "full_df.csv").write_text("\n".join(lines) + "\n")
    return folder


def mrnet(folder):
    exams = {"1130": (1, 1, 0), "1131": (1, 0, 1), "1132": (0, 0, 0)}
    for plane in ("axial", "coronal", "sagittal"):
        (folder / f"valid/{plane}").mkdir(parents=True)
        for i, exam in enumerate(exams):
            pixels = np.random.default_rng(i).integers(0, 256, (9, 20, 30), np.uint8)
            np.save(folder / f"valid/{plane}/{exam}.npy", pixels)
    for at, finding in enumerate(("abnormal", "acl", "meniscus")):
        lines = [f"{exam},{values[at]}\n" for exam, values in exams.items()]
        (folder / f"valid-{finding}.csv").write_text("".join(lines))
    return folder


def rsna_pneumonia(folder):
    lines = ["patientId,x,y,width,height,Target"]
    for i in range(40):  # a tenth is the test
        (radiograph,) = dicom_cases.slices(modality="DX")[:1]
        name = f"{i:08}-73fb-4a8b-9c47-000000000000"
        dicom_cases.save(radiograph, folder / f"stage_2_train_images/{name}.dcm")
        lines += [f"{name},2.0,3.0,4.0,5.0,1", f"{name},8.0,3.0,4.0,5.0,1"] if i % 2 else [f"{name},,,,,0"]
    (folder / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def nih_cxr14(folder):
    findings = (
        "Atelectasis|Cardiomegaly|Effusion|Infiltration", "Mass|Nodule|Pneumonia", "Pneumothorax|Consolidation|Edema",
        "Emphysema|Fibrosis|Pleural_Thickening|Hernia", "No Finding", "No Finding",
    )  # fmt: skip
    names = [f"{patient:08}_000.png" for patient in range(len(findings))]
    entries = [test_sources_csv_boxes.ENTRY]
    for i, (name, labels) in enumerate(zip(names, findings, strict=True)):
        save(folder / f"images_00{i % 2 + 1}/images/{name}", np.full((1024, 1024, 3), i, np.uint8))
        entries.append(f"{name},{labels},0,{i},57,M,PA,2682,2749,0.143,0.143,")
    boxes = [f"{names[0]},Infiltrate,2.0,4.0,7.0,6.0,,,", f"{names[1]},Mass,225.08,547.01,86.77,79.18,,,"]
    (folder / "Data_Entry_2017.csv").write_text("\n".join(entries) + "\n")
    (folder / "BBox_List_2017.csv").write_text("\n".join([test_sources_csv_boxes.BOX, *boxes]) + "\n")
    (folder / "train_val_list.txt").write_text(f"{names[-1]}\n")
    (folder / "test_list.txt").write_text("\n".join(names[:-1]) + "\n")
    return folder


def refuge(folder):
    return _images(folder, "Training400/Glaucoma/g0001.jpg", "Training400/Non-Glaucoma/n0001.jpg")


def pcam(folder):
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    for name, values in (("x", pixels), ("y", np.array([0, 1, 1, 0], np.uint8).reshape(4, 1, 1, 1))):
        with h5py.File(folder / f"camelyonpatch_level_2_split_test_{name}.h5", "w") as file:
            file[name] = values
    return folder


def medmnist(folder, name="pathmnist", classes=9, side=28):
    """An image of each class in the test part; the labels of ChestMNIST are a mark for each finding."""
    folder.mkdir(exist_ok=True)
    rng, arrays = np.random.default_rng(0), {}
    shape = (side, side, side) if "3d" in name else (side, side)
    for split, count in (("train", 3), ("val", 2), ("test", classes)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        numbers = np.arange(count) % classes
        arrays[f"{split}_labels"] = np.eye(classes)[numbers] if name == "chestmnist" else numbers[:, None]
    np.savez(folder / f"{name}{'' if side == 28 else f'_{side}'}.npz", **arrays)
    return folder


COPIES = {
    "amos": lambda folder: test_sources_volumes.write_amos(folder, "RAS"),
    "br35h": br35h,
    "btcv": lambda folder: test_sources_volumes.write_btcv(folder, "RAS"),
    "busi": busi,
    "chest_ct": chest_ct,
    "chexpert_5x200": chexpert_5x200,
    "covid_ct": covid_ct,
    "imed361m": imed361m,
    "isic2018": isic2018,
    "isles2022": lambda folder: test_sources_volumes.write_isles(folder, "RAS"),
    "lc25000_colon": lc25000("colon", ("aca", "n")),
    "lc25000_lung": lc25000("lung", ("aca", "n", "scc")),
    "medmnist": medmnist,
    "mrnet": mrnet,
    "nct_crc": nct_crc,
    "nih_cxr14": nih_cxr14,
    "odir": odir,
    "pcam": pcam,
    "refuge": refuge,
    "rsna_pneumonia": rsna_pneumonia,
    "samed2d": samed2d,
    "totalsegmentator_ct": totalsegmentator("ct.nii.gz"),
    "totalsegmentator_mri": totalsegmentator("mri.nii.gz"),
}
