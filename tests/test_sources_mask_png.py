"""Mask files: each layout finds its masks, indices and colours mean classes, palettes stay indices, damage is told."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from data.sources.class_table import read_classes
from data.sources.mask_png import open_mask_png
from medp_clip_jax.errors import InputError
from tests.sources_cases import HEIGHT, WIDTH, assert_marker_on_the_left, examples, marked, mask_of, opened, save, told

INDEXED = np.zeros((HEIGHT, WIDTH), np.uint8)
INDEXED[4:10, 2:9], INDEXED[20:25, 20:30], INDEXED[27, 35] = 1, 2, 2
PALETTE = [0, 0, 0, 200, 10, 10, 10, 200, 10]
COLOURS = np.array(PALETTE, np.uint8).reshape(3, 3)[INDEXED]
BY_VALUE, BY_COLOUR = "1=liver,2=spleen", "#c80a0a=liver,#0ac80a=spleen"


def palette_mask():
    image = Image.fromarray(INDEXED, "P")
    image.putpalette(PALETTE)
    return image


def write(folder, mask=INDEXED, path="masks/{stem}.png", images=2, image_path="images/{stem}.png", **how):
    for i in range(images):
        save(folder / image_path.format(stem=f"p{i}_1"), marked(i)[0])
        save(folder / path.format(stem=f"p{i}_1"), mask, **how)
    return folder


NOTATIONS = {
    "indices": (INDEXED, BY_VALUE),
    "16 bits": (INDEXED.astype(np.uint16), BY_VALUE),
    "palette by index": (palette_mask(), BY_VALUE),
    "palette by colour": (palette_mask(), BY_COLOUR),
    "colours": (COLOURS, BY_COLOUR),
    "colours and alpha": (np.dstack([COLOURS, np.full_like(INDEXED, 9)]), BY_COLOUR),
    "grey as colour": (np.dstack([INDEXED] * 3), BY_VALUE),
    "grey and alpha": (Image.fromarray(np.dstack([INDEXED, INDEXED]), "LA"), BY_VALUE),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NOTATIONS)
def test_all_notations_of_classes_give_the_same_regions(name, tmp_path, capsys):
    mask, classes = NOTATIONS[name]
    for example in examples(opened(open_mask_png, write(tmp_path / "set", mask), classes=classes)):
        liver, spleen = example.regions
        assert (liver.label, spleen.label) == ("liver", "spleen")
        assert_marker_on_the_left(example, liver)
        np.testing.assert_array_equal(mask_of(example, spleen), INDEXED == 2)
    assert example.image_id == "p1_1" and not told(capsys)


LAYOUTS = {
    "folders": ("images/{stem}.png", "masks/{stem}.png", {}),
    "folders, other names": ("img/{stem}.jpg", "gt/{stem}_segmentation.png", {}),
    "beside": ("{stem}.png", "{stem}_mask.png", {}),
    "beside, in folders": ("a/{stem}.png", "a/{stem}-mask.png", {}),
    "stated": ("data/{stem}.png", "truth/{stem}_GT.tif", {"images": "data", "masks": "truth/{stem}_GT.tif"}),
    "beside, stated": ("{stem}.jpg", "{stem}_x.png", {"masks": "{stem}_x.png"}),
    "mirrored folders": ("images/train/{stem}.png", "masks/train/{stem}.png", {}),
    "flat masks": ("images/a/{stem}.png", "masks/{stem}.png", {}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_are_found_in_every_layout(name, tmp_path, capsys):
    images, masks, options = LAYOUTS[name]
    folder = write(tmp_path / "set", path=masks, image_path=images)
    found = examples(opened(open_mask_png, folder, label="liver", **options))
    assert [len(example.regions) for example in found] == [1, 1] and not told(capsys)
    assert all(example.image_id.endswith("_1") for example in found)


def test_a_mask_per_class_is_named_after_it(tmp_path, capsys):
    folder = tmp_path / "set"
    for stem in ("IDRiD_01", "IDRiD_010"):
        save(folder / f"images/{stem}.jpg", marked()[0])
        for i, code in enumerate(("MA", "EX", "xx")):
            save(folder / f"truth/{i}. {code}/{stem}_{code}.tif", (INDEXED == 1).astype(np.uint8) * 255)
    options = {"masks": "truth/*/{stem}_{label}.tif", "classes": "MA=liver,EX=spleen,xx="}
    for example in examples(opened(open_mask_png, folder, **options)):
        assert [region.label for region in example.regions] == ["liver", "spleen"]
    assert not told(capsys)
    demo = tmp_path / "demo"
    save(demo / "images/amos_0006_90.png", marked()[0])
    for name in ("left_lung_000", "spleen_000", "spleen_001"):
        save(demo / f"masks/amos_0006_90_{name}.png", INDEXED)
    (example,) = examples(opened(open_mask_png, demo, masks="masks/{stem}_{label}_{n}.png"))
    assert [region.label for region in example.regions] == ["lung_left", "spleen", "spleen"]


def test_a_longer_name_keeps_its_masks(tmp_path, capsys):
    folder = tmp_path / "set"
    for stem in ("x_1", "x_10", "x_1_seg"):
        save(folder / f"images/{stem}.png", marked()[0])
    for stem in ("x_10", "x_1_seg"):
        save(folder / f"masks/{stem}.png", INDEXED)
    found = examples(opened(open_mask_png, folder, label="liver"))
    assert {example.image_id: len(example.regions) for example in found} == {"x_1": 0, "x_10": 1, "x_1_seg": 1}
    (line,) = told(capsys)
    assert line.startswith("warning: ") and "images/x_1.png: no mask of the form masks/" in line


def test_instances(tmp_path):
    folder = write(tmp_path / "set", np.where(INDEXED == 2, 2, INDEXED))
    (first, _) = examples(opened(open_mask_png, folder, classes=BY_VALUE, instances="components"))
    assert [(region.label, region.area) for region in first.regions] == [("liver", 42), ("spleen", 50), ("spleen", 1)]
    (first, _) = examples(opened(open_mask_png, folder, label="liver", instances="values"))
    assert [region.area for region in first.regions] == [42, 51]
    (first, _) = examples(opened(open_mask_png, folder, label="liver"))
    assert [region.area for region in first.regions] == [93]


def test_a_jpeg_mask_counts_from_128(tmp_path):
    noisy = np.where(INDEXED == 1, 250, 4).astype(np.uint8)
    folder = write(tmp_path / "set", noisy, path="masks/{stem}.jpg", quality=60)
    for example in examples(opened(open_mask_png, folder, label="liver")):
        mask = mask_of(example, example.regions[0])
        assert (mask ^ (INDEXED == 1)).sum() < 12 and not mask[:, 20:].any()


BAD = {
    "absent value": (
        np.where(INDEXED == 2, 9, INDEXED),
        BY_VALUE,
        "class absent from the table: .*p0_1.png has 9: ",
        1,
    ),
    "absent colour": (COLOURS + 1, BY_COLOUR, "class absent from the table: .* has #010101, ", 0),
    "colours, no table": (COLOURS, BY_VALUE, "colours without a class", 0),
    "another size": (INDEXED[1:], BY_VALUE, "mask of another size: .*40 x 29 px, the image 40 x 30", 0),
    "nothing in it": (INDEXED * 0, BY_VALUE, None, 0),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_one_line(name, tmp_path, capsys):
    mask, classes, message, left = BAD[name]
    (example,) = examples(opened(open_mask_png, write(tmp_path / "set", mask, images=1), classes=classes))
    lines = told(capsys)
    assert len(example.regions) == left and len(lines) == (message is not None), lines
    assert message is None or re.search(rf"skipped: .*images/p0_1.png: p0_1: {message}", lines[0]), lines


def test_damaged_and_empty_files(tmp_path, capsys):
    folder = write(tmp_path / "set", images=4)
    (folder / "masks/p0_1.png").write_bytes((folder / "masks/p0_1.png").read_bytes()[:60])
    save(folder / "masks/p1_1.png", INDEXED * 0)
    (folder / "images/p2_1.png").write_bytes(b"no image")
    save(folder / "masks/lost.png", INDEXED)
    found = examples(opened(open_mask_png, folder, label="liver"))
    assert [len(example.regions) for example in found] == [0, 0, 1]
    for line, message in zip(
        told(capsys),
        ["warning: .*lost.png: 1 files are masks of no image", "unreadable mask", "empty mask", "unreadable image"],
        strict=True,
    ):
        assert re.search(message, line), line


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_masks_of_the_stored_and_of_the_shown_image_both_fit(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, mask = marked()
    folder = tmp_path / "set"
    save(folder / "images/a.png", Image.fromarray(pixels), exif=exif)
    turned = np.rot90(mask, {3: 2, 6: -1, 8: 1}[orientation])
    for stored, options in ((mask, {}), (turned, {"exif": "shown"})):
        save(folder / "masks/a.png", stored.astype(np.uint8))
        (example,) = examples(opened(open_mask_png, folder, label="liver", **options))
        np.testing.assert_array_equal(mask_of(example, example.regions[0]), turned)


TABLES = {
    "a.json": json.dumps({"0": "background", "1": "liver", "2": "spleen"}),
    "b.json": json.dumps({"labels": {"liver": 1, "spleen": 2}}),
    "c.json": json.dumps([{"id": 1, "name": "liver"}, {"id": 2, "name": "spleen"}]),
    "d.json": json.dumps({"liver": [200, 10, 10], "spleen": [10, 200, 10]}),
    "e.csv": "\ufeffname,r,g,b\r\nliver,200,10,10\r\nspleen,10,200,10\r\nvoid,9,9,9\r\n",
    "f.csv": "Value,Label\n1,liver\n2,spleen\n",
    "g.tsv": "class\tcolor\nliver\t#c80a0a\nspleen\t#0AC80A\n",
    "h.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nliver:200,10,10::\nspleen:10,200,10::\n",
    "i.txt": "1 liver\n2\tspleen\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_classes_in_every_form(name, tmp_path):
    (tmp_path / name).write_text(TABLES[name])
    classes = read_classes(name, tmp_path)
    expected = {1: "liver", 2: "spleen"} if classes.values else {0xC80A0A: "liver", 0x0AC80A: "spleen"}
    used = {key: label for key, label in (classes.values or classes.colours).items() if label}
    assert used == expected and classes.labels() == ["liver", "spleen"]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("none.csv", "no such file"),
        ("1=liver,1=spleen", "is both 'liver' and 'spleen'"),
        ("bad.json", "expected an object"),
        ("bad.csv", "no column for the class's name: .*found x, y"),
        ("1=liver,2", "expected the name of a class"),
    ],
)
def test_a_table_that_cannot_be_meant_is_one_error(stated, message, tmp_path):
    (tmp_path / "bad.json").write_text("3")
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match=message):
        read_classes(stated, tmp_path)


def test_what_is_missing_is_said(tmp_path):
    folder = write(tmp_path / "set")
    for options, message in (
        ({}, "nothing says what the pixels mean"),
        ({"label": "liver", "masks": "masks/*.png"}, "needs {stem}"),
        ({"label": "liver", "masks": "none/{stem}.png"}, "no folder none"),
        ({"label": "liver", "images": "none"}, "no such folder"),
        ({"label": "liver", "group": "("}, "not a regular expression"),
        ({"label": "liver", "instances": "all"}, "expected one of no, components, values"),
    ):
        with pytest.raises(InputError, match=message):
            examples(opened(open_mask_png, folder, **options))
    with pytest.raises(InputError, match="no such folder"):
        opened(open_mask_png, tmp_path / "none", label="liver")


def test_groups_and_splits_by_name(tmp_path):
    folder = write(tmp_path / "set", image_path="images/test/{stem}.png", path="masks/test/{stem}.png")
    source = opened(open_mask_png, folder, only="", label="liver", group=r"^.*/(p\d+)_")
    assert [example.group for example in examples(source, "test")] == ["p0", "p1"] and list(source.splits) == ["test"]
