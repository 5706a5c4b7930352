"""Which image belongs to which split: as the data set says, else by a hash of the group."""

import hashlib
import json
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from data.report import Report
from medp_clip_jax.errors import InputError

UNUSED = "unused"
FILE = "splits.json"
_WORDS = {
    "train": "train", "training": "train", "trainset": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip


def read_splits(folder: pathlib.Path, name: str) -> Mapping[str, str] | None:
    """The image id -> split table of data set `name` from splits.json in its folder or the root above; None without
    one."""
    for path in (folder / FILE, folder.parent / FILE):
        if not path.is_file():
            continue
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not readable as JSON ({error}): repair it") from error
        # the file of a single data set may leave out the level of data set names
        flat = (
            isinstance(table, dict)
            and path.parent == folder
            and all(isinstance(entry, str) for entry in table.values())
        )
        entry = table if flat else table.get(name) if isinstance(table, dict) else {}
        if entry is not None:
            _check(path, name, entry)
            return entry
    return None


def check_name(split: str) -> str:
    """Returns the name of a split if TFDS can hold it, else raises InputError."""
    if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":
        raise InputError(f"split name {split!r} cannot be used: take letters, digits and _, other than 'all'")
    return split


def named(text: str) -> str:
    """The split that a file or folder is called after: train, val or test, by the last such word in it; else ""."""
    words = re.findall(r"[a-z]+", text.lower())
    return next((_WORDS[word] for word in reversed(words) if word in _WORDS), "")


def _check(path: pathlib.Path, name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not entry or not all(isinstance(split, str) for split in entry.values()):
        raise InputError(f"{path}: {name}: expected data set -> image id -> split name: repair it")
    try:
        for split in set(entry.values()):
            check_name(split)
    except InputError as error:
        raise InputError(f"{path}: {name}: {error}") from error


def assign(
    rows: Sequence[Mapping[str, Any]], name: str, table: Mapping[str, str] | None, only: str, place: str, report: Report
) -> dict[str, list[Mapping[str, Any]]]:
    """Split name -> rows of images.jsonl in their order. Images the table marks as unused are left out in any case;
    with `only` all others go to that split, without a table 80/10/10 % of the groups go to train, val and test."""
    splits: dict[str, list[Mapping[str, Any]]] = {}
    train_groups = {row["group"] for row in rows if row.get("augmented_by_mirror")}
    for row in rows:
        split = table.get(row["image_id"]) if table else hashed(name, row["group"], train_groups)
        if split is None and not only:
            report.skip(f"{place}: {row['image_id']}", "image not in the splits", f"name it in {FILE}")
        elif split != UNUSED:
            splits.setdefault(only or str(split), []).append(row)
    splits = dict(sorted(splits.items()))
    _check_groups(splits, f"{place}: {name}", report)
    return splits


def _check_groups(splits: Mapping[str, Sequence[Mapping[str, Any]]], place: str, report: Report) -> None:
    homes: dict[str, list[str]] = {}
    for split, rows in splits.items():
        for group in {row["group"]: None for row in rows}:
            homes.setdefault(group, []).append(split)
    shared = {group: found for group, found in homes.items() if len(found) > 1}
    if shared:
        group, found = next(iter(shared.items()))
        warn_shared(place, len(shared), len(homes), group, found, report)


def warn_shared(place: str, shared: int, total: int, group: str, found: Sequence[str], report: Report) -> None:
    """Reports that `shared` of `total` groups lie in several splits, such as `group` in those `found`."""
    report.warn(
        place,
        f"{shared} of {total} groups lie in several splits, such as {group!r} in {' and '.join(found)}: "
        f"what was trained on is no test; give each group one split in {FILE}",
    )


def hashed(name: str, group: str, train_groups: Collection[str] = ()) -> str:
    """The split of a group of data set `name` where nothing else decides: train, val and test by 80, 10 and 10 %."""
    if group in train_groups:  # copies distorted by augmentation are nothing to measure on
        return "train"
    bucket = int.from_bytes(hashlib.sha256(f"{name}/{group}".encode()).digest()[:8], "big") % 10
    return {8: "val", 9: "test"}.get(bucket, "train")
