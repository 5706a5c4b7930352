"""Captions: the layouts of ROCO, ROCOv2 and PMC-OA, articles as groups, rows that cannot be read told one by one."""

import json

import pytest

from data.sources.captions import open_captions
from medp_clip_jax.errors import InputError
from tests.sources_cases import examples, marked, opened, save, told


def captions(source, split="train"):
    return {example.image_id: example.caption for example in examples(source, split)}


def test_roco(tmp_path, capsys):
    folder = tmp_path / "roco"
    for split, number in (("train", 2), ("validation", 7), ("test", 1)):
        place = folder / f"data/{split}/radiology"
        save(place / f"images/ROCO_{number:05}.jpg", marked(number)[0])
        save(place / f"images/ROCO_{number + 50:05}.jpg", marked(number)[0])
        text = f'ROCO_{number:05}\t Axial "MRI.\nROCO_{number + 50:05}\t Another, with comma.\n'
        (place / "captions.txt").write_text(text)
        link = "wget -r ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/8d/34/PMC46.tar.gz -P /path"
        (place / "dlinks.txt").write_text(
            "".join(f"ROCO_{n:05}\t{link}\tcro-g{n}.jpg\n" for n in (number, number + 50))
        )
    source = opened(open_captions, folder, only="")
    assert captions(source, "val") == {"ROCO_00007": 'Axial "MRI.', "ROCO_00057": "Another, with comma."}
    assert {example.group for example in examples(source, "train")} == {"PMC46"}
    assert [line for line in told(capsys) if "groups lie in several splits" not in line] == []


def test_roco_v2_and_kaggle(tmp_path, capsys):
    folder = tmp_path / "v2"
    save(folder / "train/ROCOv2_2023_train_000001.jpg", marked()[0])
    save(folder / "valid_images/ROCOv2_2023_valid_000001.jpg", marked()[0])
    (folder / "train_captions.csv").write_text('ID,Caption\nROCOv2_2023_train_000001,"Head CT,\nleft\tparotitis."\n')
    (folder / "valid_captions.csv").write_text("ID,Caption\nROCOv2_2023_valid_000001,Chest\n")
    source = opened(open_captions, folder, only="")
    assert captions(source) == {"ROCOv2_2023_train_000001": "Head CT, left parotitis."}
    assert captions(source, "val") == {"ROCOv2_2023_valid_000001": "Chest"}
    kaggle = tmp_path / "kaggle"
    save(kaggle / "all_data/train/radiology/images/PMC5_a.jpg", marked()[0])
    (kaggle / "all_data/train/radiologytraindata.csv").write_text("id,name,caption\nROCO_1,PMC5_a.jpg,Words\n")
    (example,) = examples(opened(open_captions, kaggle))
    assert (example.image_id, example.group, example.caption) == ("PMC5_a.jpg", "PMC5", "Words")
    assert not told(capsys)


def test_pmc_oa(tmp_path, capsys):
    folder = tmp_path / "pmc_oa"
    rows = []
    for name in ("PMC212319_Fig3_4.jpg", "PMC212319_Fig3_5.jpg", "PMC9_Fig1.jpg"):
        save(folder / "caption_T060_filtered_top4_sep_v0_subfigures" / name, marked()[0])
        rows.append({"image": name, "caption": "A. Real time image", "alignment_type": "s", "alignment_score": 0.9})
    (folder / "pmc_oa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = examples(opened(open_captions, folder))
    assert [example.group for example in found] == ["PMC212319", "PMC212319", "PMC9"] and not told(capsys)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_any_table_its_encoding_and_its_bad_rows(tmp_path, capsys, suffix):
    folder = tmp_path / "set"
    for i in range(6):
        save(folder / f"{i}.png", marked(i)[0])
    rows = [
        ("0.png", "naïve"),
        ("1.png", ""),
        ("", "x"),
        ("0.png", "again"),
        ("9.png", "gone"),
        ("5.png", "x" * 200_000),
    ]
    if suffix == ".jsonl":
        lines = [json.dumps({"image": image, "caption": text}, ensure_ascii=False) for image, text in rows] + [
            "{",
            "[1]",
        ]
        wrong = b'{"image": "4.png", "caption": "caf\xe9"}'
    else:
        mark = "," if suffix == ".csv" else "\t"
        lines = [mark.join(row) for row in [("image", "caption"), *rows]]
        wrong = f"4.png{mark}caf".encode() + b"\xe9"
    (folder / f"table{suffix}").write_bytes("\r\n".join(["\ufeff" + lines[0], *lines[1:]]).encode() + b"\r\n" + wrong)
    assert captions(opened(open_captions, folder)) == {"0.png": "naïve", "5.png": "x" * 200_000}
    reasons = ["no caption", "no image path", "image_id used twice", "missing image", "not UTF-8"]
    reasons += ["not JSON", "not JSON"] if suffix == ".jsonl" else []
    lines = told(capsys)
    for reason in reasons:
        lines.remove(next(line for line in lines if f": {reason}: " in line and line.startswith("skipped: ")))
    assert not lines


def test_columns_without_header_and_errors(tmp_path):
    folder = tmp_path / "set"
    save(folder / "pics/a.png", marked()[0])
    (folder / "x.csv").write_text("a,first,second\n")
    options = {"columns": "file,short,long", "image": "file", "caption": "long", "images": "pics"}
    assert captions(opened(open_captions, folder, **options)) == {"a": "second"}
    assert captions(opened(open_captions, folder / "x.csv", **options)) == {"a": "second"}
    for changed, message in (
        ({"caption": "none"}, "no column for the caption: expected none, found file, short, long"),
    ):
        with pytest.raises(InputError, match=message):
            opened(open_captions, folder, **options | changed)
    (folder / "y.csv").write_text("image,caption\n")
    with pytest.raises(InputError, match="2 tables there"):
        opened(open_captions, folder)
    with pytest.raises(InputError, match="no such folder or file"):
        opened(open_captions, tmp_path / "none")
