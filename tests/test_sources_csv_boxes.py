"""Tables of boxes: NIH's own layout with its odd header, patients only as hashes, bad rows one line each."""

import re

import dicom_cases
import numpy as np
import pytest

from data import privacy
from data.sources.csv_boxes import open_csv_boxes
from medp_clip_jax.errors import InputError
from medp_clip_jax.readers import read_image
from medp_clip_jax.records import decode_image
from tests.sources_cases import examples, marked, opened, save, told

ENTRY = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
BOX = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
IMAGES = ("00000013_005.png", "00000013_006.png", "00000022_000.png", "00000030_001.png")


@pytest.fixture(autouse=True)
def salt(tmp_path, monkeypatch):
    (tmp_path / "salt").write_bytes(b"0123456789abcdef")
    monkeypatch.setenv(privacy.ENVIRONMENT, str(tmp_path / "salt"))
    return b"0123456789abcdef"


def write_nih(folder, size=1024, bom="", end="\n"):
    for i, name in enumerate(IMAGES):
        pixels, _ = marked(i, size, size)
        pixels[pixels < 200] = i  # noise of that size takes long to encode
        save(folder / f"images_00{i % 2 + 1}/images/{name}", pixels)
    entries = [ENTRY] + [
        f"{name},{labels},0,{int(name[:8])},57,M,{view},2682,2749,0.143,0.143,"
        for name, labels, view in zip(
            IMAGES, ("Spleen|Liver", "No Finding", "Liver", "No Finding"), ("PA", "AP", "PA", "PA"), strict=True
        )
    ]
    boxes = [BOX, f"{IMAGES[0]},Spleen,2.0,4.0,7.0,6.0,,,", f"{IMAGES[2]},Liver,225.08,547.01,86.77,79.18,,,"]
    for name, lines in (("Data_Entry_2017.csv", entries), ("BBox_List_2017.csv", boxes)):
        (folder / name).write_bytes((bom + end.join(lines) + end).encode())
    (folder / "train_val_list.txt").write_text("\n".join(IMAGES[:3]) + "\n")
    (folder / "test_list.txt").write_text(IMAGES[3] + "\n")
    return folder


@pytest.mark.parametrize(("bom", "end"), [("", "\n"), ("\ufeff", "\r\n")])
def test_nih_as_published(tmp_path, salt, capsys, bom, end):
    source = opened(open_csv_boxes, write_nih(tmp_path / "CXR8", bom=bom, end=end))
    assert source.name == "nih_cxr14" and "NIH" in source.provenance["licence"]
    found = examples(source)
    assert [example.image_labels for example in found] == [
        ("spleen", "liver"),
        ("no_finding",),
        ("liver",),
        ("no_finding",),
    ]
    assert [[(r.label, r.box, r.rle) for r in example.regions] for example in found] == [
        [("spleen", (2.0, 4.0, 9.0, 10.0), b"")],
        [],
        [("liver", pytest.approx((225.08, 547.01, 311.85, 626.19)), b"")],
        [],
    ]
    assert found[0].modality == "chest x-ray" and found[0].view == "posteroanterior"
    assert found[0].group == found[1].group == privacy.group_hash("nih_cxr14", "13", salt) != found[2].group
    assert not told(capsys)


def test_images_without_a_finding_can_be_without_a_label(tmp_path):
    found = examples(opened(open_csv_boxes, write_nih(tmp_path / "CXR8"), normal="No Finding"))
    assert [example.image_labels for example in found] == [("spleen", "liver"), (), ("liver",), ()]


def test_the_marker_of_a_box_stays_on_the_left(tmp_path):
    example = examples(opened(open_csv_boxes, write_nih(tmp_path / "CXR8")))[0]
    rows, columns = np.nonzero(decode_image(example.image)[..., 0] > 200)
    (region,) = example.regions
    assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_official_test_list_and_patients_in_one_split(tmp_path):
    source = opened(open_csv_boxes, write_nih(tmp_path / "CXR8"), only="")
    homes = {row.image_id: split for split, part in source.items.items() for row in part.items}
    hashed = [privacy.group_hash("nih_cxr14", name, b"0123456789abcdef") for name in IMAGES]
    assert homes[hashed[3]] == "test" and homes[hashed[0]] == homes[hashed[1]] != "test"


def test_no_identifier_is_stored_or_told(tmp_path, capsys):
    folder = write_nih(tmp_path / "CXR8")
    (folder / "images_001/images" / IMAGES[0]).unlink()
    (folder / "images_002/images" / IMAGES[1]).write_bytes(b"no image")
    with (folder / "BBox_List_2017.csv").open("a") as file:
        file.write("00009999_000.png,Liver,1,1,5,5,,,\n" + f"{IMAGES[2]},Liver,1,1,5000,5,,,\n")
    found = examples(opened(open_csv_boxes, folder))
    lines = told(capsys)
    assert len(found) == 2 and len(lines) == 4 and all(line.startswith("skipped: ") for line in lines)
    text = "\n".join(lines) + repr([(e.image_id, e.group, e.caption) for e in found])
    assert not re.search(r"000000(13|22|30)|00009999", text), text
    assert re.search(r"BBox_List_2017\.csv:4: region of an unknown image", text)
    assert re.search(r"Data_Entry_2017\.csv:2: [0-9a-f]{16}: missing image: its image", text)
    kept = examples(opened(open_csv_boxes, folder, ids="keep"))
    assert [example.image_id for example in kept] == [IMAGES[2], IMAGES[3]] and kept[0].group == "22"


def test_boxes_of_a_scaled_copy_are_refused(tmp_path, capsys):
    found = examples(opened(open_csv_boxes, write_nih(tmp_path / "CXR8", size=224)))
    assert len(found) == 4 and not any(example.regions for example in found)
    lines = told(capsys)
    assert len(lines) == 2 and all("image of another size" in line for line in lines)


FORMS = {
    "corners": ("image_id,class_name,x_min,y_min,x_max,y_max\n", "2,4,9,10"),
    "numbered corners": ("filename,label,x1,y1,x2,y2\n", "2,4,9,10"),
    "extents": ("image,label,x,y,width,height\n", "2,4,7,6"),
}


@pytest.mark.parametrize("name", FORMS)
def test_any_table_with_a_box_a_row(name, tmp_path, capsys):
    header, box = FORMS[name]
    folder = tmp_path / "set"
    for stem in ("a", "b"):
        save(folder / f"png/{stem}.png", marked()[0])
    (folder / "train.csv").write_text(
        header + f"a,liver,{box}\na,spleen,{box}\nb,No finding,,,,\nb,no finding,nan,nan,nan,nan\n"
    )
    first, second = examples(opened(open_csv_boxes, folder, ids="keep"))
    assert [(region.label, region.box) for region in first.regions] == [
        (label, (2, 4, 9, 10)) for label in ("liver", "spleen")
    ]
    assert second.regions == () and second.image_labels == ("no_finding",) and first.image_id == "a"
    assert not told(capsys)


BAD = {
    "not a number": ("a,liver,x,4,9,10", "liver: not a box: expected four numbers, got x, 4, 9, 10"),
    "empty": ("a,liver,9,4,2,10", "liver: empty box"),
    "outside": ("a,liver,9,4,99,10", "liver: box outside the image"),
    "half a box": ("a,liver,9,4,,", "liver: not a box"),
    "no label": ("a,,2,4,9,10", ": region without a label"),
    "no image": (",liver,2,4,9,10", "table.csv:3: no image path"),
    "infinite": ("a,liver,2,4,inf,10", "liver: not a box"),
    "short row": ("a,liver,2", "liver: not a box"),
    "not UTF-8": (b"a,l\xefver,2,4,9,10", "table.csv:3: not UTF-8: convert the file, or name its encoding"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_line(name, tmp_path, capsys):
    row, message = BAD[name]
    folder = tmp_path / "set"
    save(folder / "a.png", marked()[0])
    lines = [b"image,label,xmin,ymin,xmax,ymax", b"a,liver,2,4,9,10", row if isinstance(row, bytes) else row.encode()]
    (folder / "table.csv").write_bytes(b"\r\n".join(lines))
    (example,) = examples(opened(open_csv_boxes, folder, ids="keep"))
    (line,) = told(capsys)
    assert len(example.regions) == 1 and line.startswith("skipped: ") and re.search(message, line), line
    if name == "not UTF-8":
        (example,) = examples(opened(open_csv_boxes, folder, ids="keep", encoding="latin-1"))
        assert len(example.regions) == 2


def test_what_is_missing_is_said(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for content, options, message in (
        (None, {}, "holds 0 .csv files"),
        ("image,label,x,y\na,b,1,2\n", {}, "no columns for the box: .*found image, label, x, y"),
        ("x,y,w,h\n1,2,3,4\n", {}, "no column for the image: .*found x, y, w, h"),
        ("image,x,y,w,h\na,1,2,3,4\n", {}, "no column for the label"),
        ("", {}, "has no header line"),
        ("image,label,x,y,w,h\n", {"boxes": "other.csv"}, "no such file"),
        ("image,label,x,y,w,h\n", {"ids": "none"}, "expected one of hash, keep"),
        ("image,label,x,y,w,h\n", {"encoding": "klingon"}, "table.csv: cannot be read"),
    ):
        if content is not None:
            (folder / "table.csv").write_text(content)
        with pytest.raises(InputError, match=message) as caught:
            opened(open_csv_boxes, folder, **options)
        assert "\n" not in str(caught.value)


def test_a_column_says_whether_the_label_is_there(tmp_path, capsys):
    for i, name in enumerate(("a", "b", "c")):
        dicom_cases.save(dicom_cases.slices(modality="DX")[i], tmp_path / f"set/images/{name}.dcm")
    lines = ["patientId,x,y,width,height,Target", "a,1,2,3,4,1", "a,4,2,1,1,1", "b,,,,,0", "c,1,2,3,4,x", "c,1,2,3,4,0"]
    (tmp_path / "set/boxes.csv").write_text("\n".join(lines) + "\n")
    options = dict(images="images", label="pneumonia", present="Target", absent="no pneumonia", ids="keep", group="")
    with_boxes, without, third = examples(opened(open_csv_boxes, tmp_path / "set", **options))
    assert with_boxes.image_labels == ("pneumonia",) and without.image_labels == ("no_pneumonia",)
    assert [region.box for region in with_boxes.regions] == [(1, 2, 4, 6), (4, 2, 5, 3)] and not without.regions
    assert third.image_labels == ("no_pneumonia",) and not third.regions
    shown = decode_image(with_boxes.image)
    assert (shown == read_image(tmp_path / "set/images/a.dcm")).all() and shown.std() > 0
    assert all(secret.encode() not in with_boxes.image for secret in dicom_cases.SECRETS.values())
    (message,) = told(capsys)
    assert "expected 0 or 1" in message and "boxes.csv:5" in message
