"""Spans are the mask: read, cut, looked up and drawn they agree with its pixels."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from medp_clip_jax import spans
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import encode_mask

pytestmark = pytest.mark.short
SIDES = st.integers(1, 24)
SEEDS = st.integers(0, 2**31)


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.random((height, width)) < rng.choice([0.0, 0.1, 0.5, 0.95, 1.0])


def spans_of(mask: np.ndarray) -> spans.Spans:
    return spans.read([encode_mask(mask)], *mask.shape)[0]


@hypothesis.given(SIDES, SIDES, SEEDS)
def test_spans_hold_every_pixel_once(height, width, seed):
    mask = random_mask(np.random.default_rng(seed), height, width)
    found = spans_of(mask)
    drawn = np.zeros((height, width), int)
    for column, low, high in zip(found.column, found.low, found.high, strict=True):
        assert low < high
        drawn[low:high, column] += 1
    np.testing.assert_array_equal(drawn, mask)
    assert found.area == mask.sum()
    if mask.any():
        y, x = np.nonzero(mask)
        assert found.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        pixels = {spans.pixel(found, number) for number in range(found.area)}
        assert pixels == set(zip(x.tolist(), y.tolist(), strict=True))


@hypothesis.given(SIDES, SIDES, SEEDS, st.integers(1, 5))
def test_a_picture_is_the_mask_in_the_box(height, width, seed, step):
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, height, width)
    (x0, x1), (y0, y1) = (np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in (width, height))
    found = spans_of(mask)
    np.testing.assert_array_equal(spans.picture(found, (x0, y0, x1, y1), step), mask[y0:y1:step, x0:x1:step])
    assert spans.within(found, (x0, y0, x1, y1)).area == mask[y0:y1, x0:x1].sum()
    for y, x in np.ndindex(mask.shape):
        assert spans.contains(found, x + rng.random(), y + rng.random()) == mask[y, x]


@hypothesis.given(SIDES, SIDES, SEEDS, st.integers(0, 5))
def test_masks_read_together_are_those_read_alone(height, width, seed, count):
    rng = np.random.default_rng(seed)
    rles = [encode_mask(random_mask(rng, height, width)) for _ in range(count)]
    together = spans.read(rles, height, width)
    assert len(together) == count
    for rle, found in zip(rles, together, strict=True):
        (alone,) = spans.read([rle], height, width)
        for name in ("column", "low", "high"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


def test_counts_of_another_size_are_refused():
    with pytest.raises(InputError, match="do not fill 9 x 8 px"):
        spans.read([encode_mask(np.ones((8, 8), bool))], 8, 9)


def counts(*runs: int) -> bytes:
    """COCO's text of run lengths that no mask needs to have: base-32 digits, low first, differences from the fourth."""
    text = bytearray()
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        while True:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text.append(48 + digit + 32 * more)
            if not more:
                break
    return bytes(text)


@pytest.mark.parametrize(
    "rle",
    [
        counts(10, 20, 43),  # beyond the image by one pixel
        counts(80, -8, 0),
        counts(2**56, 72 - 2**56),
        counts(*[2**58] * 64, 72),  # adds up to 72 in 64 bits
        counts(10, 62)[:-1] + b"R",  # its last run goes on after its end
        b"P" * 14,
        b"\xff\x20",
    ],
)
def test_hostile_counts_are_refused(rle):
    sound = encode_mask(np.ones((8, 9), bool))
    for rles in ([rle], [sound, rle], [rle, sound]):
        with pytest.raises(InputError, match="do not fill 9 x 8 px"):
            spans.read(rles, 8, 9)


@hypothesis.given(SIDES, SIDES, SEEDS)
def test_counts_written_here_are_cocos(height, width, seed):
    mask = random_mask(np.random.default_rng(seed), height, width)
    runs = [len(list(run)) for _, run in itertools.groupby(mask.T.ravel())]
    assert counts(*[0] * bool(mask[0, 0]), *runs) == encode_mask(mask)
