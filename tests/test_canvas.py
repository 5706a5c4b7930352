"""Where pixels lie on the canvas, in every mode; EXIF orientation; parity with open_clip where that is installed."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from medp_clip_jax import augment, canvas
from medp_clip_jax.errors import InputError
from medp_clip_jax.processor import Processor
from medp_clip_jax.readers import read_image
from medp_clip_jax.tokenizer import train_tokenizer

sides, sizes, modes = st.integers(1, 400), st.sampled_from([32, 224]), st.sampled_from(canvas.MODES)
places = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5)


@hypothesis.given(sides, sides, sizes, modes, places)
def test_places_come_back_from_the_canvas(width, height, size, mode, shares):
    points = np.array(shares) * (width, height)
    there = canvas.to_canvas(points, width, height, size, mode)
    np.testing.assert_allclose(
        canvas.to_image(there, width, height, size, mode), points, atol=1e-6 * max(width, height)
    )
    x0, y0, x1, y1 = canvas.rectangle(width, height, size, mode) * np.float64(size)
    corners = canvas.to_canvas(np.array([[0, 0], [width, height]]), width, height, size, mode)
    np.testing.assert_allclose(corners, [[x0, y0], [x1, y1]], atol=1e-4 * max(size, x1 - x0, y1 - y0))


@hypothesis.given(sides, sides, sizes)
def test_the_medical_rectangle_is_where_letterbox_puts_the_image(width, height, size):
    _, rectangle = augment.letterbox(np.zeros((height, width, 3), np.uint8), size)
    np.testing.assert_array_equal(canvas.rectangle(width, height, size, "medical"), rectangle)


@pytest.mark.parametrize("mode", canvas.MODES)
@pytest.mark.parametrize(("width", "height"), [(91, 64), (64, 91), (40, 40), (300, 200)])
def test_a_bright_spot_lands_where_it_is_mapped_to(mode, width, height):
    image = np.zeros((height, width, 3), np.uint8)
    x, y = width // 2 + 3, height // 2 - 5
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    size = 64
    shown = canvas.place(image, size, mode).astype(float)
    assert shown.shape == (size, size, 3)
    left, top, right, bottom = np.round(canvas.rectangle(width, height, size, mode) * size).astype(int).clip(0, size)
    inside = np.zeros((size, size))
    inside[top:bottom, left:right] = shown[top:bottom, left:right, 0]  # padding is no spot
    centre = [(inside.sum(axis) * (np.arange(size) + 0.5)).sum() / inside.sum() for axis in (0, 1)]
    expected = canvas.to_canvas(np.array([[x + 0.5, y + 0.5]]), width, height, size, mode)[0]
    np.testing.assert_allclose(centre, expected, atol=0.2)


def test_bad_places_and_modes_are_refused():
    with pytest.raises(InputError, match=r"\[\.\.\., 2\]"):
        canvas.to_canvas(np.zeros((3, 4)), 10, 10, 32, "medical")
    with pytest.raises(InputError, match="expected one of medical, crop, pad, squash, got 'zoom'"):
        Processor(32, train_tokenizer(["liver"], 300), 12, "zoom")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_read_as_viewers_show_them(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_damaged_exif_says_nothing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


def test_sixteen_bits_and_windows_reach_the_canvas(tmp_path):
    values = np.linspace(1000, 3000, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    shown = Processor(32, train_tokenizer(["liver"], 300), 12).images(tmp_path / "deep.png")
    x0, y0, x1, y1 = np.round(shown.rectangle[0] * 32).astype(int)
    inside = shown.pixels[0, y0:y1, x0:x1, 0]
    assert inside.min() < 15 and inside.max() > 240  # the file's own range fills that of the canvas
    hounsfield = np.full((48, 64), 40, np.int16)
    windowed = Processor(32, train_tokenizer(["liver"], 300), 12).images(hounsfield, window=(40, 400))
    assert (windowed.pixels[0, 16, 16] == 128).all()


@pytest.mark.peers
@pytest.mark.parametrize(("mode", "resize"), [("crop", "shortest"), ("pad", "longest"), ("squash", "squash")])
def test_pixels_are_those_of_open_clip(mode, resize):
    from open_clip.transform import image_transform

    from configs import common
    from medp_clip_jax.models.vit import normalised_pixels

    size, config = 224, common.get_config().model
    transform = image_transform(size, False, mean=config.mean, std=config.std, resize_mode=resize)
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(50):
        height, width = 2 * rng.integers(20, 450, 2) + 1
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        ours = np.asarray(normalised_pixels(canvas.place(image, size, mode), config))
        theirs = transform(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        worst = max(worst, float((np.abs(ours - theirs) * config.std).max()))  # in units of brightness, 0 to 1
    assert worst <= 1 / 255
