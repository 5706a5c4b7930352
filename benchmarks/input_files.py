"""Synthetic medical-like images of `benchmarks.input_throughput`: plain files, and a corpus of the very same bytes."""

import io
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import ndimage

from data.assembly import build_corpus
from data.report import Report
from data.sources import Items, Source
from data.sources.regions import tight_box
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.records import Region, RegionExample, encode_mask
from medp_clip_jax.tokenizer import train_tokenizer

LABELS = [f"structure {number}" for number in range(40)]
# Least and greatest radius of the regions as shares of the shorter side: 3 organs, 7 structures, 5 tiny lesions.
RADII = 3 * [(0.15, 0.35)] + 7 * [(0.03, 0.12)] + 5 * [(0.003, 0.012)]
SIZES = {"jpeg": (1024, 768), "png": (512, 512)}  # width, height; colour and grey
VOCABULARY = 8192


def draw(index: int, kind: str) -> tuple[bytes, list[dict]]:
    """Encoded image `index` and its regions: a smooth body with noise, ragged blobs of their own brightness."""
    rng = np.random.default_rng(index)
    width, height = SIZES[kind]
    coarse = rng.standard_normal((8, 10), np.float32)
    body = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) * 25 + 90
    regions = []
    for low, high in RADII:
        mask = blob(height, width, rng.uniform(low, high) * min(height, width), rng)
        body[mask] += rng.uniform(-40, 60)
        box = tight_box(mask)
        assert box is not None
        rle = encode_mask(mask).decode()
        label = int(rng.integers(len(LABELS)))
        regions.append({"label": label, "box": box, "rle": rle, "area": int(np.count_nonzero(mask))})
    body = ndimage.uniform_filter(body, 3)  # no border is sharper than a scanner's
    if kind == "jpeg":
        tint = rng.uniform(0.6, 1.1, 3).astype(np.float32)
        body = body[..., None] * tint + 4 * rng.standard_normal((height, width, 1), np.float32)
    else:
        body = body + 3 * rng.standard_normal((height, width), np.float32)
    file = io.BytesIO()
    image = Image.fromarray(np.clip(body, 0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=90) if kind == "jpeg" else image.save(file, "PNG")
    return file.getvalue(), regions


def blob(height: int, width: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A region with a wavy border around a random centre, bool [height, width], never empty."""
    cx, cy = rng.uniform(0.15, 0.85, 2) * (width, height)
    reach = int(2.5 * radius) + 2  # drawn in a window alone, which is much faster
    left, top = max(int(cx) - reach, 0), max(int(cy) - reach, 0)
    window = np.s_[top : int(cy) + reach, left : int(cx) + reach]
    mask = np.zeros((height, width), bool)
    y, x = (
        axis.astype(np.float32)
        for axis in np.ogrid[window[0].start : min(window[0].stop, height), left : min(window[1].stop, width)]
    )
    dx, dy = x + 0.5 - cx, (y + 0.5 - cy) * rng.uniform(0.7, 1.4)
    angle = np.arctan2(dy, dx)
    border = 1 + sum(rng.uniform(0, 0.2) * np.sin(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 7))
    mask[window] = dx**2 + dy**2 <= (radius * border) ** 2
    mask[int(cy), int(cx)] = True
    return mask


def write_files(folder: pathlib.Path, kind: str, count: int) -> None:
    """`count` images as plain files, `annotations.json` beside them, and `tokenizer.json`, which both sides use."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(count):
        data, regions = draw(index, kind)
        name = f"{index:05d}.{kind}"
        (folder / name).write_bytes(data)
        width, height = SIZES[kind]
        told = ", ".join(LABELS[region["label"]] for region in regions[:6])
        rows.append(
            {"file": name, "width": width, "height": height, "caption": f"an image showing {told}", "regions": regions}
        )
    (folder / "annotations.json").write_text(json.dumps(rows))
    train_tokenizer([row["caption"] for row in rows], VOCABULARY).save(folder / "tokenizer.json")


def write_corpus(folder: pathlib.Path, output: pathlib.Path) -> Corpus:
    """A corpus of the images of `write_files`, bytes unchanged."""
    rows = json.loads((folder / "annotations.json").read_text())

    def read(index: int) -> Iterator[RegionExample]:
        row = rows[index]
        regions = tuple(
            Region(f"label_{found['label']}", tuple(found["box"]), found["rle"].encode(), float(found["area"]))
            for found in row["regions"]
        )
        yield RegionExample(
            (folder / row["file"]).read_bytes(), row["width"], row["height"], dataset="synthetic",
            image_id=row["file"], group=row["file"], modality="ct", anatomy="", view="", caption=row["caption"],
            image_labels=(), regions=regions,
        )  # fmt: skip

    items = {"train": Items(range(len(rows)), read)}
    source = Source(
        "synthetic", "benchmark", folder.name, {"train": items["train"].stream}, {"origin": "generated"}, items=items
    )
    ontology = Ontology([Node(f"label_{number}", name) for number, name in enumerate(LABELS)])
    return build_corpus(output, [lambda _: source], ontology, Report(), 1)
