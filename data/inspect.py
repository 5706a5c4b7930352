"""What is in a corpus: `python -m data.inspect CORPUS` counts; `--record=SOURCE/SPLIT/INDEX --picture=OUT.png` shows a
record; `--verify` walks all of them and ends with 1 where one is damaged."""

import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from data import parallel
from data.verify import verify
from medp_clip_jax import overlay
from medp_clip_jax.corpus import Corpus, open_corpus
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.records import RegionExample, decode_image, decode_mask

MOST_LABELS = 20


def counts(corpus: Corpus, labels: int = MOST_LABELS) -> Iterator[str]:
    """Lines on what a corpus holds: its sources and splits, and its most frequent labels with those of modalities."""
    yield f"{corpus.directory}: {len(corpus.sources)} sources, {len(corpus.labels)} region labels"
    yield ""
    yield f"{'source':<26} {'split':<8} {'images':>10} {'regions':>12} {'masks':>12} {'groups':>9} {'labels':>7}"
    for name in corpus.sources:
        entry = corpus.manifest["sources"][name]
        for split, found in entry["splits"].items():
            numbers = f"{found['images']:>10,} {found['regions']:>12,} {found['masks']:>12,} {found['groups']:>9,}"
            yield f"{name:<26} {split:<8} {numbers} {len(found['labels']):>7,}"
    yield from _table("modality", "images", _sum(corpus, "modalities"), labels)
    yield from _table("label", "regions", _sum(corpus, "labels"), labels)
    yield from _table("image label", "images", _sum(corpus, "image_labels"), labels)
    yield from _table("skipped in the build", "records", _skipped(corpus), labels)


def _sum(corpus: Corpus, field: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for entry in corpus.manifest["sources"].values():
        for split in entry["splits"].values():
            for key, count in split[field].items():
                total[key] = total.get(key, 0) + count
    return total


def _skipped(corpus: Corpus) -> dict[str, int]:
    total: dict[str, int] = {}
    for entry in corpus.manifest["sources"].values():
        for reason, count in entry["skipped"].items():
            total[reason] = total.get(reason, 0) + count
    return total


def _table(title: str, unit: str, numbers: dict[str, int], most: int) -> Iterator[str]:
    if not numbers:
        return
    yield ""
    yield f"{title:<40} {unit:>12}"
    ranked = sorted(numbers.items(), key=lambda pair: (-pair[1], pair[0]))
    for key, count in ranked[:most]:
        yield f"{key or 'unknown':<40} {count:>12,}"
    if len(ranked) > most:
        yield f"{f'and {len(ranked) - most} more':<40} {sum(count for _, count in ranked[most:]):>12,}"


def find_record(corpus: Corpus, place: str) -> RegionExample:
    """The record at "source/split/index"; InputError if there is none."""
    parts = place.split("/")
    if len(parts) != 3 or not parts[2].isdecimal():
        raise InputError(f"--record={place}: expected SOURCE/SPLIT/INDEX, such as {_some_record(corpus)}")
    name, split, index = parts[0], parts[1], int(parts[2])
    records = corpus.source(name, split)
    if index >= len(records):
        there = f"0 to {len(records) - 1}" if records else "none"
        raise InputError(f"--record={place}: no such record: {name} has {there} in split {split!r}")
    return records[index]


def _some_record(corpus: Corpus) -> str:
    name = corpus.sources[0]
    return f"{name}/{next(iter(corpus.manifest['sources'][name]['splits']))}/0"


def describe(example: RegionExample) -> Iterator[str]:
    """Lines on one record."""
    for field in ("dataset", "image_id", "group", "modality", "anatomy", "view", "caption"):
        yield f"{field:<13} {getattr(example, field)}"
    kind = "PNG" if example.image.startswith(b"\x89PNG") else "JPEG"
    yield f"{'image':<13} {example.width} x {example.height} px, {len(example.image):,} bytes of {kind}"
    yield f"{'image labels':<13} {', '.join(example.image_labels)}"
    for number, region in enumerate(example.regions):
        box = ", ".join(f"{side:g}" for side in region.box)
        kind = f"mask of {len(region.rle)} bytes" if region.rle else "box only"
        yield f"region {number:<6} {region.label}: box ({box}), {region.area:g} px, {kind}"


def picture(example: RegionExample):
    """The record as a picture: its regions drawn over its image (PIL image)."""
    shapes = [
        overlay.Shape(
            region.label,
            box=region.box,
            mask=decode_mask(region.rle, example.height, example.width) if region.rle else None,
        )
        for region in example.regions
    ]
    return overlay.draw(decode_image(example.image), shapes)


def define_flags() -> None:
    """The command line; not at import, so that other programs may define flags of the same names."""
    flags.DEFINE_string("record", "", "SOURCE/SPLIT/INDEX: tell about this record.")
    flags.DEFINE_string("picture", "", "Write the record with its regions to this PNG file.")
    flags.DEFINE_bool("verify", False, "Walk every record; exit with 1 and name those that are damaged.")
    flags.DEFINE_integer("labels", MOST_LABELS, "Lines of each table.", lower_bound=1)
    flags.DEFINE_integer("workers", 0, "Processes that verify; 0: one for each core.", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    """Prints what the flags ask for; raises InputError for anything wrong in them."""
    values = flags.FLAGS
    if len(argv) != 2:
        raise InputError("expected one argument: python -m data.inspect CORPUS")
    corpus = open_corpus(argv[1])
    if values.picture and not values.record:
        raise InputError("--picture needs --record=SOURCE/SPLIT/INDEX")
    if values.record:
        example = find_record(corpus, values.record)
        print("\n".join(describe(example)))
        if values.picture:
            _save(example, pathlib.Path(values.picture))
    elif values.verify:
        damaged = 0
        for line in verify(corpus, values.workers or parallel.cores()):
            print(f"damaged: {line}", flush=True)
            damaged += 1
        if damaged:
            print(f"{damaged:,} problems in {corpus.directory}: build the sources named above again")
            sys.exit(1)
        images = sum(corpus.count(name, split) for name in corpus.sources for split in corpus.splits)
        print(f"{corpus.directory}: all {images:,} records are whole")
    else:
        print("\n".join(counts(corpus, values.labels)))


def _save(example: RegionExample, path: pathlib.Path) -> None:
    try:
        picture(example).save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--picture={path}: cannot be written ({error}): name a .png file") from error


if __name__ == "__main__":
    define_flags()
    run_cli(main)
