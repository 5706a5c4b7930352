"""A split to develop on: a third of the groups that are not in test become `val`, and test is left unused.

    python -m benchmarks.development_split --input=../shared/regions --output=corpora/development_folder
    python -m data.build --source=folder --input=corpora/development_folder --output=corpora/development

The folder has links to the data sets of `--input` and a splits.json of its own. Groups are ordered by their labels,
then by a hash of their name, and every third one is taken, so that rare labels are in both halves. Groups with copies
that a mirror distorted stay in train.
"""

import collections
import hashlib
import json
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from absl import flags

from medp_clip_jax.errors import InputError, run_cli

PARTS = 3


def held(folder: pathlib.Path, images: Collection[str], number: int) -> set[str]:
    """Those of a data set's `images` whose groups are in one third of them, numbered from 0."""
    rows = list(_lines(folder / "images.jsonl"))
    group = {row["image_id"]: row["group"] for row in rows}
    whole = {row["group"] for row in rows if row.get("augmented_by_mirror")}
    labels = collections.defaultdict(set)
    for row in _lines(folder / "annotations.jsonl"):
        labels[group[row["image_id"]]].add(row["label"])

    def order(name: str) -> tuple[list[str], str]:
        return sorted(labels[name]), hashlib.sha256((folder.name + name).encode()).hexdigest()

    chosen = set(sorted({group[image] for image in images} - whole, key=order)[number::PARTS])
    return {image for image in images if group[image] in chosen}


def _lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text().splitlines()) if path.is_file() else iter(())


def developed(folder: pathlib.Path, split: dict[str, str]) -> dict[str, str]:
    """The split of a data set's images, from the one that it has."""
    used = {image for image, part in split.items() if part in ("train", "val")}
    chosen = held(folder, used, 1)
    return {image: ("val" if image in chosen else "train") if image in used else "unused" for image in split}


def read_splits(source: pathlib.Path) -> dict[str, dict[str, str]]:
    """Data set -> image -> part; InputError where the folder has no splits.json."""
    if not (source / "splits.json").is_file():
        raise InputError(f"--input={source}: expected a folder of data sets with a splits.json")
    return json.loads((source / "splits.json").read_text())


def write_folder(source: pathlib.Path, output: pathlib.Path, splits: dict[str, dict[str, str]]) -> str:
    """Makes a folder of the data sets with another split, and says how many images each part has."""
    output.mkdir(parents=True, exist_ok=True)
    for name in splits:
        if not (output / name).exists():
            (output / name).symlink_to((source / name).resolve())
    (output / "splits.json").write_text(json.dumps(splits))
    counts = collections.Counter(part for split in splits.values() for part in split.values())
    return ", ".join(f"{part} {count:,}" for part, count in sorted(counts.items()))


def main(argv: Sequence[str]) -> None:
    source = pathlib.Path(flags.FLAGS.input)
    splits = {name: developed(source / name, split) for name, split in read_splits(source).items()}
    print(write_folder(source, pathlib.Path(flags.FLAGS.output), splits))


if __name__ == "__main__":
    flags.DEFINE_string("input", "../shared/regions", "A folder of data sets of the region schema, with a splits.json.")
    flags.DEFINE_string("output", "corpora/development_folder", "Folder to make.")
    run_cli(main)
