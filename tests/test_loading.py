"""Every epoch reads every record once; decoded images are kept up to a bound; damage is named."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import bank, config, corpus, example, random_corpus, region, tokenizer

from medp_clip_jax import loading
from medp_clip_jax.errors import InputError
from medp_clip_jax.input import train_dataset


def train(records, settings):
    return train_dataset(records, settings, tokenizer, bank())


def test_epochs_differ_and_do_not_depend_on_the_order_of_reading():
    stream = loading.ShuffledEpochs(list("abcdefgh"), (1, 2))
    forward = [stream[i] for i in range(80)]
    again = loading.ShuffledEpochs(list("abcdefgh"), (1, 2))
    assert [again[i] for i in reversed(range(80))] == forward[::-1]
    epochs = {tuple(forward[i : i + 8]) for i in range(0, 80, 8)}
    assert all(sorted(epoch) == list("abcdefgh") for epoch in epochs) and len(epochs) > 8
    assert [loading.ShuffledEpochs(list("abcdefgh"), (1, 3))[i] for i in range(80)] != forward


@given(st.lists(st.floats(0.125, 8), min_size=1, max_size=30), st.integers(0, 2**31))
def test_a_weighted_epoch_has_each_record_as_often_as_its_weight_says(weights, seed):
    weights, count = np.array(weights), len(weights)
    stream = loading.ShuffledEpochs(range(count), (seed,), weights)
    for epoch in range(3):
        drawn = np.bincount([stream[epoch * count + i] for i in range(count)], minlength=count)
        assert (np.abs(drawn - count * weights / weights.sum()) < 1 + 1e-9).all() and drawn.sum() == count


def test_every_image_is_seen_once_per_epoch():
    pictures = [example(pixels=np.full((20, 20), 10 * i, np.uint8), image_id=str(i)) for i in range(8)]
    settings = config(jitter=0.0)
    dataset = train(corpus({"a": {"train": pictures}}), settings)
    orders = [dataset[step]["image"][:, 0, 0, 0].tolist() for step in range(5)]
    assert all(sorted(order) == [10 * i for i in range(8)] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_a_damaged_record_is_named():
    broken = dataclasses.replace(example(image_id="p7"), image=b"no image")
    with pytest.raises(InputError, match="^tiny/p7: "):
        train(corpus({"a": {"train": [broken]}}), config())[0]
    with pytest.raises(InputError, match="^tiny/p7: "):  # threads pass the message on
        next(iter(train(corpus({"a": {"train": [broken]}}), config()).to_iter_dataset()))
    mask = np.ones((40, 48), bool)
    wrong = dataclasses.replace(region("liver", mask), rle=region("liver", mask[:9]).rle)
    with pytest.raises(InputError, match="^tiny/p8: "):
        train(corpus({"a": {"train": [example([wrong], image_id="p8")]}}), config())[0]


def test_the_cache_is_bounded_over_all_sources(monkeypatch):
    records = random_corpus(a=11, b=5)
    reads, decode = [], loading.decode_picture

    def counted(data, side):
        reads.append(1)
        return decode(data, side)

    monkeypatch.setattr(loading, "decode_picture", counted)
    settings = config(cache_images=16)
    dataset = train(records, settings)
    for step in range(5):
        dataset[step]
    assert len(reads) == 16
    reads.clear()
    settings.input.cache_images = 6
    dataset = train(records, settings)
    for step in range(5):
        dataset[step]
    assert 16 < len(reads) < 40


def test_images_are_kept_small_and_grey_ones_in_one_channel():
    rng = np.random.default_rng(0)
    grey = loading.load_small(example(pixels=rng.integers(0, 256, (100, 200), dtype=np.uint8)), 48)
    assert grey.pixels.shape == (24, 48) and grey.example.image == b"" and grey.example.width == 200
    colour = loading.load_small(example(pixels=rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)), 48)
    assert colour.pixels.shape == (20, 30, 3)
