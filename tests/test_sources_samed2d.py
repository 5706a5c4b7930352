"""SA-Med2D-20M: names tell data set, case, class and instance; the table is streamed; bad masks are one line."""

import json
import re

import numpy as np
import pytest

from data.sources.samed2d import open_samed2d
from medp_clip_jax.errors import InputError
from tests.sources_cases import assert_marker_on_the_left, examples, marked, mask_of, opened, save, told

CASES = {
    "ct_00--AbdomenCT1K--Case_00011--x_0040": ["0000_000", "0003_000", "0003_001"],
    "ct_00--AbdomenCT1K--Case_00011--x_0041": ["0000_000"],
    "mr_t1--BraTS2021--BraTS2021_00218--z_0141": ["0001_000"],
    "x_ray--covid_19_ct_cxr--16660_5_1--2d_none": [],
}
CLASSES = {
    "AbdomenCT1K": {"liver": "0000", "spleen": 3, "union_liver_spleen": "0007"},
    "BraTS2021": {"edema": "0001"},
    "covid_19_ct_cxr": {"lung": "0000"},
}


def write(folder, cases=CASES, classes=CLASSES, name="SAMed2D_v1.json"):
    table = {}
    for i, (stem, masks) in enumerate(cases.items()):
        pixels, mask = marked(i)
        save(folder / f"images/{stem}.png", np.dstack([pixels] * 3))
        paths = [f"masks/{stem}--{number}.png" for number in masks]
        for path in paths:
            save(folder / path, mask.astype(np.uint8) * 255)
        table[f"images/{stem}.png"] = paths
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(table))
    (folder / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(classes))
    return folder


def test_labels_modalities_and_cases_come_from_the_names(tmp_path, capsys):
    found = examples(opened(open_samed2d, write(tmp_path / "set")))
    assert [example.modality for example in found] == ["ct", "ct", "mri (t1)", "x-ray"]
    assert found[0].group == found[1].group == "AbdomenCT1K--Case_00011" != found[2].group
    assert [[region.label for region in example.regions] for example in found] == [
        ["liver", "spleen", "spleen"], ["liver"], ["edema"], [],
    ]  # fmt: skip
    for example in found:
        assert example.dataset == "SA-Med2D-20M" and example.image_id in CASES
        for region in example.regions:
            assert_marker_on_the_left(example, region)
    assert not told(capsys)


def test_slices_of_a_case_stay_in_one_split(tmp_path):
    cases = {f"ct_00--AbdomenCT1K--Case_{i // 4}--z_{i:04}": ["0000_000"] for i in range(48)}
    source = opened(open_samed2d, write(tmp_path / "set", cases), only="")
    homes = {split: {row.group for row in part.items} for split, part in source.items.items()}
    assert len(homes) > 1
    assert sum(map(len, homes.values())) == len(set().union(*homes.values())) == 12


def test_some_data_sets_and_unions(tmp_path, capsys):
    folder = write(
        tmp_path / "set", {"ct_00--AbdomenCT1K--Case_1--x_1": ["0000_000", "0007_000"]} | dict([*CASES.items()][2:])
    )
    (example,) = examples(opened(open_samed2d, folder, datasets="AbdomenCT1K"))
    assert [region.label for region in example.regions] == ["liver"]
    (line,) = told(capsys)
    assert line.startswith("warning: ") and "AbdomenCT1K: 1 masks of union classes left out" in line
    (example,) = examples(opened(open_samed2d, folder, datasets="AbdomenCT1K", unions="keep"))
    assert [region.label for region in example.regions] == ["liver", "union_liver_spleen"]
    with pytest.raises(InputError, match="--option=datasets: Other not in"):
        opened(open_samed2d, folder, datasets="Other")


BAD = {
    "class absent": (lambda f: None, {"0009_000": None}, "class absent from the table: .*0009_000.png: no class"),
    "missing mask": (lambda f: next((f / "masks").iterdir()).unlink(), {}, "liver: missing mask"),
    "cut mask": (lambda f: cut(next((f / "masks").iterdir())), {}, "liver: unreadable mask"),
    "empty mask": (
        lambda f: save(next((f / "masks").iterdir()), np.zeros((30, 40), np.uint8)),
        {},
        "liver: empty mask",
    ),
    "another size": (
        lambda f: save(next((f / "masks").iterdir()), np.ones((30, 41), np.uint8)),
        {},
        "mask of another size",
    ),
    "missing image": (lambda f: next((f / "images").iterdir()).unlink(), {}, "missing image"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line(name, tmp_path, capsys):
    spoil, more, message = BAD[name]
    folder = write(tmp_path / "set", {"ct_00--AbdomenCT1K--Case_1--x_1": ["0000_000", *more]})
    spoil(folder)
    found = examples(opened(open_samed2d, folder))
    (line,) = told(capsys)
    assert line.startswith("skipped: ") and re.search(message, line), line
    assert len(found) == (name != "missing image")
    assert sum(len(example.regions) for example in found) == (name == "class absent")


def test_unusual_names_and_damaged_tables(tmp_path, capsys):
    folder = write(tmp_path / "set", {"odd name": []} | CASES)
    assert len(examples(opened(open_samed2d, folder))) == len(CASES)
    assert "unknown file name" in told(capsys)[0]
    table = folder / "SAMed2D_v1.json"
    for content in (b"{", b'{"images/a.png": [', b"\xff\xfe{}"):
        table.write_bytes(content)
        with pytest.raises(InputError, match="SAMed2D_v1.json: not readable as JSON"):
            opened(open_samed2d, folder)
    table.unlink()
    with pytest.raises(InputError, match="holds no SAMed2D_v1.json"):
        opened(open_samed2d, folder)
    write(folder, name="annotations/SAMed2Dv1.json")
    assert len(examples(opened(open_samed2d, folder))) == len(CASES)
    (folder / "SAMed2D_v1_class_mapping_id.json").write_text('{"A": {"liver": "x"}}')
    with pytest.raises(InputError, match="expected data set -> class name -> number"):
        opened(open_samed2d, folder)


def test_masks_keep_every_pixel(tmp_path):
    stem = "ct_00--AbdomenCT1K--Case_1--x_1"
    folder = write(tmp_path / "set", {stem: ["0000_000"]})
    mask = np.random.default_rng(3).random((30, 40)) < 0.5
    save(folder / f"masks/{stem}--0000_000.png", mask.astype(np.uint8))  # 0 and 1, as some of them are
    (example,) = examples(opened(open_samed2d, folder))
    np.testing.assert_array_equal(mask_of(example, example.regions[0]), mask)
