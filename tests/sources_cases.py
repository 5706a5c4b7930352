"""What the tests of adapters share: small pictures with a marker on one side, building a source, what it told."""

import io

import numpy as np
from PIL import Image

from data.report import Report
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.records import decode_image, decode_mask

ONTOLOGY = Ontology(
    [
        Node("organ", "organ"),
        Node("liver", "liver", parents=("organ",)),
        Node("spleen", "spleen", parents=("organ",)),
        Node("lung_left", "left lung", laterality="left"),
        Node("no_finding", "no finding", kind="finding"),
    ]
)
WIDTH, HEIGHT = 40, 30


def marked(seed=0, height=HEIGHT, width=WIDTH):
    """Grey pixels with a bright marker near the left edge, above the middle, and the marker's mask."""
    pixels = np.random.default_rng(seed).integers(0, 100, (height, width), np.uint8)
    mask = np.zeros((height, width), bool)
    mask[4:10, 2:9] = True
    pixels[mask] = 255
    return pixels, mask


def save(path, pixels, **options):
    """Writes an array or a PIL image as a file and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def opened(open_adapter, path, only="train", report=None, ontology=ONTOLOGY, **options):
    """The source that an adapter opens; `options` are those of --option."""
    return open_adapter(path, ontology, ontology, only, report or Report(), options)


def examples(source, split="train"):
    """All examples of a split, each checked: its image decodes to the size it states, its masks and boxes fit."""
    found = list(source.splits[split]()) if split in source.splits else []
    for example in found:
        assert decode_image(example.image).shape == (example.height, example.width, 3)
        assert example.image_id and example.group and (example.image_id + example.group + example.caption).encode()
        for region in example.regions:
            x0, y0, x1, y1 = region.box
            assert 0 <= x0 < x1 <= example.width and 0 <= y0 < y1 <= example.height
            if region.rle:
                assert mask_of(example, region).sum() == region.area > 0
    return found


def mask_of(example, region):
    return decode_mask(region.rle, example.height, example.width)


def assert_marker_on_the_left(example, region):
    """The region is the bright marker, and lies on the left above the middle, as in the file."""
    mask, pixels = mask_of(example, region), decode_image(example.image)[..., 0]
    np.testing.assert_array_equal(mask, pixels > 200)
    rows, columns = np.nonzero(mask)
    assert columns.mean() < example.width / 2 and rows.mean() < example.height / 2


def told(capsys):
    """The lines on stderr since the last call, without those on new labels."""
    return [line for line in capsys.readouterr().err.splitlines() if not line.startswith("new label")]


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
