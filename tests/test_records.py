"""Images and masks survive their encoding, and damaged bytes give an InputError, never a crash."""

import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image, decode_mask, decode_picture, encode_mask

pytestmark = pytest.mark.short

MASKS = st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from([0, 0.01, 0.5, 1]))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@hypothesis.given(MASKS)
def test_mask_round_trip(case):
    height, width, seed, share = case
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle = encode_mask(mask)
    assert isinstance(rle, bytes) and rle
    decoded = decode_mask(rle, height, width)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


@hypothesis.given(MASKS, st.binary(max_size=12), st.integers(0, 40), st.integers(0, 9))
def test_a_damaged_mask_is_an_input_error(case, junk, at, length):
    height, width, seed, share = case
    rle = encode_mask(np.random.default_rng(seed).random((height, width)) < share)
    damaged = rle[:at] + junk + rle[at + length :]
    try:
        assert decode_mask(damaged, height, width).shape == (height, width)
    except InputError:
        pass  # both are fine; pycocotools alone would overrun its buffer here


def test_a_mask_of_another_size_is_an_input_error():
    rle = encode_mask(np.eye(9))
    for size in ((9, 10), (10, 9), (3, 3), (90, 90)):
        with pytest.raises(InputError, match="do not fill"):
            decode_mask(rle, *size)


def test_a_region_without_mask_says_so():
    with pytest.raises(InputError, match="without a mask"):
        decode_mask(b"", 4, 4)


def test_any_non_zero_value_belongs_to_the_mask():
    mask = np.array([[0, 7], [0.2, 0]])
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), 2, 2), mask != 0)
    with pytest.raises(ValueError, match="height, width"):
        encode_mask(np.zeros((2, 2, 3)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new("RGB", (17, 11), (255, 255, 255)).convert(mode)
    pixels = decode_image(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert pixels.shape == (11, 17, 3) and pixels.dtype == np.uint8
    assert pixels.min() > 250


def test_a_lossless_image_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels))), pixels)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels)), max_side=13), pixels)


@hypothesis.given(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]), st.integers(1, 40), st.integers(1, 40))
def test_a_png_decodes_to_the_pixels_that_pillow_sees(mode, width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    data = encoded(Image.fromarray(pixels).convert(mode))
    picture = decode_picture(data)
    assert picture.mode == ("L" if mode in ("1", "L", "LA") else "RGB")
    np.testing.assert_array_equal(picture, Image.open(io.BytesIO(data)).convert(picture.mode))


def test_a_transparent_grey_and_a_bomb_are_left_to_pillow(monkeypatch):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode_picture(encoded(Image.fromarray(grey), transparency=5)), grey)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="decompression bomb"):
        decode_picture(encoded(Image.new("L", (30, 30))))


@pytest.mark.parametrize("peak", [4095, 65535])
def test_sixteen_bits_are_stretched_to_the_whole_range(peak):
    ramp = np.linspace(0, peak, 256).astype(np.uint16).reshape(16, 16)
    pixels = decode_image(encoded(Image.fromarray(ramp)))
    assert pixels.min() == 0 and pixels.max() == 255
    np.testing.assert_allclose(pixels[..., 0], np.arange(256).reshape(16, 16), atol=1)


def test_a_flat_sixteen_bit_image_keeps_its_level():
    flat = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    assert (decode_image(encoded(flat)) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(300, 200), (64, 301), (20, 20), (500, 2)])
def test_max_side_bounds_the_longer_side_and_keeps_the_shape(kind, size):
    ramp = np.broadcast_to(np.linspace(0, 255, size[0]).astype(np.uint8), size[::-1])
    data = encoded(Image.fromarray(np.ascontiguousarray(ramp)), kind)
    pixels = decode_image(data, max_side=100)
    height, width = pixels.shape[:2]
    assert max(width, height) == min(100, max(size))
    assert width == pytest.approx(size[0] * min(1, 100 / max(size)), abs=1)
    np.testing.assert_allclose(pixels[height // 2, :, 0], np.linspace(0, 255, width), atol=8)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_image(data):
    with pytest.raises(InputError, match="cannot read the image") as caught:
        decode_image(data)
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@hypothesis.given(st.floats(0.05, 0.95))
@hypothesis.settings(max_examples=20)
def test_a_truncated_image(kind, share):
    data = encoded(Image.effect_noise((64, 64), 50), kind)
    with pytest.raises(InputError, match="cannot read the image"):
        decode_image(data[: int(len(data) * share)])
