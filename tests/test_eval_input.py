"""Evaluation asks every region of every image exactly once, by exact prompts, in batches of one shape."""

import numpy as np
import pytest
from tiny_corpus import box_region, config, corpus, example, random_example

from medp_clip_jax import eval_input, simulate, spans
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import Region, decode_mask, encode_mask


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(3)
    first = [random_example(rng, f"a{i}", regions) for i, regions in enumerate([7, 0, 3, 1])]
    second = [example([box_region("nodule", (10.0, 8.0, 30.0, 24.0))], image_id="b0")]
    return corpus({"a": {"test": first}, "b": {"test": second, "train": first}})


def test_the_table_lists_images_and_regions(records):
    table = eval_input.eval_table(records, "test")
    assert [image.image_id for image in table.images] == ["a0", "a1", "a2", "a3", "b0"]
    assert all(image.image == b"" for image in table.images)
    assert table.records == [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 0)]
    assert table.image_index.tolist() == [0] * 7 + [2] * 3 + [3] + [4]
    assert table.region_index.tolist() == [*range(7), 0, 1, 2, 0, 0]
    assert table.has_mask.tolist() == [True] * 11 + [False]
    for row, (image, place) in enumerate(zip(table.image_index, table.region_index, strict=True)):
        found = table.images[image].regions[place]
        assert table.label[row] == found.label
        np.testing.assert_array_equal(table.box[row], found.box)
        area = table.images[image].width * table.images[image].height
        assert table.area_fraction[row] == pytest.approx(found.area / area)


def test_a_table_of_some_sources_and_of_no_regions(records):
    assert len(eval_input.eval_table(records, "test", ["b"]).label) == 1
    table = eval_input.eval_table(corpus({"a": {"test": [example()]}}), "test")
    assert table.box.shape == (0, 4) and len(table.images) == 1
    batches = list(eval_input.eval_batches(corpus({"a": {"test": [example()]}}), table, config()))
    assert len(batches) == 1 and batches[0]["image_row"].tolist() == [0, -1, -1, -1]


def test_every_region_is_asked_once_in_batches_of_one_shape(records):
    table = eval_input.eval_table(records, "test")
    batches = list(eval_input.eval_batches(records, table, config()))
    assert len(batches) == 2
    for batch in batches:
        assert batch["image"].shape == (4, 32, 32, 3) and batch["image"].dtype == np.uint8
        assert batch["rectangle"].shape == (4, 4) and batch["rectangle"].dtype == np.float32
        assert batch["region_row"].shape == (4, 3) and batch["image_row"].shape == (4,)
        assert batch["region_row"].dtype == batch["image_row"].dtype == np.int32
        assert batch["prompts"].keys() == {"mask", "box", "point"}
        for prompts in batch["prompts"].values():
            assert prompts.points.shape == (4, 3, 1, 2) and prompts.masks.shape == (4, 3, 16, 16)
            np.testing.assert_array_equal(prompts.valid, batch["region_row"] >= 0)
        for image, rows in zip(batch["image_row"], batch["region_row"], strict=True):
            assert (table.image_index[rows[rows >= 0]] == image).all()
    images = np.concatenate([batch["image_row"] for batch in batches])
    rows = np.concatenate([batch["region_row"].ravel() for batch in batches])
    assert images.tolist() == [0, 0, 0, 1, 2, 3, 4, -1]
    assert rows[rows >= 0].tolist() == list(range(12))


def test_prompts_are_exact(records):
    table = eval_input.eval_table(records, "test", ["a"])
    for batch in eval_input.eval_batches(records, table, config()):
        for slot, row in np.ndenumerate(batch["region_row"]):
            if row < 0:
                continue
            image = table.images[table.image_index[row]]
            mask = decode_mask(image.regions[table.region_index[row]].rle, image.height, image.width)
            size = np.array([image.width, image.height])
            np.testing.assert_allclose(
                batch["prompts"]["box"].boxes[slot], table.box[row] / np.tile(size, 2), atol=1e-6
            )
            click = np.array(simulate.centre_click(mask)) / size
            np.testing.assert_allclose(batch["prompts"]["point"].points[slot][0], click, atol=1e-6)
            area = simulate.area_map(
                spans.read([encode_mask(mask)], *mask.shape)[0], (0, 0, image.width, image.height), 16
            )
            np.testing.assert_array_equal(batch["prompts"]["mask"].masks[slot], area)


def test_a_region_without_a_mask_is_asked_by_its_box(records):
    table = eval_input.eval_table(records, "test", ["b"])
    (batch,) = eval_input.eval_batches(records, table, config())
    prompts = batch["prompts"]
    expected = np.array([10, 8, 30, 24]) / [48, 40, 48, 40]
    assert prompts["mask"].box_valid[0, 0] and not prompts["mask"].mask_valid.any()
    np.testing.assert_allclose(prompts["mask"].boxes[0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(prompts["point"].points[0, 0, 0], [20 / 48, 16 / 40], rtol=1e-6)


def test_only_the_kinds_asked_for(records):
    table = eval_input.eval_table(records, "test", ["a"])
    batch = next(eval_input.eval_batches(records, table, config(), ("point",)))
    assert batch["prompts"].keys() == {"point"}
    assert next(eval_input.eval_batches(records, table, config(), ()))["prompts"] == {}
    with pytest.raises(InputError, match="kinds among mask, box, point, got scribble"):
        next(eval_input.eval_batches(records, table, config(), ("scribble",)))


def test_missing_sources_and_splits_are_refused(records):
    with pytest.raises(InputError, match="no source 'c'"):
        eval_input.eval_table(records, "test", ["c"])
    with pytest.raises(InputError, match="no images in split 'val'"):
        eval_input.eval_table(records, "val")


def test_an_empty_stored_mask_falls_back_to_the_box():
    empty = Region("liver", (1.0, 2.0, 9.0, 8.0), encode_mask(np.zeros((40, 48), bool)), 48.0)
    records = corpus({"a": {"test": [example([empty])]}})
    (batch,) = eval_input.eval_batches(records, eval_input.eval_table(records, "test"), config())
    assert batch["prompts"]["mask"].box_valid[0, 0] and batch["prompts"]["mask"].valid[0, 0]
