"""Contact sheets of a corpus: sample images with their regions, for looking at on this machine and never for "
"sharing."""

import html
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from medp_clip_jax import overlay
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import RegionExample, decode_image, decode_mask

TILE = 320  # px
REGIONS = 6  # drawn on an image at most
COLUMNS = 4
LOOKED = 5  # images looked at for each that is shown, to find some with regions


def contact_sheets(corpus: Corpus, folder: pathlib.Path, each: int, seed: int) -> str:
    """Writes a JPEG per source with `each` images, drawn by the seed, and their regions; returns HTML that shows them.

    InputError if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shots = []
    for name in corpus.sources:
        examples = list(_sample(corpus, name, each, seed))
        if not examples:
            continue
        path = folder / f"{name}.jpg"
        try:
            _sheet([_tile(corpus, example) for example in examples]).save(path, quality=86)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}): name a writable --output") from error
        about = f"{name}: {len(examples)} images, at most {REGIONS} regions of each drawn in"
        shots.append(
            f'<figure class="card" style="margin:0"><img alt="{html.escape(about)}" src="{folder.name}/{path.name}">'
            f"<figcaption>{html.escape(about)}</figcaption></figure>"
        )
    return f'<section id="pictures"><h2>Pictures</h2><div class="grid sheets">{"".join(shots)}</div></section>'


def _sample(corpus: Corpus, name: str, each: int, seed: int) -> Sequence[RegionExample]:
    rng = np.random.default_rng([seed, len(name)])
    places = [
        (split, index)
        for split in sorted(corpus.manifest["sources"][name]["splits"])
        for index in range(corpus.count(name, split))
    ]
    looked = (places[i] for i in rng.permutation(len(places))[: LOOKED * each])
    examples = [corpus.source(name, split)[index] for split, index in looked]
    return sorted(examples, key=lambda example: not example.regions)[:each]  # those with regions first


def _tile(corpus: Corpus, example: RegionExample) -> Image.Image:
    pixels = decode_image(example.image)
    height, width = pixels.shape[:2]
    shapes = [
        overlay.Shape(
            corpus.ontology[region.label].name,
            None if region.rle else region.box,
            mask=decode_mask(region.rle, height, width) if region.rle else None,
        )
        for region in sorted(example.regions, key=lambda region: -region.area)[:REGIONS]
    ]
    picture = overlay.draw(pixels, shapes)
    picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return picture


def _sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (min(len(tiles), COLUMNS) * (TILE + 6), rows * (TILE + 6)), (18, 22, 28))
    for number, tile in enumerate(tiles):
        x, y = number % COLUMNS * (TILE + 6), number // COLUMNS * (TILE + 6)
        sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
    return sheet
