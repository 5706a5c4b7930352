"""Prompts follow from masks: shares are exact, nothing vanishes, clicks land where their label says."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from medp_clip_jax import prompt_kinds, simulate, spans
from medp_clip_jax.records import encode_mask

SIDES = st.integers(1, 24)
SEEDS = st.integers(0, 2**31)


def spans_of(mask: np.ndarray) -> spans.Spans:
    return spans.read([encode_mask(mask)], *mask.shape)[0]


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    mask = rng.random((height, width)) < rng.choice([0.02, 0.3, 0.9])
    mask[rng.integers(height), rng.integers(width)] = True
    return mask


def random_view(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    x, y = np.sort(rng.choice(width + 1, 2, replace=False)), np.sort(rng.choice(height + 1, 2, replace=False))
    return int(x[0]), int(y[0]), int(x[1]), int(y[1])


def exact_shares(mask: np.ndarray, view: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Area fractions by drawing every pixel of the view as size x size equal squares: no arithmetic on edges."""
    part = mask[view[1] : view[3], view[0] : view[2]]
    fine = part.repeat(size, 0).repeat(size, 1)
    height, width = part.shape
    return fine.reshape(size, height, size, width).mean((1, 3))


@hypothesis.given(SIDES, SIDES, st.integers(1, 9), SEEDS)
def test_area_map_is_the_exact_area_fraction_and_keeps_every_pixel(height, width, size, seed):
    rng = np.random.default_rng(seed)
    mask, view = random_mask(rng, height, width), random_view(rng, height, width)
    exact = exact_shares(mask, view, size)
    area = simulate.area_map(spans_of(mask), view, size)
    assert area.dtype == np.uint8
    np.testing.assert_array_equal(area > 0, exact > 0)
    assert np.abs(area - np.maximum(exact * 255, exact > 0)).max() <= 0.5 + 1e-3


@hypothesis.given(SIDES, SIDES, SEEDS, st.sampled_from([0.0, 0.5, 1.0]))
def test_what_a_view_shows_of_a_mask(height, width, seed, least):
    rng = np.random.default_rng(seed)
    mask, view = random_mask(rng, height, width), random_view(rng, height, width)
    shown = np.zeros_like(mask)
    shown[view[1] : view[3], view[0] : view[2]] = mask[view[1] : view[3], view[0] : view[2]]
    target = simulate.see_mask(spans_of(mask), view, least)
    if not shown.any() or shown.sum() < least * mask.sum():
        assert target is None
        return
    y, x = np.nonzero(shown)
    assert target.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
    (x0, y0), (rows, columns) = target.corner, target.mask.shape
    np.testing.assert_array_equal(target.mask, shown[y0 : y0 + rows, x0 : x0 + columns])
    assert target.mask.sum() == shown.sum()


def test_an_empty_mask_is_not_seen():
    empty = spans_of(np.zeros((4, 5), bool))
    assert empty.area == 0 and empty.box == (0, 0, 0, 0)
    assert simulate.see_mask(empty, (0, 0, 5, 4), 0.0) is None


@hypothesis.given(SIDES, SIDES, SEEDS)
def test_centre_click_is_the_pixel_furthest_from_the_outside(height, width, seed):
    mask = random_mask(np.random.default_rng(seed), height, width)
    x, y = simulate.centre_click(mask)
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded) - 1
    inside = np.argwhere(mask)
    depth = np.sqrt(((inside[:, None] - outside[None]) ** 2).sum(-1)).min(1)
    row, column = inside[np.argmax(depth)]  # argwhere is in row order: the first maximum
    assert (x, y) == (column + 0.5, row + 0.5)


def test_centre_click_counts_the_border_as_outside():
    assert simulate.centre_click(np.ones((5, 9), bool)) == (2.5, 2.5)


@hypothesis.given(SEEDS, st.floats(0, 0.5))
def test_jittered_boxes_stay_in_the_view_and_keep_their_place(seed, amount):
    rng = np.random.default_rng(seed)
    view = (3, 4, 40, 30)
    x0, y0 = rng.uniform((3, 4), (35, 25))
    x1, y1 = rng.uniform((x0 + 0.5, y0 + 0.5), (40, 30))
    jittered = simulate.jitter_box((x0, y0, x1, y1), view, amount, rng)
    assert view[0] <= jittered[0] < jittered[2] <= view[2] and view[1] <= jittered[1] < jittered[3] <= view[3]
    assert jittered[2] - jittered[0] >= (x1 - x0) / 2 - 1e-9 and jittered[3] - jittered[1] >= (y1 - y0) / 2 - 1e-9


@hypothesis.given(SEEDS, st.sampled_from([3, 16, 30, 32]))
def test_perturbed_masks_never_vanish_nor_explode(seed, size):
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, size * 2, size * 2)
    area = simulate.area_map(spans_of(mask), (0, 0, size * 2, size * 2), size)
    changed = simulate.perturb_map(area, rng)
    assert changed.shape == area.shape and changed.dtype == np.uint8 and changed.any()
    assert area.sum() / 2 - 1 < changed.sum() < 2 * area.sum() + size * size


def target_and_view(rng: np.random.Generator, with_mask: bool = True):
    mask, view = random_mask(rng, 20, 26), (2, 1, 24, 19)
    target = simulate.see_mask(spans_of(mask), view, 0.0)
    if target is None or not with_mask:
        return simulate.Target((4.0, 3.0, 12.0, 15.0), None), view
    return target, view


@hypothesis.given(SEEDS, st.sampled_from(prompt_kinds.TRAINED), st.integers(1, 5), st.booleans())
def test_simulated_prompts_keep_their_promises(seed, kind, slots, with_mask):
    rng = np.random.default_rng(seed)
    target, view = target_and_view(rng, with_mask)
    prompts = simulate.empty_prompts(2, slots, 8)
    simulate.write_simulated(prompts, 1, target, view, kind, rng)
    assert prompts["valid"].tolist() == [False, True]
    assert prompts["mask_valid"][1] == ("mask" in kind and target.mask is not None)
    assert prompts["box_valid"][1] == ("box" in kind or ("mask" in kind and target.mask is None))
    labels = prompts["point_labels"][1]
    assert (labels >= 0).any() == ("point" in kind)
    assert not prompts["mask_valid"][1] or prompts["masks"][1].any()
    if prompts["box_valid"][1]:
        x0, y0, x1, y1 = prompts["boxes"][1]
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    for (x, y), label in zip(prompts["points"][1].astype(float), labels, strict=True):
        if label == -1:
            assert x == y == 0
            continue
        assert 0 <= x <= 1 and 0 <= y <= 1
        column, row = (x * 22 + 2 - target.box[0], y * 18 + 1 - target.box[1])
        width, height = target.box[2] - target.box[0], target.box[3] - target.box[1]
        within = -1e-4 <= column <= width + 1e-4 and -1e-4 <= row <= height + 1e-4
        assert within or label == 0
        on_edge = min(abs(column - round(column)), abs(row - round(row))) < 1e-4  # float32 may round across it
        if target.mask is not None and within and not on_edge:
            assert target.mask[int(row), int(column)] == bool(label)


def test_clicks_are_single_half_of_the_time_and_sometimes_outside():
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 26), bool)
    mask[6:12, 8:15] = True
    target = simulate.see_mask(spans_of(mask), (0, 0, 26, 20), 0.5)
    labels = []
    for _ in range(400):
        prompts = simulate.empty_prompts(1, 5, 4)
        simulate.write_simulated(prompts, 0, target, (0, 0, 26, 20), "point", rng)
        labels.append(prompts["point_labels"][0])
    labels = np.array(labels)
    counts = (labels >= 0).sum(1)
    assert 0.42 < (counts == 1).mean() < 0.58 and set(counts) == {1, 2, 3, 4, 5}
    assert (labels[:, 0] == 1).all()  # a click prompt starts inside
    assert 0.3 < (labels == 0).sum() / (labels[:, 1:] >= 0).sum() < 0.5


@pytest.mark.parametrize("kind", prompt_kinds.EXACT)
def test_exact_prompts(kind):
    mask = np.zeros((20, 40), bool)
    mask[5:10, 10:20] = True
    prompts = simulate.empty_prompts(1, 1, 8)
    view = (0, 0, 40, 20)
    simulate.write_exact(prompts, 0, simulate.see_mask(spans_of(mask), view, 1.0), view, kind)
    assert [prompts["mask_valid"][0], prompts["box_valid"][0], prompts["point_labels"][0, 0] == 1] == [
        kind == "mask",
        kind == "box",
        kind == "point",
    ]
    if kind == "box":
        np.testing.assert_allclose(prompts["boxes"][0], [0.25, 0.25, 0.5, 0.5])
    if kind == "point":
        np.testing.assert_allclose(prompts["points"][0, 0], [12.5 / 40, 7.5 / 20])
    if kind == "mask":
        assert (prompts["masks"][0, 2:4, 2:4] == 255).all() and prompts["masks"][0].sum() == 4 * 255


def test_exact_prompts_without_a_mask_use_the_box():
    target, view = simulate.Target((10.0, 4.0, 20.0, 8.0), None), (0, 0, 40, 20)
    prompts = simulate.empty_prompts(2, 1, 8)
    simulate.write_exact(prompts, 0, target, view, "mask")
    simulate.write_exact(prompts, 1, target, view, "point")
    np.testing.assert_allclose(prompts["boxes"][0], [0.25, 0.2, 0.5, 0.4])
    assert prompts["box_valid"][0] and not prompts["mask_valid"].any()
    np.testing.assert_allclose(prompts["points"][1, 0], [15 / 40, 6 / 20])
