"""Image and prompts move together: what is marked in the image stays under its prompt."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from tiny_corpus import ONTOLOGY, box_region, example

from medp_clip_jax import augment, simulate, spans
from medp_clip_jax.canvas import PADDING
from medp_clip_jax.records import encode_mask

pytestmark = pytest.mark.short
SEEDS = st.integers(0, 2**31)
SIDES = st.integers(1, 70)


@hypothesis.given(SIDES, SIDES, SEEDS, st.floats(0.05, 1), st.floats(0, 1))
def test_views_are_whole_pixels_of_the_image_with_the_share_asked_for(width, height, seed, low, more):
    high = low + more * (1 - low)
    x0, y0, x1, y1 = augment.random_view(width, height, (low, high), np.random.default_rng(seed))
    assert all(isinstance(edge, int) for edge in (x0, y0, x1, y1))
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    for side, full in ((x1 - x0, width), (y1 - y0, height)):
        assert np.sqrt(low) * full - 0.5 - 1e-9 <= side <= max(1, np.sqrt(high) * full + 0.5 + 1e-9)


def test_the_whole_image_is_a_view():
    assert augment.random_view(31, 17, (1.0, 1.0), np.random.default_rng(0)) == (0, 0, 31, 17)


def test_box_share():
    assert augment.box_share((0, 0, 10, 10), (5, 5, 20, 20)) == 0.25
    assert augment.box_share((0, 0, 10, 10), (10, 0, 20, 20)) == 0
    assert augment.box_share((3, 3, 3, 9), (0, 0, 20, 20)) == 0


@hypothesis.given(SIDES, SIDES, st.sampled_from([32, 33, 64]), st.booleans(), st.booleans())
def test_letterbox_fills_exactly_its_rectangle(width, height, size, grey, mirror):
    pixels = np.full((height, width) if grey else (height, width, 3), 250, np.uint8)
    canvas, rectangle = augment.letterbox(pixels, size, mirror=mirror)
    assert canvas.shape == (size, size, 3) and canvas.dtype == np.uint8 and rectangle.dtype == np.float32
    x0, y0, x1, y1 = np.rint(rectangle * size).astype(int)
    assert max(x1 - x0, y1 - y0) == size and abs((x1 - x0) * height - (y1 - y0) * width) <= max(width, height)
    assert abs(x0 - (size - x1)) <= 1 and abs(y0 - (size - y1)) <= 1
    inside = np.zeros((size, size), bool)
    inside[y0:y1, x0:x1] = True
    assert (canvas[inside] == 250).all() and (canvas[~inside] == PADDING).all()


def test_padding_is_neither_jittered_nor_mirrored():
    pixels = np.zeros((10, 21), np.uint8)
    pixels[:, 0] = 100
    table = np.full(256, 7, np.uint8)
    table[100] = 200
    canvas, rectangle = augment.letterbox(pixels, 21, table=table, mirror=True)
    np.testing.assert_array_equal(rectangle * 21, [0, 5, 21, 15])
    assert (canvas[5:15, -1] == 200).all() and (canvas[5:15, :-1] == 7).all()
    assert (canvas[:5] == PADDING).all() and (canvas[15:] == PADDING).all()


def test_jitter_of_no_strength_is_the_identity_and_any_jitter_keeps_the_order_of_values():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augment.jitter_table(0.0, rng), np.arange(256))
    for _ in range(50):
        table = augment.jitter_table(0.4, rng)
        assert table.dtype == np.uint8 and (np.diff(table.astype(int)) >= 0).all()


@hypothesis.given(SEEDS, st.booleans(), st.booleans())
@hypothesis.settings(max_examples=60)
def test_a_marker_stays_under_its_mask_box_and_click(seed, mirror, reduced):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 90, 2)
    view = augment.random_view(int(width), int(height), (0.4, 1.0), rng)
    w, h = rng.integers(8, 15, 2)
    x, y = rng.integers(0, (width - w, height - h))
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = True
    target = simulate.see_mask(spans.read([encode_mask(mask)], *mask.shape)[0], view, 0.5)
    hypothesis.assume(target is not None)

    factor = 2 if reduced else 1  # images are kept reduced, masks are not
    pixels = np.where(mask, 255, 0).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
    size = 64
    canvas, rectangle = augment.letterbox(pixels, size, [edge * factor for edge in view], mirror=mirror)
    prompts = simulate.empty_prompts(3, 1, 32)
    for row, kind in enumerate(("mask", "box", "point")):
        simulate.write_exact(prompts, row, target, view, kind)
    if mirror:
        augment.mirror_prompts(prompts)

    x0, y0, x1, y1 = rectangle * size
    columns, rows = np.nonzero((canvas[..., 0] > 127).any(0))[0], np.nonzero((canvas[..., 0] > 127).any(1))[0]
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])  # the marker's box on the canvas
    scale, origin = np.array([x1 - x0, y1 - y0] * 2), np.array([x0, y0] * 2)
    tolerance = 1.0  # a pixel of the canvas: the marker's edges are blurred
    np.testing.assert_allclose(prompts["boxes"][1] * scale + origin, seen, atol=tolerance)
    covered = prompts["masks"][0] >= 128
    columns, rows = np.flatnonzero(covered.any(0)), np.flatnonzero(covered.any(1))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 32 * scale + origin
    np.testing.assert_allclose(found, seen, atol=tolerance + max(scale) / 64)
    column, row = (prompts["points"][2, 0] * scale[:2] + origin[:2]).astype(int)
    assert canvas[row, column, 0] > 127


@hypothesis.given(SEEDS)
def test_mirroring_twice_changes_nothing_and_leaves_padding_alone(seed):
    rng = np.random.default_rng(seed)
    prompts = simulate.empty_prompts(3, 2, 5)
    prompts["masks"][0] = rng.integers(0, 256, (5, 5))
    prompts["boxes"][1] = np.sort(rng.random(4))[[0, 1, 2, 3]]
    prompts["box_valid"][1] = True
    prompts["points"][1, 0], prompts["point_labels"][1, 0] = rng.random(2), 1
    before = {name: values.copy() for name, values in prompts.items()}
    augment.mirror_prompts(prompts)
    x0, _, x1, _ = prompts["boxes"][1]
    assert x0 < x1 and not prompts["boxes"][2].any() and not prompts["points"][2].any()
    np.testing.assert_array_equal(prompts["masks"][0], before["masks"][0][:, ::-1])
    augment.mirror_prompts(prompts)
    for name, values in prompts.items():
        np.testing.assert_allclose(values, before[name], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "enabled", "allowed"),
    [
        ({"flips": True}, True, True),
        ({"flips": True}, False, False),
        ({"flips": False}, True, False),
        ({"flips": True, "regions": [box_region("left_kidney", (0, 0, 5, 5))]}, True, False),
        ({"flips": True, "regions": [box_region("kidney", (0, 0, 5, 5))]}, True, True),
        ({"flips": True, "image_labels": ("left_kidney",)}, True, False),
        ({"flips": True, "caption": "Cyst of the right kidney."}, True, False),
        ({"flips": True, "caption": "A bright spot."}, True, True),
        ({"flips": True, "view": "left eye"}, True, False),
        ({"flips": True, "anatomy": "left hand"}, True, False),
        ({"flips": True, "image_labels": ("unknown",)}, True, True),
    ],
)
def test_mirroring_needs_consent_and_no_named_side(fields, enabled, allowed):
    assert augment.may_mirror(example(**fields), enabled, ONTOLOGY) == allowed
