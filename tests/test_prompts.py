"""Constructors, and coverage against brute force on a fine grid."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax.errors import InputError
from medp_clip_jax.prompts import RegionPrompts, coverage, has_prompt, mask_boxes

FULL = np.array([[[0.0, 0.0, 1.0, 1.0]]], np.float32)
FINE = 48  # cells of the brute-force grid per side, a multiple of every grid used
SIGMA = 0.5


def brute(mask: np.ndarray, window: np.ndarray, cells: int) -> np.ndarray:
    """Area fractions by sampling: exact, as cell and mask borders fall between samples."""
    samples = (np.arange(cells * FINE) + 0.5) / (cells * FINE)
    x, y = (window[i] + samples * (window[i + 2] - window[i]) for i in (0, 1))
    inside = ((x >= 0) & (x < 1))[None] & ((y >= 0) & (y < 1))[:, None]
    column, row = (
        np.clip(np.floor(at * size).astype(int), 0, size - 1) for at, size in zip((x, y), mask.shape[::-1], strict=True)
    )
    values = np.where(inside, mask[row[:, None], column[None]], 0)
    return values.reshape(cells, FINE, cells, FINE).mean((1, 3))


@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 4), (3, 6), (12, 2)]))
def test_mask_coverage_is_the_exact_area_fraction(seed, shape):
    rng = np.random.default_rng(seed)
    mask = rng.random((1, 1, *shape), np.float32)
    prompts = RegionPrompts.from_masks(mask)
    window = np.array([-0.25, 0.25, 0.75, 1.25], np.float32)  # also beyond the image, where nothing is covered
    expected = brute(mask[0, 0], window, 4)
    found = coverage(prompts, window[None, None], 4, SIGMA)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    total = coverage(prompts, FULL, 4, SIGMA)[0, 0].mean()
    np.testing.assert_allclose(total, mask.mean(), rtol=1e-5)  # nothing is lost, whatever the resolutions


def test_a_mask_smaller_than_a_cell_is_not_lost():
    mask = np.zeros((1, 1, 64, 64), np.uint8)
    mask[0, 0, 13, 50] = 255
    found = np.asarray(coverage(RegionPrompts.from_masks(mask), FULL, 4, SIGMA)[0, 0])
    assert found[0, 3] == pytest.approx(1 / 256)
    assert (found > 0).sum() == 1


@given(st.integers(0, 2**32 - 1))
def test_box_coverage_is_the_exact_overlap(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, 2)
    box = np.concatenate([low, low + rng.uniform(0.5, 64 - low)]).astype(np.float32)
    found = coverage(RegionPrompts.from_boxes(box[None, None], (64, 64)), FULL, 4, SIGMA)[0, 0]
    for row in range(4):
        for column in range(4):
            width = max(0, min(box[2], 16 * column + 16) - max(box[0], 16 * column))
            height = max(0, min(box[3], 16 * row + 16) - max(box[1], 16 * row))
            assert found[row, column] == pytest.approx(width * height / 256, abs=1e-5)


def test_clicks_add_by_maximum_and_take_away():
    inside = RegionPrompts.from_points([[[[8, 8]]]], [[[1]]], (64, 64))
    outside = RegionPrompts.from_points([[[[8, 8]]]], [[[0]]], (64, 64))
    box = RegionPrompts.from_boxes([[[32, 32, 64, 64]]], (64, 64))
    alone = np.asarray(coverage(inside, FULL, 4, SIGMA)[0, 0])
    assert alone[0, 0] == pytest.approx(1)
    assert alone[3, 3] < 1e-6  # clicks alone replace the 1 of an unprompted region
    both = np.asarray(coverage(RegionPrompts.combine(box, inside), FULL, 4, SIGMA)[0, 0])
    assert both[0, 0] == pytest.approx(1)
    assert (both[2:, 2:] == 1).all()
    taken = np.asarray(coverage(outside, FULL, 4, SIGMA)[0, 0])
    np.testing.assert_allclose(
        taken, 1 - alone, atol=1e-6
    )  # an outside click alone leaves everything but its surroundings


def test_a_mask_goes_before_a_box_and_flags_before_values():
    mask = np.zeros((1, 1, 4, 4), np.float32)
    mask[..., 0, 0] = 1
    both = RegionPrompts.combine(RegionPrompts.from_boxes([[[0, 0, 64, 64]]], (64, 64)), RegionPrompts.from_masks(mask))
    np.testing.assert_array_equal(coverage(both, FULL, 4, SIGMA)[0, 0], mask[0, 0])
    off = both.replace(mask_valid=np.zeros((1, 1), bool), box_valid=np.zeros((1, 1), bool))
    assert (np.asarray(coverage(off, FULL, 4, SIGMA)) == 1).all()
    assert not has_prompt(off).any()


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_masks_of_two_types_are_combined_on_one_scale(dtype):
    half, full = np.full((1, 2, 4, 4), 51, np.uint8), np.ones((1, 2, 4, 4), dtype)
    a, b = RegionPrompts.from_masks(half), RegionPrompts.from_masks(half).replace(masks=full)
    b = b.replace(mask_valid=np.array([[True, False]]))
    both = RegionPrompts.combine(a, b)
    np.testing.assert_allclose(both.masks[0, :, 0, 0], [1, 0.2], rtol=1e-6)
    b = a.replace(mask_valid=b.mask_valid)
    assert RegionPrompts.combine(a, b).masks.dtype == np.uint8  # as they came


def test_mask_boxes_bound_the_mask():
    mask = np.zeros((1, 1, 10, 20), np.uint8)
    mask[0, 0, 2:5, 4:14] = 1
    np.testing.assert_allclose(mask_boxes(RegionPrompts.from_masks(mask))[0, 0], [0.2, 0.2, 0.7, 0.5])


def test_constructors_normalise_by_each_images_size():
    prompts = RegionPrompts.from_boxes([[[10, 10, 20, 30]], [[10, 10, 20, 30]]], [(100, 50), (40, 40)])
    np.testing.assert_allclose(prompts.boxes[:, 0], [[0.1, 0.2, 0.2, 0.6], [0.25, 0.25, 0.5, 0.75]])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RegionPrompts.from_boxes([[[5, 5, 5, 9]]], (10, 10)), "x1 > x0"),
        (lambda: RegionPrompts.from_boxes([[[5, 5, 11, 9]]], (10, 10)), "outside the 10 x 10 image"),
        (lambda: RegionPrompts.from_boxes([[5, 5, 9, 9]], (10, 10)), "rank 3"),
        (lambda: RegionPrompts.from_boxes([[[5, 5, np.nan, 9]]], (10, 10)), "finite"),
        (lambda: RegionPrompts.from_boxes([[[5, 5, 6, 9]]], (10, 10, 3)), "image_size"),
        (lambda: RegionPrompts.from_points([[[[5, 12]]]], [[[1]]], (10, 10)), "outside the 10 x 10 image"),
        (lambda: RegionPrompts.from_points([[[[5, 2]]]], [[[2]]], (10, 10)), "expected 1"),
        (lambda: RegionPrompts.from_points([[[[5, 2]]]], [[1]], (10, 10)), "one per point"),
        (lambda: RegionPrompts.from_masks(np.zeros((1, 1, 4, 4), bool)), "mask 0 of image 0 is empty"),
        (lambda: RegionPrompts.from_masks(np.full((1, 1, 4, 4), 3.0)), "[0, 1]"),
        (lambda: RegionPrompts.from_masks(np.ones((4, 4), bool)), "shape"),
        (lambda: RegionPrompts.combine(RegionPrompts.none(1, 2), RegionPrompts.none(1, 3)), "same"),
    ],
)
def test_bad_prompts_are_refused_in_words(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_prompts_are_a_pytree_of_arrays():
    prompts = RegionPrompts.none(2, 3)
    assert jnp.asarray(coverage(prompts, FULL.repeat(2, 0), 4, SIGMA)).shape == (2, 3, 4, 4)
