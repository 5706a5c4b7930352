"""One folder per class: the folders are the labels, splits come from folders and lists, what is no class is told."""

import pytest

from data.sources.class_folders import open_class_folders
from medp_clip_jax.errors import InputError
from tests.sources_cases import examples, marked, opened, save, told


def write(folder, *paths):
    for i, path in enumerate(paths):
        save(folder / path, marked(i)[0])
    return folder


def of(source, split="train"):
    return {example.image_id: example.image_labels for example in examples(source, split)}


def test_br35h(tmp_path, capsys):
    folder = write(tmp_path / "Br35H", "yes/y0.jpg", "no/no0.jpg", "pred/pred0.jpg")
    (folder / "yes/Thumbs.db").write_bytes(b"")
    source = opened(open_class_folders, folder, classes="yes=liver,no=no finding,pred=", modality="mri")
    assert of(source) == {"yes/y0.jpg": ("liver",), "no/no0.jpg": ("no_finding",)}
    assert examples(source)[0].modality == "mri" and not told(capsys)


def test_covid_ct_with_its_lists(tmp_path, capsys):
    folder = write(
        tmp_path / "COVID-CT", "Images-processed/CT_COVID/a 1.png", "Images-processed/CT_COVID/b.png",
        "Images-processed/CT_NonCOVID/1.jpg", "Images-processed/CT_NonCOVID/extra.jpg",
    )  # fmt: skip
    for name, content in {
        "COVID/trainCT_COVID.txt": "a 1.png\r\n",
        "COVID/testCT_COVID.txt": "b.png",
        "NonCOVID/valCT_NonCOVID.txt": "1.jpg\n\n",
    }.items():
        (folder / "Data-split" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "Data-split" / name).write_text(content)
    options = {"images": "Images-processed", "classes": "CT_COVID=liver,CT_NonCOVID=no finding"}
    source = opened(open_class_folders, folder, only="", **options)
    assert {split: list(of(source, split)) for split in source.splits} == {
        "test": ["CT_COVID/b.png"], "train": ["CT_COVID/a 1.png"], "val": ["CT_NonCOVID/1.jpg"],
    }  # fmt: skip
    (line,) = told(capsys)
    assert "extra.jpg: image not in the splits: no list names it" in line


def test_chest_ct_with_splits_above_the_classes(tmp_path):
    folder = write(
        tmp_path / "chest", "Data/train/adeno_left.lower.lobe_T2/0 (6).png", "Data/valid/normal/1 - Copy.png",
        "Data/test/adeno/2.png",
    )  # fmt: skip
    options = {"classes": "adeno_left.lower.lobe_T2=liver,adeno=liver,normal=no finding"}
    for images in ({}, {"images": "Data"}):
        source = opened(open_class_folders, folder, only="", **options, **images)
        assert {split: [*of(source, split).values()] for split in source.splits} == {
            "test": [("liver",)], "train": [("liver",)], "val": [("no_finding",)],
        }  # fmt: skip


def test_splits_below_the_classes_and_deeper_folders(tmp_path):
    folder = write(tmp_path / "set", "liver/train/a.png", "liver/test/b.png", "spleen/p7/c.png", "spleen/p7/d.png")
    source = opened(open_class_folders, folder, only="", group=r"/(p\d+)/")
    assert of(source, "test").items() >= {"liver/test/b.png": ("liver",)}.items()
    groups = {row.image_id: row.group for part in source.items.values() for row in part.items}
    assert groups["spleen/p7/c.png"] == groups["spleen/p7/d.png"] == "p7" and groups["liver/train/a.png"] != "p7"


def test_numbered_folders_by_a_table(tmp_path):
    folder = write(tmp_path / "set", "0/a.png", "1/b.png")
    (folder / "classes.csv").write_text("id,name\n0,No finding\n1,liver\n")
    assert of(opened(open_class_folders, folder, classes="classes.csv")) == {
        "0/a.png": ("no_finding",),
        "1/b.png": ("liver",),
    }


def test_what_is_no_class_is_told(tmp_path, capsys):
    folder = write(tmp_path / "set", "a.png", "liver/b.png", "other/c.png", "other/d.png", "train/e.png")
    (folder / "liver/f.png").write_bytes(b"")
    assert of(opened(open_class_folders, folder, classes="liver=liver")) == {"liver/b.png": ("liver",)}
    lines = told(capsys)
    assert [line.split(": ")[2] for line in lines[:3]] == [
        "image in no class",
        "class absent from the table",
        "image in no class",
    ]
    assert "liver/f.png: unreadable image" in lines[3] and len(lines) == 4


def test_errors(tmp_path):
    folder = write(tmp_path / "set", "liver/a.png")
    with pytest.raises(InputError, match="no such file"):
        opened(open_class_folders, folder, lists="none/*.txt")
    (folder / "list.txt").write_text("a.png")
    with pytest.raises(InputError, match="its name says no split"):
        opened(open_class_folders, folder, lists="*.txt")
    with pytest.raises(InputError, match="not a pattern"):
        opened(open_class_folders, folder, lists="/*.txt")
    with pytest.raises(InputError, match="none: cannot be read"):
        opened(open_class_folders, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image of this format"):
        opened(open_class_folders, tmp_path / "empty")


def test_patients_of_a_table_are_groups(tmp_path):
    folder = write(tmp_path / "set", "yes/a.png", "yes/b.png", "no/c.png", "no/d7.png")
    (folder / "patients.csv").write_text("Image name,Patient ID\na.png,1\nb,1\nc.png,\n")
    options = {"classes": "yes=liver,no=no finding", "patients": "*.csv", "group": r"(d)\d"}
    found = {example.image_id: example.group for example in examples(opened(open_class_folders, folder, **options))}
    one = "patients/1"
    assert found == {"yes/a.png": one, "yes/b.png": one, "no/c.png": "no/c.png", "no/d7.png": "d"}
    with pytest.raises(InputError, match="patients=x.csv: no such file"):
        opened(open_class_folders, folder, **options | {"patients": "x.csv"})
    (folder / "patients.csv").write_text("Image name,who\na.png,1\n")
    with pytest.raises(InputError, match="no column for the patient: expected patientid or .* found Image name, who"):
        opened(open_class_folders, folder, **options)
