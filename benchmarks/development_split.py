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
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from medp_clip_jax.errors import InputError, run_cli


def lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text().splitlines()) if path.is_file() else iter(())


def developed(folder: pathlib.Path, split: dict[str, str]) -> dict[str, str]:
    """The split of a data set's images, from the one that it has."""
    rows = list(lines(folder / "images.jsonl"))
    group = {row["image_id"]: row["group"] for row in rows}
    whole = {row["group"] for row in rows if row.get("augmented_by_mirror")}
    labels = collections.defaultdict(set)
    for row in lines(folder / "annotations.jsonl"):
        labels[group[row["image_id"]]].add(row["label"])
    open_ = {image for image, part in split.items() if part in ("train", "val")}

    def order(name: str) -> tuple[list[str], str]:
        return sorted(labels[name]), hashlib.sha256((folder.name + name).encode()).hexdigest()

    held = set(sorted({group[image] for image in open_} - whole, key=order)[1::3])
    return {image: ("val" if group[image] in held else "train") if image in open_ else "unused" for image in split}


def main(argv: Sequence[str]) -> None:
    given = flags.FLAGS
    source, output = pathlib.Path(given.input), pathlib.Path(given.output)
    if not (source / "splits.json").is_file():
        raise InputError(f"--input={source}: expected a folder of data sets with a splits.json")
    output.mkdir(parents=True, exist_ok=True)
    splits = json.loads((source / "splits.json").read_text())
    found = {name: developed(source / name, split) for name, split in splits.items()}
    for name in found:
        if not (output / name).exists():
            (output / name).symlink_to((source / name).resolve())
    (output / "splits.json").write_text(json.dumps(found))
    counts = collections.Counter(part for split in found.values() for part in split.values())
    print(", ".join(f"{part} {count:,}" for part, count in sorted(counts.items())))


if __name__ == "__main__":
    flags.DEFINE_string("input", "../shared/regions", "A folder of data sets of the region schema, with a splits.json.")
    flags.DEFINE_string("output", "corpora/development_folder", "Folder to make.")
    run_cli(main)
