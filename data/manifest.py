"""Counts that the manifest keeps of a split, so that nobody has to scan the records for them.

Each shard counts its own records; the split's counts are the sums. Groups that lie in several shards must not count
twice, and their names would not fit into memory at the size of a large corpus: a shard keeps 64-bit hashes of its
groups on disk, and the union is counted hash range by hash range.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medp_clip_jax.records import RegionExample

SUMS = ("images", "regions", "masks")
TALLIES = ("labels", "image_labels", "modalities")
ALL = ""  # stands for the label in the hashes of a split's groups as a whole; no label is empty
AT_ONCE = 4_000_000  # hashes looked at in one range


@dataclasses.dataclass
class SplitCounts:
    """Counts the records that pass through `watch`."""

    images: int = 0
    regions: int = 0
    masks: int = 0
    labels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    image_labels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    modalities: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    groups: dict[str, set[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(set))

    def watch(self, examples: Iterable[RegionExample]) -> Iterator[RegionExample]:
        """Passes the examples on unchanged."""
        for example in examples:
            self.images += 1
            self.groups[ALL].add(example.group)
            self.modalities[example.modality] += 1
            self.image_labels.update(example.image_labels)
            for region in example.regions:
                self.regions += 1
                self.masks += bool(region.rle)
                self.labels[region.label] += 1
                self.groups[region.label].add(example.group)
            yield example

    def as_json(self) -> dict[str, Any]:
        """The counts that add up over shards."""
        tallies = {name: dict(sorted(getattr(self, name).items())) for name in TALLIES}
        return {name: getattr(self, name) for name in SUMS} | tallies

    def hashes(self) -> dict[str, np.ndarray]:
        """Label (`ALL` for the whole split) -> sorted hashes uint64 [groups] of the groups that have it."""
        return {label: np.sort(_hashes(groups)) for label, groups in sorted(self.groups.items())}


def _hashes(names: Iterable[str]) -> np.ndarray:
    digests = [hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), "<u8")


def save_hashes(path: pathlib.Path, hashes: Mapping[str, np.ndarray]) -> None:
    """Writes a shard's hashes: the labels, how many hashes each has, and all hashes one after another."""
    parts = list(hashes.values())
    with path.open("wb") as file:
        np.savez(
            file,
            labels=np.array(list(hashes), dtype=np.str_),
            counts=np.array([len(part) for part in parts], np.int64),
            hashes=np.concatenate([np.zeros(0, np.uint64), *parts]),
        )


def merge(shards: Iterable[Mapping[str, Any]], hashes: Sequence[pathlib.Path]) -> dict[str, Any]:
    """The split's entry in the manifest from its shards' counts and files of hashes, keys sorted."""
    sums: collections.Counter[str] = collections.Counter()
    tallies: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in TALLIES}
    for shard in shards:
        sums.update({name: shard[name] for name in SUMS})
        for name, tally in tallies.items():
            tally.update(shard[name])
    groups = _distinct(hashes)
    return {
        **{name: sums[name] for name in SUMS},
        "groups": groups.pop(ALL, 0),
        "labels": dict(sorted(tallies["labels"].items())),
        "label_groups": dict(sorted(groups.items())),
        "image_labels": dict(sorted(tallies["image_labels"].items())),
        "modalities": dict(sorted(tallies["modalities"].items())),
    }


def _distinct(paths: Sequence[pathlib.Path]) -> dict[str, int]:
    """Label -> number of different hashes over all files, reading a range of hashes at a time."""
    ranges = 1 + sum(path.stat().st_size for path in paths) // (8 * AT_ONCE)
    edges = [(1 << 64) * i // ranges for i in range(ranges + 1)]
    counts: collections.Counter[str] = collections.Counter()
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        found: dict[str, list[np.ndarray]] = collections.defaultdict(list)
        for path in paths:
            with np.load(path) as file:
                labels, ends, hashes = file["labels"].tolist(), np.cumsum(file["counts"]), file["hashes"]
            for label, part in zip(labels, np.split(hashes, ends)[:-1], strict=True):
                begin = np.searchsorted(part, np.uint64(low))
                end = np.searchsorted(part, np.uint64(high)) if high < 1 << 64 else len(part)
                found[label].append(part[begin:end].copy())  # a view would hold the whole file
        counts.update({label: np.unique(np.concatenate(parts)).size for label, parts in found.items()})
    return dict(counts)
