"""Tiny copies of published evaluation sets, each in its exact layout: `COPIES[name](folder)` writes one."""

import json

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
    for label, names in (("COVID", ("a 1.png", "b.png")), ("NonCOVID", ("1.jpg", "2.png"))):
        _images(folder, *(f"Images-processed/CT_{label}/{name}" for name in names))
        for split, name in zip(("train", "test"), names, strict=True):
            path = folder / f"Data-split/{label}/{split}CT_{label}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name}\n")
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


COPIES = {
    "amos": lambda folder: test_sources_volumes.write_amos(folder, "RAS"),
    "br35h": br35h,
    "btcv": lambda folder: test_sources_volumes.write_btcv(folder, "RAS"),
    "chest_ct": chest_ct,
    "covid_ct": covid_ct,
    "imed361m": imed361m,
    "isles2022": lambda folder: test_sources_volumes.write_isles(folder, "RAS"),
    "lc25000_colon": lc25000("colon", ("aca", "n")),
    "lc25000_lung": lc25000("lung", ("aca", "n", "scc")),
    "nct_crc": nct_crc,
    "nih_cxr14": test_sources_csv_boxes.write_nih,
    "samed2d": samed2d,
    "totalsegmentator_ct": totalsegmentator("ct.nii.gz"),
    "totalsegmentator_mri": totalsegmentator("mri.nii.gz"),
}
