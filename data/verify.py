"""Whether a corpus is whole: every file as it was written, every record readable and true to itself."""

import collections
import functools
import os
from collections.abc import Container, Iterator

import numpy as np

from data import parallel
from data.reading import corpus_in, records_in
from data.shards import checksum
from data.sources.regions import tight_box
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import Region, RegionExample, decode_image, decode_mask

AT_ONCE = 256  # records that a process looks at in one go
ROUNDING = 1e-5  # of areas, which are stored as float32

Range = tuple[str, str, int, int]  # source, split, records from and to


def verify(corpus: Corpus, workers: int) -> Iterator[str]:
    """Yields one line for each damaged file, record or count of a corpus, in order: where, and what is wrong."""
    ranges: list[Range] = []
    for name in corpus.sources:
        for split in sorted(corpus.manifest["sources"][name]["splits"]):
            try:
                count = len(corpus.source(name, split))
            except InputError as error:
                yield f"{name}/{split}: {error}"
                continue
            ranges += [(name, split, begin, min(begin + AT_ONCE, count)) for begin in range(0, count, AT_ONCE)]
    yield from _damaged_files(corpus, workers)
    counted: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    check = functools.partial(check_range, os.fspath(corpus.directory))
    for (name, split, *_), (lines, counts) in zip(ranges, parallel.ordered(check, ranges, workers), strict=True):
        yield from lines
        counted[name, split].update(counts)
    for (name, split), counts in counted.items():
        stated = corpus.manifest["sources"][name]["splits"][split]
        for field in ("images", "regions", "masks"):
            if counts[field] != stated[field]:
                yield f"{name}/{split}: {counts[field]:,} {field}, the manifest says {stated[field]:,}"


def _damaged_files(corpus: Corpus, workers: int) -> Iterator[str]:
    stated = {
        file: sha256
        for entry in corpus.manifest["sources"].values()
        for file, sha256 in entry.get("checksums", {}).items()  # earlier builds had one for all
        if (corpus.directory / file).is_file()
    }
    found = parallel.ordered(checksum, [corpus.directory / file for file in stated], workers)
    for (file, sha256), now in zip(stated.items(), found, strict=True):
        if now != sha256:
            yield f"{file}: its content has changed since it was written (SHA-256)"


def check_range(directory: str, place: Range) -> tuple[list[str], collections.Counter[str]]:
    """Looks at some records of the corpus in `directory`: what is wrong with them, and how much is in them."""
    name, split, begin, end = place
    records, labels = records_in(directory, name, split), corpus_in(directory).ontology
    lines: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    for index in range(begin, end):
        counts["images"] += 1
        try:
            example = records[index]
        except InputError as error:
            lines.append(f"{name}/{split}/{index}: {error}")
            continue
        counts.update(regions=len(example.regions), masks=sum(bool(region.rle) for region in example.regions))
        lines += [f"{name}/{split}/{index}: {example.image_id}: {problem}" for problem in problems(example, labels)]
    return lines, counts


def problems(example: RegionExample, labels: Container[str]) -> Iterator[str]:
    """Yields what is wrong with a record, whose labels must be among `labels`."""
    for field in ("dataset", "image_id", "group"):
        if not getattr(example, field):
            yield f"{field} is empty"
    try:
        height, width = decode_image(example.image).shape[:2]
        if (width, height) != (example.width, example.height):
            yield f"the image is {width} x {height} px, the record says {example.width} x {example.height}"
    except InputError as error:
        yield str(error)
    for label in example.image_labels:
        if label not in labels:
            yield f"image label {label!r} is not in the ontology"
    for number, region in enumerate(example.regions):
        for problem in _region_problems(region, example.width, example.height):
            yield f"region {number} ({region.label}): {problem}"
        if region.label not in labels:
            yield f"region {number}: label {region.label!r} is not in the ontology"


def _region_problems(region: Region, width: int, height: int) -> Iterator[str]:
    x0, y0, x1, y1 = region.box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        yield f"box {region.box} does not lie in the image of {width} x {height} px"
        return
    area = (x1 - x0) * (y1 - y0)
    if region.rle:
        try:
            mask = decode_mask(region.rle, height, width)
        except InputError as error:
            yield str(error)
            return
        area = float(np.count_nonzero(mask))
        tight = tight_box(mask)
        if tight is None:
            yield "its mask is empty"
        elif tight != region.box:
            yield f"its box is {region.box}, its mask fills {tight}"
    if abs(region.area - area) > ROUNDING * max(1.0, width * height):
        yield f"its area is {region.area:g} px, its {'mask' if region.rle else 'box'} has {area:g}"
