"""Image files of every kind: the record has the pixels that a viewer shows, and nothing else of the file."""

import io
import json
import struct
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from data.report import Report
from data.sources import containers
from data.sources.files import shown, walk
from data.sources.folder import open_folder
from data.sources.orientation import TRANSPOSE, turn_box, turn_mask, turn_size
from data.sources.pictures import BadRecord, picture_of, read_picture
from medp_clip_jax.records import decode_image
from tests.sources_cases import ONTOLOGY, encoded, examples, marked, mask_of, save

SECRET = b"JOHN DOE 1950-01-01"
COLOUR = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
GREY = marked()[0]


def exif(orientation=1):
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = orientation, SECRET.decode()
    return tags


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_everything(kind):
    """An image with secrets wherever its format has room for them."""
    image = Image.fromarray(COLOUR)
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Patient", SECRET.decode(), zip=True)
        info.add_itxt("Name", SECRET.decode())
        data = encoded(image, pnginfo=info, exif=exif(), icc_profile=SECRET * 9, dpi=(72, 72))
        return data[:33] + chunk(b"prIv", SECRET) + data[33:] + SECRET
    data = encoded(image, "JPEG", exif=exif(), icc_profile=SECRET * 9, comment=SECRET, quality=90)
    jfxx = b"\xff\xe0" + struct.pack(">H", 8 + len(SECRET)) + b"JFXX\0\x10" + SECRET
    return data[:2] + jfxx + data[2:-2] + b"\xff\xfe" + struct.pack(">H", 2 + len(SECRET)) + SECRET + data[-2:] + SECRET


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_nothing_but_pixels_passes_and_those_to_the_bit(kind):
    data = with_everything(kind)
    assert SECRET in data
    picture = picture_of(data, "x")
    assert SECRET not in picture.data and b"Exif" not in picture.data and picture.changes == ()
    np.testing.assert_array_equal(decode_image(picture.data), decode_image(data))
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.format == kind and not image.getexif() and "icc_profile" not in image.info
        assert not getattr(image, "text", {}) and "comment" not in image.info
    assert picture_of(picture.data, "x") == picture, "what has been stripped stays as it is"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_jpeg_data_are_not_encoded_anew(options):
    data = encoded(Image.fromarray(COLOUR), "JPEG", **options)
    picture = picture_of(data, "x")
    assert picture.data == data or data[20:] == picture.data[-len(data) + 20 :]
    np.testing.assert_array_equal(decode_image(picture.data), decode_image(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_pixels_stand_as_a_viewer_shows_them(kind, orientation):
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    data = encoded(Image.fromarray(COLOUR), kind, exif=exif(orientation), **lossless)
    picture = picture_of(data, "x")
    plain = encoded(Image.fromarray(COLOUR), kind, **lossless)
    expected = Image.fromarray(decode_image(plain))
    expected = expected.transpose(TRANSPOSE[orientation]) if orientation > 1 else expected
    np.testing.assert_array_equal(decode_image(picture.data), np.asarray(expected))
    assert picture.size == expected.size and picture.orientation == orientation
    assert picture.stored_size == (40, 30) and SECRET not in picture.data
    assert bool(picture.changes) == (orientation > 1)


@hypothesis.given(st.integers(1, 8), st.integers(0, 9), st.integers(0, 7), st.integers(1, 10), st.integers(1, 8))
def test_masks_and_boxes_turn_as_pixels_do(orientation, x, y, columns, rows):
    mask = np.zeros((20, 24), bool)
    mask[y : y + rows, x : x + columns] = True
    image = Image.fromarray(mask)
    turned = turn_mask(mask, orientation)
    np.testing.assert_array_equal(turned, image.transpose(TRANSPOSE[orientation]) if orientation > 1 else mask)
    assert turn_size((24, 20), orientation) == turned.shape[::-1]
    x0, y0, x1, y1 = map(int, turn_box((x, y, x + columns, y + rows), orientation, (24, 20)))
    assert turned[y0:y1, x0:x1].all() and turned.sum() == (x1 - x0) * (y1 - y0)


def animated(kind):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


CONVERTED = {
    "16 bits": (lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 16)), "stretched to 8 bits"),
    "16 bits of colour": (lambda: png16(), "16 bits per colour reduced to 8"),
    "float": (lambda: encoded(Image.fromarray(GREY.astype(np.float32) / 7), "TIFF"), "stretched to 8 bits"),
    "not a number": (
        lambda: encoded(Image.fromarray(np.where(GREY > 200, np.nan, GREY).astype(np.float32)), "TIFF"),
        "42 pixels without a finite value",
    ),
    "alpha": (lambda: encoded(Image.fromarray(np.dstack([COLOUR, GREY]))), "alpha dropped"),
    "grey and alpha": (lambda: encoded(Image.fromarray(np.dstack([GREY, GREY]), "LA")), "alpha dropped"),
    "transparent colour": (lambda: encoded(Image.fromarray(GREY), transparency=0), "alpha dropped"),
    "CMYK": (lambda: encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "CMYK converted to RGB"),
    "animated PNG": (lambda: animated("PNG"), "the first is kept"),
    "animated GIF": (lambda: animated("GIF"), "the first is kept"),
    "several pages": (lambda: animated("TIFF"), "the first is kept"),
}


def png16():
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 257)
    header = struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0)
    return containers.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CONVERTED)
def test_what_a_record_cannot_hold_is_converted_and_told(name):
    make, change = CONVERTED[name]
    data = make()
    picture = picture_of(data, "x")
    assert change in "; ".join(picture.changes)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.mode in ("L", "RGB", "P") and getattr(image, "n_frames", 1) == 1
        assert picture.data.startswith(containers.PNG) and picture.data[24] == 8
    expected = decode_image(data)  # what prediction sees of the same file
    np.testing.assert_array_equal(decode_image(picture.data), expected)


def test_16_bits_keep_their_range():
    values = np.arange(1200, dtype=np.uint16).reshape(30, 40) + 1000  # 12 bits of 16, as detectors have
    pixels = decode_image(picture_of(encoded(Image.fromarray(values)), "x").data)[..., 0]
    assert pixels.min() == 0 and pixels.max() == 255 and (np.diff(pixels.ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_other_formats_become_png_of_the_same_pixels(mode, kind):
    data = encoded(Image.fromarray(COLOUR).convert(mode), kind)
    picture = picture_of(data, "x")
    assert picture.data.startswith(containers.PNG) and picture.changes == ()
    np.testing.assert_array_equal(decode_image(picture.data), decode_image(data))


def cut(data, share):
    return data[: int(len(data) * share)]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


NOISE = encoded(Image.fromarray(COLOUR))
BAD = {
    "cut PNG": (cut(NOISE, 0.6), "unreadable image: x: cut off"),
    "PNG without end": (NOISE[:-12], "unreadable image: x: cut off"),
    "wrong checksum": (flipped(NOISE, len(NOISE) // 2), "unreadable image: x: the checksum of a chunk b'IDAT'"),
    "cut JPEG": (cut(encoded(Image.fromarray(COLOUR), "JPEG"), 0.6), "unreadable image: x"),
    "cut BMP": (cut(encoded(Image.fromarray(COLOUR), "BMP"), 0.6), "unreadable image: x"),
    "empty": (b"", "unreadable image: x: not an image format"),
    "text": (b"<html>404</html>", "unreadable image: x: not an image format"),
    "only a header": (NOISE[:33], "unreadable image: x: cut off"),
    "bomb": (
        containers.PNG
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b""),
        "image too large: x",
    ),
    "no finite pixel": (
        encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
        "unreadable image: x: it has no finite pixel",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_one_line(name):
    data, message = BAD[name]
    with pytest.raises(BadRecord) as caught:
        picture_of(data, "x")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]), st.integers(0, 10**6), st.binary(max_size=9)
)
def test_damage_anywhere_gives_a_whole_record_or_a_line(kind, at, junk):
    data = encoded(Image.fromarray(COLOUR[:8, :8]), kind)
    at %= len(data)
    damaged = data[:at] + junk + data[at + len(junk) :]
    try:
        picture = picture_of(damaged, "x")
    except BadRecord as bad:
        assert "\n" not in str(bad)
    else:
        assert decode_image(picture.data).shape == (picture.height, picture.width, 3)


def test_a_missing_file_is_one_line(tmp_path):
    for path in (tmp_path / "none.png", tmp_path, tmp_path / "a\0b.png"):
        with pytest.raises(BadRecord, match="missing image"):
            read_picture(path)


def test_names_of_any_bytes_can_be_shown_and_found(tmp_path):
    name = b"caf\xe9 \n.png".decode("utf-8", "surrogateescape")
    (tmp_path / name).write_bytes(encoded(Image.fromarray(GREY)))
    for litter in ("._x.png", "x.txt", ".hidden/y.png", "__MACOSX/z.png"):
        (tmp_path / litter).parent.mkdir(exist_ok=True)
        (tmp_path / litter).write_bytes(b"")
    (found,) = walk(tmp_path)
    assert shown(found.name) == r"caf\xe9 \n.png" and read_picture(found).size == (40, 30)
    assert shown("über café") == "über café" and shown("\ud800") == r"\ud800"


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("frame", ["stored", "shown"])
def test_the_folder_format_turns_its_regions_with_the_image(tmp_path, orientation, frame):
    pixels, mask = marked()
    turned = turn_mask(mask, orientation)
    if frame == "shown" and orientation == 3:
        return  # of the same size: the folder format has no option to say so
    mask = mask if frame == "stored" else turned
    rows, columns = np.nonzero(mask)
    box = [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    save(tmp_path / "set/a.jpg", Image.fromarray(pixels), exif=exif(orientation), quality=95)
    save(tmp_path / "set/m.png", mask.astype(np.uint8))
    image = {"image_id": "a", "image": "a.jpg", "width": mask.shape[1], "height": mask.shape[0]}
    regions = [{"image_id": "a", "label": "liver", "mask": "m.png"}, {"image_id": "a", "label": "liver", "box": box}]
    (tmp_path / "set/images.jsonl").write_text(json.dumps(image) + "\n")
    (tmp_path / "set/annotations.jsonl").write_text("".join(json.dumps(region) + "\n" for region in regions))
    source = open_folder(tmp_path / "set", ONTOLOGY, ONTOLOGY, "train", Report())
    (example,) = examples(source)
    by_mask, by_box = example.regions
    np.testing.assert_array_equal(mask_of(example, by_mask), turned)
    assert by_box.box == by_mask.box and SECRET not in example.image
