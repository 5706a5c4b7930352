"""Images in arrays: every pixel, label and split arrives, and what is damaged is named."""

import h5py
import numpy as np
import pytest

from data.sources.arrays import open_arrays
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image
from tests.sources_cases import examples, opened, told

COUNTS = {"train": 4, "val": 2, "test": 3}


def npz(folder, name="a.npz", shape=(28, 28, 3), classes=1, **changed):
    rng, arrays = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count)[:, None] + np.arange(classes)) % 2
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / name, **(arrays | changed))
    return folder, arrays


def h5(folder, split="test", count=3):
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), np.uint8)
    for name, values in (("x", pixels), ("y", (np.arange(count, dtype=np.uint8) % 2).reshape(-1, 1, 1, 1))):
        with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_{name}.h5", "w") as file:
            file[name] = values
    return folder, pixels


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_medmnist(tmp_path, shape):
    folder, arrays = npz(tmp_path / "set", shape=shape)
    source = opened(open_arrays, folder, only="", classes="0=liver,1=spleen")
    for split, count in COUNTS.items():
        found = examples(source, split)
        assert [example.image_id for example in found] == [f"{split}/{i}" for i in range(count)]
        for i, example in enumerate(found):
            pixels = arrays[f"{split}_images"][i]
            seen = decode_image(example.image)
            np.testing.assert_array_equal(seen, pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, -1))
            assert example.image_labels == (("liver", "spleen")[i % 2],)


def test_middle_slices_of_volumes_are_images_of_a_group(tmp_path):
    folder, arrays = npz(tmp_path / "set", shape=(6, 8, 9))
    source = opened(open_arrays, folder, only="", classes="0=liver,1=spleen", slices="3")
    found = examples(source, "test")
    assert [(e.image_id, e.group) for e in found] == [
        (f"test/{i}/{at}", f"test/{i}") for i in range(3) for at in range(3)
    ]
    for i, example in enumerate(found):
        pixels = arrays["test_images"][i // 3][2 + i % 3]
        np.testing.assert_array_equal(decode_image(example.image)[..., 0], pixels)
        assert example.image_labels == (("liver", "spleen")[i // 3 % 2],)


def test_volumes_without_slices_and_more_slices_than_there_are_are_told(tmp_path, capsys):
    folder, _ = npz(tmp_path / "set", shape=(2, 8, 9))
    for options, count, message in (
        ({}, 0, "take slices by --option=slices=3"),
        ({"slices": "5"}, 2 * 3, "it has 2 slices, fewer than --option=slices"),
    ):
        found = examples(opened(open_arrays, folder, only="", classes="0=liver,1=spleen", **options), "test")
        assert len(found) == count and any(message in line for line in told(capsys))


def test_several_labels_per_image_and_classes_that_are_left_out(tmp_path):
    folder, arrays = npz(tmp_path / "set", classes=3)
    arrays["test_labels"] = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    npz(folder, **arrays)
    source = opened(open_arrays, folder, only="", classes="0=liver,1=spleen,2=")
    assert {e.image_id: e.image_labels for e in examples(source, "test")} == {
        "test/0": ("liver", "spleen"), "test/2": (),
    }  # fmt: skip


def test_patchcamelyon(tmp_path):
    folder, pixels = h5(tmp_path / "pcam")
    h5(folder, "valid", 2)
    source = opened(open_arrays, folder, only="", classes="0=liver,1=spleen")
    assert sorted(source.splits) == ["test", "val"] and len(examples(source, "val")) == 2
    for i, example in enumerate(examples(source, "test")):
        np.testing.assert_array_equal(decode_image(example.image), pixels[i])
        assert example.image_labels == (("liver", "spleen")[i % 2],)


def test_what_cannot_be_read_is_refused_in_words(tmp_path):
    folder, _ = npz(tmp_path / "set")
    with pytest.raises(InputError, match="nothing says what the classes are"):
        opened(open_arrays, folder)
    with pytest.raises(InputError, match="class 1 is not in"):
        opened(open_arrays, folder, classes="0=liver")
    npz(folder, "b.npz")
    with pytest.raises(InputError, match="2 .npz files"):
        opened(open_arrays, folder, classes="0=liver,1=spleen")
    (folder / "b.npz").write_bytes(b"PK broken")
    with pytest.raises(InputError, match="b.npz: cannot be read"):
        opened(open_arrays, folder, classes="0=liver,1=spleen", files="b.npz")
    with pytest.raises(InputError, match="no .npz and no _x.h5"):
        opened(open_arrays, tmp_path / "set" / "..", classes="0=liver", files="*.nothing")
    half, _ = h5(tmp_path / "half")
    (half / "camelyonpatch_level_2_split_test_y.h5").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        opened(open_arrays, half, classes="0=liver,1=spleen")


def test_arrays_that_are_no_pictures_are_told(tmp_path, capsys):
    folder, _ = npz(tmp_path / "set", test_images=np.zeros((3, 28, 28, 2), np.uint8))
    source = opened(open_arrays, folder, only="", classes="0=liver,1=spleen")
    assert examples(source, "test") == [] and len(examples(source, "val")) == 2
    lines = told(capsys)
    assert len(lines) == 3 and all("expected uint8" in line for line in lines)
