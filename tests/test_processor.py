"""The canvas and the tokens that a model is given."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from medp_clip_jax.errors import InputError
from medp_clip_jax.processor import Processor
from medp_clip_jax.tokenizer import train_tokenizer

SIZE = 32


@pytest.fixture(scope="module")
def processor():
    return Processor(SIZE, train_tokenizer(["the liver", "the left kidney"], 300), 12)


@hypothesis.given(st.integers(1, 90), st.integers(1, 90))
@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_images_keep_their_shape_on_the_canvas(processor, width, height):
    images = processor.images([np.full((height, width, 3), 255, np.uint8)])
    assert images.pixels.shape == (1, SIZE, SIZE, 3) and images.pixels.dtype == np.uint8
    x0, y0, x1, y1 = images.rectangle[0] * SIZE
    assert max(x1 - x0, y1 - y0) == SIZE and min(x0, y0) >= 0 and max(x1, y1) <= SIZE
    for side, length in ((x1 - x0, width), (y1 - y0, height)):
        assert abs(side - length * SIZE / max(width, height)) <= 0.5 or side == 1
    inside = np.zeros((SIZE, SIZE), bool)
    inside[round(y0) : round(y1), round(x0) : round(x1)] = True
    assert (images.pixels[0][inside] == 255).all() and (images.pixels[0][~inside] != 255).all()


def test_one_source_and_a_sequence_of_one_are_the_same(processor, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    for source in (values, tmp_path / "a.png", str(tmp_path / "a.png")):
        one, many = processor.images(source), processor.images([source])
        np.testing.assert_array_equal(one.pixels, many.pixels)
        np.testing.assert_array_equal(one.rectangle, many.rectangle)
        assert one.rectangle.shape == (1, 4)


def test_a_window_reaches_the_reader(processor):
    values = np.full((4, 4), 40, np.int16)
    assert (processor.images([values], window="soft_tissue").pixels == 128).all()


def test_no_image_is_an_error(processor):
    with pytest.raises(InputError, match="at least one"):
        processor.images([])


def test_the_unreadable_image_among_several_is_named(processor, tmp_path):
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(InputError, match=r"bad\.png"):
        processor.images([np.zeros((4, 4), np.uint8), tmp_path / "bad.png"])


def test_tokens_have_the_models_length(processor):
    tokens = processor.tokens(["the liver", "the left kidney " * 20])
    assert tokens.shape == (2, 12) and tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens.max(1), processor.tokenizer.end)  # where the text tower pools
    np.testing.assert_array_equal(processor.tokens("the liver"), tokens[:1])
