"""The training input is a function of (configuration, step): processes, threads and caches change nothing."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import grain
import numpy as np
import pytest
from tiny_corpus import bank, box_region, config, corpus, example, random_corpus, random_example, region, tokenizer

from medp_clip_jax import input as medp_input
from medp_clip_jax.errors import InputError
from medp_clip_jax.prompts import RegionPrompts

pytestmark = pytest.mark.short


def leaves(batch: dict) -> dict[str, np.ndarray]:
    arrays = {name: values for name, values in batch.items() if name != "prompts"}
    prompts = {field.name: getattr(batch["prompts"], field.name) for field in dataclasses.fields(RegionPrompts)}
    return arrays | {f"prompts.{name}": values for name, values in prompts.items()}


def assert_same(a: dict, b: dict) -> None:
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def train(records, settings, process_index=0, process_count=1):
    return medp_input.train_dataset(records, settings, tokenizer, bank(), process_index, process_count)


@pytest.fixture(scope="module")
def records():
    return random_corpus(a=11, b=5)


def test_batches_have_the_agreed_shapes_and_types(records):
    dataset = train(records, config())
    assert len(dataset) == 5
    shapes = {name: (values.shape, values.dtype.name) for name, values in leaves(dataset[0]).items()}
    assert shapes == {
        "image": ((8, 32, 32, 3), "uint8"),
        "rectangle": ((8, 4), "float32"),
        "label": ((8, 3), "int32"),
        "text": ((8, 16), "int32"),
        "text_id": ((8,), "int32"),
        "position": ((8,), "int32"),
        "prompts.points": ((8, 3, 4, 2), "float32"),
        "prompts.point_labels": ((8, 3, 4), "int32"),
        "prompts.boxes": ((8, 3, 4), "float32"),
        "prompts.box_valid": ((8, 3), "bool"),
        "prompts.masks": ((8, 3, 16, 16), "uint8"),
        "prompts.mask_valid": ((8, 3), "bool"),
        "prompts.valid": ((8, 3), "bool"),
    }


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_one_global_batch_from_any_step(records, count):
    settings = config()
    whole = train(records, settings)
    parts = [train(records, settings, process, count) for process in range(count)]
    for step in (4, 0, 3):  # any order, no history
        batch = leaves(whole[step])
        for process, part in enumerate(parts):
            assert len(part) == len(whole)
            for name, values in leaves(part[step]).items():
                np.testing.assert_array_equal(values, batch[name][process::count], err_msg=name)


def test_a_batch_depends_on_its_step_alone(records):
    settings = config()
    first = train(records, settings)
    batches = [first[step] for step in range(5)]
    settings.train.steps = 50  # a longer run begins in the same way
    settings.input.cache_images = 3  # nor does it matter what is in the cache
    again = train(records, settings)
    for step in (3, 1):
        assert_same(again[step], batches[step])
    threaded = train(records, config()).to_iter_dataset(grain.ReadOptions(num_threads=3, prefetch_buffer_size=4))
    for batch, expected in zip(threaded, batches, strict=True):
        assert_same(batch, expected)
    settings.seed = 1
    assert any((train(records, settings)[0]["image"] != batches[0]["image"]).ravel())
    assert any((batches[0]["image"] != batches[1]["image"]).ravel())


@pytest.mark.parametrize("start", [0, 3])
def test_processes_that_prepare_batches_change_nothing(records, start):
    dataset = train(records, config(cache_images=0))[start:]
    batches = medp_input.iterate(dataset, config(workers=2))
    for step in range(5 - start):
        assert_same(next(batches), dataset[step])
    with pytest.raises(StopIteration):
        next(batches)
    batches.close()


def test_an_error_in_a_worker_reaches_the_user():
    damaged = dataclasses.replace(example(), image=b"no image")
    batches = medp_input.iterate(train(corpus({"a": {"train": [damaged]}}), config()), config(workers=1))
    with pytest.raises(InputError, match="tiny/a: cannot read the image"):
        next(batches)
    batches.close()


PROGRAM = """
import os, signal, sys
import test_input
from tiny_corpus import config, random_corpus

if __name__ == "__main__":
    from medp_clip_jax.input import iterate
    dataset = test_input.train(random_corpus(a=11, b=5), config())
    batches = iterate(dataset, config(workers=2))
    test_input.assert_same(next(batches), dataset[0])
    signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
    os.killpg(0, signal.SIGTERM)  # as a scheduler does
    for step in range(1, 5):
        test_input.assert_same(next(batches), dataset[step])
    print("the same", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_serve_a_program_without_flags_and_end_with_it(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    paths = os.pathsep.join([str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    # the pipe closes when the last worker has gone, although the program was killed
    told = process.communicate(timeout=120)[0]
    assert process.returncode == -signal.SIGKILL, told
    assert told.split("\n")[:2] == ["asked to stop", "the same"], told


def test_images_without_regions_stay_and_are_padding(records):
    dataset = train(records, config())
    batches = [dataset[step] for step in range(5)]
    labels = np.concatenate([batch["label"] for batch in batches])
    valid = np.concatenate([batch["prompts"].valid for batch in batches])
    np.testing.assert_array_equal(labels >= 0, valid)
    assert (~valid.any(1)).any() and valid.all(1).any()
    prompts = dataset[0]["prompts"]
    prompted = prompts.box_valid | prompts.mask_valid | (prompts.point_labels >= 0).any(-1)
    np.testing.assert_array_equal(prompted, prompts.valid)


def test_a_corpus_without_any_region_makes_batches():
    dataset = train(corpus({"a": {"train": [example(image_id=str(i)) for i in range(3)]}}), config())
    batch = dataset[2]
    assert (batch["label"] == -1).all() and not batch["prompts"].valid.any()
    assert batch["text"].any()


def test_drawn_regions_keep_half_of_their_area(monkeypatch):
    rng = np.random.default_rng(0)
    pictures = [random_example(rng, str(i), 6) for i in range(6)]
    pictures.append(example([box_region("liver", (4.0 * i, 3.0 * i, 4.0 * i + 9, 3.0 * i + 8)) for i in range(8)]))
    drawn = []
    write = medp_input.simulate.write_simulated

    def spy(prompts, row, target, view, kind, rng):
        drawn.append((target, view))
        write(prompts, row, target, view, kind, rng)

    monkeypatch.setattr(medp_input.simulate, "write_simulated", spy)
    dataset = train(corpus({"a": {"train": pictures}}), config(crop_scale=(0.2, 0.5), regions=8))
    for step in range(5):
        assert dataset[step]["prompts"].valid.any(1).mean() > 0.6  # views are chosen so as to show something
    areas = [{int(found.area) for found in picture.regions} for picture in pictures]
    possible = sorted(set().union(*areas))
    for target, view in drawn:
        x0, y0, x1, y1 = target.box
        assert view[0] <= x0 < x1 <= view[2] and view[1] <= y0 < y1 <= view[3]
        area = (x1 - x0) * (y1 - y0) if target.mask is None else target.mask.sum()
        assert any(area <= whole <= 2 * area for whole in possible)
    assert any(target.mask is None for target, _ in drawn)


@pytest.mark.parametrize("kind", ["mask", "box", "point"])
def test_prompts_lie_on_what_they_ask_about(kind):
    mask = np.zeros((40, 48), bool)
    mask[8:24, 10:30] = True
    mask[8:16, 10:18] = False
    pixels = np.where(mask, 250, 0).astype(np.uint8)
    shares = dict.fromkeys(("mask", "box", "point", "box_point", "mask_box"), 0.0)
    settings = config(jitter=0.0, prompt_kinds={**shares, kind: 1.0})
    settings.model.image.size, settings.input.flips, settings.loss.consistency = 64, True, 1.0
    dataset = train(corpus({"a": {"train": [example([region("liver", mask)], pixels, flips=True)]}}), settings)
    batch = dataset[1]
    for image, rectangle, row in zip(batch["image"], batch["rectangle"], range(8), strict=True):
        prompts = batch["prompts"]
        x0, y0, x1, y1 = rectangle * 64

        def at(x, y):
            return image[min(int(y0 + y * (y1 - y0)), 63), min(int(x0 + x * (x1 - x0)), 63), 0]  # noqa: B023

        exact = batch["exact"][row, 0]
        assert exact.any() == (kind != "mask" and prompts.valid[row, 0])
        if exact.any():
            rows, columns = np.nonzero(exact >= 200)
            assert np.median([at((x + 0.5) / 16, (y + 0.5) / 16) for x, y in zip(columns, rows, strict=True)]) > 200
        if kind == "point":
            for (x, y), label in zip(prompts.points[row, 0], prompts.point_labels[row, 0], strict=True):
                value = at(x, y)
                near_edge = 60 < value < 190
                assert label == -1 or near_edge or (value > 127) == label
        if kind == "mask":
            rows, columns = np.nonzero(prompts.masks[row, 0] >= 200)
            values = [at((x + 0.5) / 16, (y + 0.5) / 16) for x, y in zip(columns, rows, strict=True)]
            assert not values or np.median(values) > 200
        if kind == "box":
            a, b, c, d = prompts.boxes[row, 0]
            assert at((a + 2 * c) / 3, (b + 2 * d) / 3) > 127  # the notch is in the other corner


def test_flips_need_source_and_configuration():
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:, :16] = 200
    mask = pixels > 0
    settings = config(jitter=0.0, crop_scale=(1.0, 1.0), flips=True)

    def sides(label, consent, enabled=True):
        settings.input.flips = enabled
        records = corpus({"a": {"train": [example([region(label, mask)], pixels, flips=consent)]}})
        return {int(batch_left > 100) for batch_left in train(records, settings)[0]["image"][:, 16, 4, 0]}

    assert sides("cell", True) == {0, 1}
    assert sides("cell", False) == {1}
    assert sides("left_kidney", True) == {1}
    assert sides("cell", True, enabled=False) == {1}


def test_regions_come_distinct_labels_first():
    rng = np.random.default_rng(0)
    labels = ["cell"] * 6 + ["liver"] * 2 + ["nodule"]
    firsts = set()
    for _ in range(50):
        order = medp_input.region_order(labels, rng)
        assert sorted(order) == list(range(9))
        drawn = [labels[i] for i in order]
        assert set(drawn[:3]) == {"cell", "liver", "nodule"} and set(drawn[3:5]) == {"cell", "liver"}
        firsts.add(order[0])
    assert len(firsts) > 5
    assert medp_input.region_order([], rng) == []


def test_regions_with_labels_outside_the_bank_are_not_asked_about(records):
    dataset = medp_input.train_dataset(records, config(), tokenizer, bank("liver"))
    labels = np.concatenate([dataset[step]["label"] for step in range(5)])
    assert set(np.unique(labels)) == {-1, 0}


def test_the_crop_view_shows_one_region_and_prompts_nothing(records):
    settings = config()
    settings.input.view = "crop"
    batch = train(records, settings)[0]
    assert (batch["label"][:, 1:] == -1).all() and (batch["label"][:, 0] >= 0).any()
    prompts = batch["prompts"]
    assert not (prompts.box_valid.any() or prompts.mask_valid.any() or (prompts.point_labels >= 0).any())
    assert np.array_equal(prompts.valid, batch["label"] >= 0)


def test_a_crop_is_the_box_with_about_its_margin():
    one = example(regions=[box_region("liver", (10, 8, 20, 28))])  # 48 x 40 pixels
    rng = np.random.default_rng(0)
    for _ in range(50):
        x0, y0, x1, y1 = medp_input._crop(one, 0, 0.25, rng)
        assert 10 - 4 <= x0 <= 10 - 1 and 20 + 1 <= x1 <= 20 + 4
        assert 0 <= y0 <= 8 - 2 and 28 + 2 <= y1 <= 28 + 8


def test_box_only_regions_get_boxes_and_clicks():
    image = example([box_region("nodule", (10.0, 8.0, 30.0, 24.0))])
    prompts = train(corpus({"a": {"train": [image]}}), config())[0]["prompts"]
    assert prompts.valid[:, 0].all() and not prompts.mask_valid.any()
    assert prompts.box_valid.any() and (prompts.point_labels == 1).any()


def test_equal_captions_share_an_id(records):
    batch = train(records, config())[0]
    assert (batch["text_id"] >= 0).all()
    for i, j in np.ndindex(8, 8):
        same = (batch["text"][i] == batch["text"][j]).all()
        assert same or batch["text_id"][i] != batch["text_id"][j]
    assert medp_input.text_id("a") == medp_input.text_id("a") == 1695655466


def test_temperature_and_weights_make_the_mixture():
    records = random_corpus(a=16, b=4, c=1)
    settings = config()
    settings.data.temperature = 1.0
    assert medp_input.mixture(records, settings, "train") == {"a": 16, "b": 4, "c": 1}
    settings.data.temperature = 0.5
    assert medp_input.mixture(records, settings, "train") == {"a": 4, "b": 2, "c": 1}
    settings.data.temperature = 0.0
    assert medp_input.mixture(records, settings, "train") == {"a": 1, "b": 1, "c": 1}
    settings.data.sources = ("a", "c")
    assert medp_input.mixture(records, settings, "train") == {"a": 1, "c": 1}
    settings.data.weights = {"a": 3.0, "b": 1, "c": 0}
    assert medp_input.mixture(records, settings, "train") == {"a": 3, "b": 1}


def test_the_stream_follows_the_mixture():
    shade = {"a": 20, "b": 120, "c": 220}
    records = corpus(
        {
            name: {"train": [example(pixels=np.full((16, 16), value, np.uint8), image_id=str(i)) for i in range(3)]}
            for name, value in shade.items()
        }
    )
    settings = config(jitter=0.0, batch_size=40)
    settings.data.weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    values = np.concatenate([train(records, settings)[step]["image"][:, 8, 8, 0] for step in range(5)])
    for name, share in settings.data.weights.items():
        assert abs((values == shade[name]).mean() - share) < 0.02


def test_sources_without_the_split_are_left_out():
    records = corpus({"a": {"train": [example()]}, "b": {"test": [example()]}})
    assert medp_input.mixture(records, config(), "train") == {"a": 1}
    with pytest.raises(InputError, match="no images in split 'val'"):
        medp_input.mixture(records, config(), "val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.input.update(batch_size=7), "batch_size: 7 does not divide among 2"),
        (lambda c: c.input.update(mask_size=65), "mask_size: expected 1 to 64, got 65"),
        (lambda c: c.data.update(sources=("x",)), "names the source 'x'; the corpus has a, b"),
        (lambda c: c.data.weights.update(y=1.0), "names the source 'y'"),
        (lambda c: c.data.weights.update(a=-1.0), "expected weights >= 0"),
        (lambda c: c.data.weights.update(a=0.0), "no images in split 'train'"),
        (lambda c: c.input.prompt_kinds.update(mask=-1.0), "prompt_kinds: expected shares >= 0"),
    ],
)
def test_unusable_settings_are_refused(records, change, message):
    settings = config()
    change(settings)
    with pytest.raises(InputError, match=message):
        train(records, settings, 0, 2)


def test_label_prior_is_that_of_the_sampled_regions():
    mask = np.zeros((40, 48), bool)
    mask[10:20, 10:20] = True
    crowd = [region("cell", mask)] * 30
    records = corpus({"a": {"train": [example([*crowd, region("liver", mask)]), example([], image_id="b")]}})
    prior = medp_input.label_prior(records, config(crop_scale=(1.0, 1.0), regions=3), bank(), examples=100)
    assert prior.dtype == np.float32 and prior.shape == (5,)
    np.testing.assert_allclose(np.exp(prior).sum(), 1, rtol=1e-5)
    counts = dict(zip(bank().ids, np.exp(prior) * (150 + 5), strict=True))
    assert counts == pytest.approx({"cell": 101, "liver": 51, "kidney": 1, "left_kidney": 1, "nodule": 1}, rel=1e-4)


def test_label_prior_agrees_with_the_batches(records):
    settings = config()
    settings.train.steps = 40
    prior = np.exp(medp_input.label_prior(records, settings, bank(), examples=320))
    dataset = train(records, settings)
    labels = np.concatenate([dataset[step]["label"].ravel() for step in range(40)])
    seen = np.bincount(labels[labels >= 0], minlength=5) + 1
    np.testing.assert_allclose(prior, seen / seen.sum(), atol=0.03)
