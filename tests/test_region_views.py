"""Pictures that point at a region change what they must, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax import prompt_kinds
from medp_clip_jax.evaluators import region_views


def drawn(seed: int, colour: bool):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 60, 2)
    image = rng.integers(1, 256, (height, width, 3) if colour else (height, width)).astype(np.uint8)
    x0, y0 = rng.integers(0, width - 8), rng.integers(0, height - 8)
    box = (x0, y0, x0 + int(rng.integers(4, 8)), y0 + int(rng.integers(4, 8)))
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = rng.random((box[3] - box[1], box[2] - box[0])) < 0.7
    return image, box, mask


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_inside_stays_and_outside_does_not(seed, colour, masked):
    image, box, mask = drawn(seed, colour)
    inside = mask if masked else np.zeros_like(mask)
    if not masked:
        inside[box[1] : box[3], box[0] : box[2]] = True
    for kind in ("blackout", "blur"):
        picture, view = region_views.show(kind, image, box, mask if masked else None, 0.25)
        assert view is None and picture.shape == image.shape and picture.dtype == np.uint8
        assert np.array_equal(picture[inside], image[inside])
    assert not region_views.show("blackout", image, box, mask, 0.25)[0][~mask].any()
    blurred = region_views.show("blur", image, box, mask, 0.25)[0]
    assert blurred[~mask].std() < image[~mask].std()


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_red_circle_goes_around_the_box(seed, colour):
    image, box, _ = drawn(seed, colour)
    picture, view = region_views.show("red_circle", image, box, None, 0.25)
    plain = image if colour else np.repeat(image[..., None], 3, -1)
    changed = (picture != plain).any(-1)
    assert view is None and changed.any() and (picture[changed] == (255, 0, 0)).all()
    middle = picture[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
    assert (middle == plain[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]).all()


@pytest.mark.parametrize("kind", prompt_kinds.SHOWN)
def test_the_given_image_is_left_alone(kind):
    image, box, mask = drawn(1, True)
    before = image.copy()
    region_views.show(kind, image, box, mask, 0.25)
    assert np.array_equal(image, before)


def test_a_crop_is_the_box_with_its_margin():
    image, _, _ = drawn(2, False)
    picture, view = region_views.show("crop", image, (4, 4, 8, 12), None, 0.25)
    assert picture is image and view == (3, 2, 9, 14)
