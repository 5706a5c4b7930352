"""How much burnt-in text the detector finds, and how often it is wrong: `python -m benchmarks.burned_in_text`.

Text is drawn over grey images in Pillow's and OpenCV's fonts: what machines and people write (names, dates, numbers),
white, grey or with an outline, on dark and on textured ground, in sizes from 10 to 32 px, with JPEG artefacts or
without. The images are generated phantoms and pydicom's test files, or those below `--images=DIR`. Every image is also
looked at without text. Recall is per image, the false alarms are of images without text.
"""

import collections
import io
import pathlib
import string
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from absl import flags
from PIL import Image, ImageDraw, ImageFont

from data import burned_in, phantoms
from data.sources.files import walk
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.readers import read_image
from medp_clip_jax.records import decode_image

SIZES = ((10, 12), (13, 16), (17, 22), (23, 32))  # px of the font
STYLES = ("white", "grey", "black", "outlined", "opencv")
SHORTEST = 200  # px of an image's side: smaller ones are enlarged first, as text would not fit


def backgrounds(folder: str, limit: int) -> Iterator[np.ndarray]:
    """Grey images uint8 [height, width]."""
    if folder:
        paths = list(walk(pathlib.Path(folder)))
        if not paths:
            raise InputError(f"{folder}: holds no pictures: give a folder of PNG or JPEG files")
        order = np.random.default_rng(0).permutation(len(paths))[:limit]
        for path in (paths[i] for i in order):
            yield grey(decode_image(path.read_bytes(), burned_in.LARGEST))
        return
    from pydicom.data import get_testdata_file

    for name in ("CT_small.dcm", "MR_small.dcm"):
        yield grey(read_image(pathlib.Path(str(get_testdata_file(name)))))
    for example in phantoms.phantom_examples("train", limit, 0, 256):
        yield grey(decode_image(example.image))


def grey(image: np.ndarray) -> np.ndarray:
    """Grey, and enlarged by a whole number where text would not fit."""
    image = image.mean(axis=-1).astype(np.uint8)
    scale = max(1, -(-SHORTEST // min(image.shape)))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else image


def words(rng: np.random.Generator) -> str:
    """A line such as machines and people write."""

    def letters(count: int, alphabet: str = string.ascii_uppercase) -> str:
        return "".join(rng.choice(list(alphabet), count))

    def digits(count: int) -> str:
        return letters(count, string.digits)

    kinds = (
        f"{letters(7)} {letters(5)}",
        f"{letters(1)}{letters(6, string.ascii_lowercase)}, {letters(1)}{letters(5, string.ascii_lowercase)}",
        f"ID {digits(8)}",
        f"{digits(2)}.{digits(2)}.19{digits(2)}",
        f"20{digits(2)}-{digits(2)}-{digits(2)} {digits(2)}:{digits(2)}",
        f"DOB {digits(2)}/{digits(2)}/{digits(4)} {letters(1)}",
    )
    return str(rng.choice(kinds))


def draw(image: np.ndarray, text: str, size: int, style: str, rng: np.random.Generator) -> np.ndarray:
    """The image with a line of text near a corner or edge, where such text stands."""
    height, width = image.shape
    ink = {"grey": int(rng.integers(170, 230)), "black": 0}.get(style, 255)
    if style == "opencv":
        made, scale = image.copy(), size / 22
        (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        x, y = place(rng, width, height, wide, high)
        cv2.putText(made, text, (x, y + high), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
        return made
    picture = Image.fromarray(image)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    _, _, wide, high = pen.textbbox((0, 0), text, font)
    x, y = place(rng, width, height, int(wide), int(high))
    if style == "black":  # dark text stands on something bright
        pen.rectangle((x - 3, y - 3, x + wide + 3, y + high + 3), fill=200)
    outline = dict(stroke_width=1, stroke_fill=0) if style == "outlined" else {}
    pen.text((x, y), text, ink, font, **outline)
    return np.asarray(picture)


def place(rng: np.random.Generator, width: int, height: int, wide: int, high: int) -> tuple[int, int]:
    """Where text goes: left, right or middle; top, bottom or anywhere."""
    x = int(rng.choice([4, max(4, width - wide - 4), max(4, (width - wide) // 2)]))
    y = int(rng.choice([4, max(4, height - high - 8), max(4, int(rng.integers(4, max(5, height - high - 8))))]))
    return x, y


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The image after a loss by JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def measure(images: Sequence[np.ndarray], seed: int) -> tuple[dict, float, float]:
    """(style, size, jpeg) -> found and drawn; the share of images without text that are flagged; CPU s per image."""
    rng = np.random.default_rng(seed)
    found: dict = collections.defaultdict(lambda: [0, 0])
    alarms, started = 0, time.process_time()
    looked = 0
    for image in images:
        alarms += bool(burned_in.text_lines(image))
        looked += 1
        for style in STYLES:
            for low, high in SIZES:
                jpeg = bool(rng.integers(2))
                drawn = draw(image, words(rng), int(rng.integers(low, high + 1)), style, rng)
                drawn = as_jpeg(drawn, 85) if jpeg else drawn
                entry = found[style, (low, high), jpeg]
                entry[0] += bool(burned_in.text_lines(drawn))
                entry[1] += 1
                looked += 1
    return dict(found), alarms / max(1, len(images)), (time.process_time() - started) / max(1, looked)


def share(found: dict, chosen) -> str:
    """Recall among the entries that are chosen."""
    hits, all_ = (sum(entry[i] for key, entry in found.items() if chosen(*key)) for i in (0, 1))
    return f"{hits / all_:6.1%} of {all_:,}" if all_ else "-"


def define_flags() -> None:
    """The command line; not at import."""
    flags.DEFINE_string("images", "", "Folder of pictures to draw on; generated and test images without one.")
    flags.DEFINE_integer("limit", 200, "Images to look at, at most.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Another number draws other text.")


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    images = list(backgrounds(flags.FLAGS.images, flags.FLAGS.limit))
    found, alarms, seconds = measure(images, flags.FLAGS.seed)
    print(f"{len(images)} images, {1000 * seconds:.1f} ms of CPU time each")
    print(f"recall                 {share(found, lambda *key: True)}")
    for style in STYLES:
        print(f"  {style:<20} {share(found, lambda s, size, jpeg, style=style: s == style)}")
    for size in SIZES:
        print(f"  {size[0]} to {size[1]} px{'':<11} {share(found, lambda s, z, jpeg, size=size: z == size)}")
    for jpeg in (False, True):
        name = "JPEG" if jpeg else "no JPEG"
        print(f"  {name:<20} {share(found, lambda s, z, j, jpeg=jpeg: j == jpeg)}")
    print(f"false alarms           {alarms:6.1%} of {len(images)} images without text")


if __name__ == "__main__":
    define_flags()
    run_cli(main)
