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


def held(folder: pathlib.Path, images: Collection[str], number: int, draw: int = 0) -> set[str]:
    """Those of a data set's `images` whose groups are in one third of them, numbered from 0.

    Another `draw` makes other thirds: of groups with the same labels other ones, and in each three neighbours of the
    order other ones, so that a group whose labels no other one has may change its third, too.

    Raises:
      InputError: a listing is damaged, or `images` or annotations are of images that it lacks.
    """
    rows = list(_lines(folder / "images.jsonl", "image_id", "group"))
    group = {row["image_id"]: row["group"] for row in rows}
    whole = {row["group"] for row in rows if row.get("augmented_by_mirror")}
    marks = list(_lines(folder / "annotations.jsonl", "image_id", "label"))
    if missing := {*images, *(mark["image_id"] for mark in marks)} - set(group):
        raise InputError(f"{folder}: {min(missing)} is split or annotated, and images.jsonl lacks it: mend the tables")
    labels = collections.defaultdict(set)
    for mark in marks:
        labels[group[mark["image_id"]]].add(mark["label"])

    def lot(name: str) -> str:
        return hashlib.sha256(f"{draw or ''}{folder.name}{name}".encode()).hexdigest()

    order = sorted({group[image] for image in images} - whole, key=lambda name: (sorted(labels[name]), lot(name)))
    if draw:
        order = [name for row in range(0, len(order), PARTS) for name in sorted(order[row : row + PARTS], key=lot)]
    chosen = set(order[number::PARTS])
    return {image for image in images if group[image] in chosen}


def _lines(path: pathlib.Path, *fields: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.is_file() else (), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
            raise InputError(
                f"{path}:{number}: expected a JSON object with {', '.join(fields)}: mend or remove the line"
            )
        yield row


def developed(folder: pathlib.Path, split: dict[str, str]) -> dict[str, str]:
    """The split of a data set's images, from the one that it has."""
    used = {image for image, part in split.items() if part in ("train", "val")}
    chosen = held(folder, used, 1)
    return {image: ("val" if image in chosen else "train") if image in used else "unused" for image in split}


def read_splits(source: pathlib.Path) -> dict[str, dict[str, str]]:
    """Data set -> image -> part; InputError where the folder has no splits.json, or none that can be read."""
    path = source / "splits.json"
    if not path.is_file():
        raise InputError(f"--input={source}: expected a folder of data sets with a splits.json")
    try:
        splits = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}): mend it") from error
    if not isinstance(splits, dict) or not all(isinstance(split, dict) for split in splits.values()):
        raise InputError(f"{path}: expected data set -> image -> part: mend it")
    return splits


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
