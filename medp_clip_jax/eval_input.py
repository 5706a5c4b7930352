"""Evaluation images and their regions: a table of what is asked, and batches of static shape that ask it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from medp_clip_jax import augment, prompt_kinds, simulate
from medp_clip_jax.canvas import PADDING
from medp_clip_jax.errors import InputError
from medp_clip_jax.input import stack
from medp_clip_jax.loading import Loaded, load_small, max_side, region_spans
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.records import RegionExample

# Row of the table, kind of prompt, target and view -> target and view that are written.
Change = Callable[[int, str, simulate.Target, Sequence[float]], tuple[simulate.Target, Sequence[float]]]


@dataclasses.dataclass(frozen=True)
class EvalTable:
    """The images of a split, without their pixels, and one row per region; by source, record and region."""

    split: str
    images: list[RegionExample]  # [images], `image` is b""
    records: list[tuple[str, int]]  # [images]: source and index of the record in the corpus
    image_index: np.ndarray  # int32 [regions]: row in `images`
    region_index: np.ndarray  # int32 [regions]: place among the regions of its image
    label: list[str]  # [regions]: ontology ids
    box: np.ndarray  # float32 [regions, 4]: (x0, y0, x1, y1) in pixels of the stored image
    area_fraction: np.ndarray  # float32 [regions]: of the image area
    has_mask: np.ndarray  # bool [regions]


def eval_table(corpus, split: str, sources: Sequence[str] | None = None) -> EvalTable:
    """Reads the split's records (all sources, or those named) into a table; InputError where a source or any image is
    missing.
    """
    names = corpus.sources if sources is None else tuple(sources)
    unknown = [name for name in names if name not in corpus.sources]
    if unknown:
        raise InputError(f"no source {unknown[0]!r} in the corpus: choose among {', '.join(corpus.sources)}")
    records = [(name, i) for name in names for i in range(len(corpus.source(name, split)))]
    if not records:
        raise InputError(
            f"no images in split {split!r} of {', '.join(names)}: name another split; of a folder that is no corpus, "
            "--split=all takes all images"
        )
    readers = {name: corpus.source(name, split) for name in names}
    images = [dataclasses.replace(readers[name][i], image=b"") for name, i in records]
    rows = [(n, r, region) for n, image in enumerate(images) for r, region in enumerate(image.regions)]
    return EvalTable(
        split=split,
        images=images,
        records=records,
        image_index=np.array([n for n, _, _ in rows], np.int32),
        region_index=np.array([r for _, r, _ in rows], np.int32),
        label=[region.label for _, _, region in rows],
        box=np.array([region.box for _, _, region in rows], np.float32).reshape(-1, 4),
        area_fraction=np.array(
            [region.area / (images[n].width * images[n].height) for n, _, region in rows], np.float32
        ),
        has_mask=np.array([bool(region.rle) for _, _, region in rows], bool),
    )


def some_regions(table: EvalTable, rows: np.ndarray) -> EvalTable:
    """The table of the regions `rows` (ascending) and of the images that they lie in, without all others."""
    kept, index = np.unique(table.image_index[rows], return_inverse=True)
    return EvalTable(
        split=table.split,
        images=[table.images[image] for image in kept],
        records=[table.records[image] for image in kept],
        image_index=index.reshape(-1).astype(np.int32),
        region_index=table.region_index[rows],
        label=[table.label[row] for row in rows],
        box=table.box[rows],
        area_fraction=table.area_fraction[rows],
        has_mask=table.has_mask[rows],
    )


def eval_batches(
    corpus,
    table: EvalTable,
    config,
    kinds: Sequence[str] = prompt_kinds.EXACT,
    size: int = 0,
    process: int = 0,
    of: int = 1,
    change: Change | None = None,
) -> Iterator[dict]:
    """Batches of `size` rows (0: `config.eval.batch_size`), each one image and up to `config.eval.regions` of its
    regions, nothing left out; of the images and prompts only the rows of one process `of` several.

    A batch holds image uint8 [batch, size, size, 3], rectangle float32 [batch, 4], prompts {kind: `RegionPrompts`
    [batch, regions, ...]} (the exact mask, the exact box, one 'center' click; a region without a mask is asked by its
    box and its box's centre), image_row int32 [batch] and region_row int32 [batch, regions] into the table, -1 =
    padding. An image with more regions takes several rows, one without regions takes one, and the last batch is padded,
    so every batch has the same shapes. `change` gives the prompt of a row and kind another target, or the same one seen
    in another view. InputError names an unreadable record.
    """
    unknown = set(kinds) - set(prompt_kinds.EXACT)
    if unknown:
        raise InputError(
            f"evaluation prompts: expected kinds among {', '.join(prompt_kinds.EXACT)}, "
            f"got {', '.join(sorted(unknown))}"
        )
    rows = _rows(table, config.eval.regions)
    size = size or config.eval.batch_size
    part = size // of
    readers = {name: corpus.source(name, table.split) for name, _ in table.records}
    shown, loaded = -1, None
    for start in range(0, len(rows), size):
        chunk, elements = rows[start : start + size], []
        image_row, region_row = np.full(size, -1, np.int32), np.full((size, config.eval.regions), -1, np.int32)
        for row, (image, regions) in enumerate(chunk):
            image_row[row], region_row[row, : len(regions)] = image, regions
        for image, regions in chunk[process * part : (process + 1) * part]:
            if image != shown:  # the rows of one image follow each other
                name, record = table.records[image]
                shown, loaded = image, load_small(readers[name][record], max_side(config))
            elements.append(_element(loaded, regions, table, config, kinds, change))
        elements += [_padding(config, kinds)] * (part - len(elements))
        yield _assemble(elements, kinds) | {"image_row": image_row, "region_row": region_row}


def _rows(table: EvalTable, most: int) -> list[tuple[int, np.ndarray]]:
    """(image, its next at most `most` table rows), every image at least once."""
    starts = np.searchsorted(table.image_index, np.arange(len(table.images) + 1))
    rows = []
    for image, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        rows += [
            (image, np.arange(first, min(first + most, stop))) for first in range(start, max(stop, start + 1), most)
        ]
    return rows


def _element(
    loaded: Loaded, regions: np.ndarray, table: EvalTable, config, kinds: Sequence[str], change: Change | None
) -> dict:
    canvas, rectangle = augment.letterbox(loaded.picture, config.model.image.size)
    element = _padding(config, kinds) | {"image": canvas, "rectangle": rectangle}
    view = (0, 0, loaded.example.width, loaded.example.height)
    for slot, row in enumerate(regions):
        box = tuple(table.box[row].tolist())
        for kind in kinds:
            target = simulate.Target(box, None)
            if kind != "box" and table.has_mask[row]:
                (spans,) = region_spans(loaded, [int(table.region_index[row])])
                target = simulate.Target(spans.box, spans) if spans.column.size else target
            target, seen = change(int(row), kind, target, view) if change else (target, view)
            simulate.write_exact(element[kind], slot, target, seen, kind)
    return element


def _padding(config, kinds: Sequence[str]) -> dict:
    size, regions = config.model.image.size, config.eval.regions
    return {
        "image": np.full((size, size, 3), PADDING, np.uint8),
        "rectangle": np.array([0, 0, 1, 1], np.float32),
        **{kind: simulate.empty_prompts(regions, 1, config.input.mask_size) for kind in kinds},
    }


def _assemble(elements: Sequence[dict], kinds: Sequence[str]) -> dict:
    batch = {name: np.stack([element[name] for element in elements]) for name in ("image", "rectangle")}
    prompts: dict[str, RegionPrompts] = {
        kind: stack([element[kind] for element in elements])["prompts"] for kind in kinds
    }
    return batch | {"prompts": prompts}
