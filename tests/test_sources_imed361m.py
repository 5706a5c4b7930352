"""IMed-361M: sparse stacks give each class its mask, interactive masks are read on demand, damage is one line."""

import json
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import sparse

from data.build import ADAPTERS, SEVERAL
from data.sources.imed361m import find_imed361m, open_imed361m
from medp_clip_jax.errors import InputError
from tests.sources_cases import HEIGHT, WIDTH, assert_marker_on_the_left, examples, marked, mask_of, opened, save, told

NAMES = ["spleen", "liver"]


def write_stack(folder, name, masks):
    """As IMIS-Bench's authors: one row per class, the shape in the name."""
    stack = np.stack(masks)[..., None].astype(np.int32)
    path = folder / f"label/{name}.({', '.join(map(str, stack.shape))}).npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    sparse.save_npz(path, sparse.csr_matrix(stack.reshape(len(masks), -1)))
    return f"label/{path.name}"


def write(folder, names=("ABD_001_100", "ABD_001_110", "ABD_002_100"), **changes):
    entries = []
    for i, name in enumerate(names):
        pixels, mask = marked(i)
        save(folder / f"image/{name}.png", np.dstack([pixels] * 3))
        segments = np.full((HEIGHT, WIDTH, 1), -1)
        segments[mask], segments[20:, :], segments[0, 0] = 0, 7, 9
        (folder / "imask").mkdir(exist_ok=True)
        np.save(folder / f"imask/x___{name}.npy", segments)
        label = write_stack(folder, f"x___{name}", [np.zeros_like(mask), mask])
        entries.append({"image": f"image/{name}.png", "label": label, "imask": f"imask/x___{name}.npy"})
    table = {
        "name": "BTCV", "description": "ct_BTCV", "dimension": "2D", "modality": {"0": "ct"},
        "labels": {"0": "background", "1": "spleen", "2": "liver"},
        "numTraining": len(entries) - 1, "training": entries[:-1], "numTest": 1, "test": entries[-1:],
    } | changes  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(table))
    return folder


def test_classes_slices_and_splits(tmp_path, capsys):
    folder = write(tmp_path / "root/BTCV")
    assert find_imed361m(tmp_path / "root") == find_imed361m(folder) == [folder]
    source = opened(open_imed361m, folder, only="")
    assert source.name == "imed361m_BTCV" and sorted(source.splits) == ["test", "train"]
    first, second = examples(source)
    for example in (first, second):
        (region,) = example.regions
        assert region.label == "liver" and example.modality == "ct" and example.group == "ABD_001"
        assert_marker_on_the_left(example, region)
    assert examples(source, "test")[0].group == "ABD_002" and not told(capsys)


def test_images_that_are_no_slices_are_their_own_group(tmp_path):
    folder = write(tmp_path / "set", ["ISIC_0001", "ISIC_0002"])
    table = (folder / "dataset.json").read_text()
    for path in [*folder.glob("label/*"), *folder.glob("imask/*")]:
        path.rename(path.with_name(path.name.removeprefix("x___")))
    (folder / "dataset.json").write_text(table.replace("x___", ""))
    assert [example.group for example in examples(opened(open_imed361m, folder))] == ["ISIC_0001", "ISIC_0002"]
    named = examples(opened(open_imed361m, folder, group="^[A-Z]+"))
    assert [example.group for example in named] == ["ISIC", "ISIC"]


def test_interactive_masks_are_read_under_a_label(tmp_path):
    folder = write(tmp_path / "set")
    example = examples(opened(open_imed361m, folder, imask_label="segment"))[0]
    segments = [region for region in example.regions if region.label == "segment"]
    assert [region.area for region in segments] == [42, 10 * WIDTH, 1]
    assert_marker_on_the_left(example, segments[0])
    large = examples(opened(open_imed361m, folder, imask_label="segment", imask_smallest="0.05"))[0]
    assert len(large.regions) == 2
    with pytest.raises(InputError, match="imask_smallest=-1: expected a number"):
        opened(open_imed361m, folder, imask_smallest="-1")


@hypothesis.settings(max_examples=10, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from(["csr_matrix", "coo_matrix", "csc_matrix"]))
def test_stacks_keep_every_pixel(tmp_path, seed, form):
    folder = write(tmp_path / f"{seed}{form}", ["a_1", "b_1"])
    masks = np.random.default_rng(seed).random((2, HEIGHT, WIDTH)) < 0.3
    path = next(folder.glob("label/x___a_1*"))
    sparse.save_npz(path, getattr(sparse, form)(masks.reshape(2, -1).astype(np.int32)))
    (example,) = examples(opened(open_imed361m, folder, only=""))
    for mask, region in zip(masks, example.regions, strict=True):
        np.testing.assert_array_equal(mask_of(example, region), mask)


def label_file(folder):
    return next(folder.glob("label/x___ABD_001_100*"))


def wrong_indices(folder):
    stack = sparse.load_npz(label_file(folder))
    np.savez(label_file(folder), data=stack.data, indices=stack.indices + 10**6, indptr=stack.indptr,
             shape=stack.shape, format=b"csr")  # fmt: skip


BAD = {
    "missing": (lambda f: label_file(f).unlink(), "missing mask"),
    "cut": (lambda f: label_file(f).write_bytes(label_file(f).read_bytes()[:99]), "unreadable mask"),
    "pickle": (lambda f: np.savez(label_file(f), format=np.array([{}], object)), "unreadable mask"),
    "indices": (wrong_indices, "unreadable mask"),
    "shape": (
        lambda f: sparse.save_npz(label_file(f), sparse.csr_matrix(np.ones((2, 99)))),
        "mask of another size: .*expected",
    ),
    "third class": (
        lambda f: label_file(f).write_bytes(open(f / write_stack(f, "x", [np.ones((HEIGHT, WIDTH))] * 3), "rb").read()),
        "mask of another size",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_stack_is_one_line(name, tmp_path, capsys):
    spoil, message = BAD[name]
    folder = write(tmp_path / "set")
    spoil(folder)
    first, second = examples(opened(open_imed361m, folder, only=""))
    (line,) = told(capsys)
    assert line.startswith("skipped: ") and re.search(rf"training\[0\]: ABD_001_100: {message}", line), line
    assert first.regions == () and len(second.regions) == 1


def test_more_classes_than_names_and_other_sizes(tmp_path, capsys):
    folder = write(tmp_path / "set", labels={"0": "background", "1": "spleen"})
    assert examples(opened(open_imed361m, folder, only=""))[0].regions == ()
    assert all("class absent from the table" in line for line in told(capsys))
    folder = write(tmp_path / "other")
    save(folder / "image/ABD_001_100.png", marked(0, 31)[0])
    examples(opened(open_imed361m, folder, only=""))
    (line,) = told(capsys)
    assert "liver: mask of another size" in line


def test_damaged_tables_are_one_error(tmp_path, capsys):
    folder = write(tmp_path / "set")
    (folder / "dataset.json").write_text(
        '{"labels": {"1": "liver"}, "training": [{"image": 3}, 7, {"image": "x.png"}]}'
    )
    assert examples(opened(open_imed361m, folder)) == []
    assert [re.search("no image path|missing image", line)[0] for line in told(capsys)] == ["no image path"] * 2 + [
        "missing image"
    ]
    for content, message in (("{", "not readable as JSON"), ("{}", "has no `labels`")):
        (folder / "dataset.json").write_text(content)
        with pytest.raises(InputError, match=message):
            opened(open_imed361m, folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match="neither it nor a folder in it holds a dataset.json"):
        find_imed361m(folder)
    assert ADAPTERS["imed361m"] is open_imed361m and SEVERAL["imed361m"] is find_imed361m
