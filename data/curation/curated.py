"""What stays of a corpus, as sources of a new one."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from data.curation.scan import Table
from data.reading import records_in
from data.report import Report
from data.sources import Items, Source
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import RegionExample

AT_ONCE = 16  # records that are one item of work


class Kept:
    """The records of one split that stay, as items of work: (first record, regions to leave out of each record from
    there on; None leaves out the record)."""

    def __init__(self, first: int, count: int, dropped: np.ndarray):
        self._first, self._count, self._dropped = first, count, dropped

    def __len__(self) -> int:
        return -(-self._count // AT_ONCE)

    def __getitem__(self, index: int) -> tuple[int, list[frozenset[int] | None]]:
        begin = index * AT_ONCE
        end = min(begin + AT_ONCE, self._count)
        low, high = np.searchsorted(self._dropped[:, 0], [self._first + begin, self._first + end])
        lost: list[set[int]] = [set() for _ in range(begin, end)]
        for row, region in self._dropped[low:high].tolist():
            lost[row - self._first - begin].add(region)
        return begin, [None if -1 in regions else frozenset(regions) for regions in lost]


def curated_sources(
    table: Table, dropped: np.ndarray, config: Any, report: Report
) -> list[Callable[[Ontology], Source]]:
    """Ways to open the sources of the corpus without what is dropped, (image, region) int64 [dropped, 2]."""

    def opener(name: str) -> Callable[[Ontology], Source]:
        return lambda ontology: _source(table, name, dropped, config, report)

    return [opener(name) for name in table.corpus.sources]


def _source(table: Table, name: str, dropped: np.ndarray, config: Any, report: Report) -> Source:
    entry = table.corpus.manifest["sources"][name]
    items = {}
    decided = hashlib.sha256(json.dumps([entry["fingerprint"], entry["checksum"], config.to_json()]).encode())
    for part, split, first in table.parts:
        if part == name:
            count = table.corpus.count(name, split)
            low, high = np.searchsorted(dropped[:, 0], [first, first + count])
            decided.update((dropped[low:high] - [first, 0]).tobytes())
            make = functools.partial(_examples, os.path.abspath(table.corpus.directory), name, split)
            items[split] = Items(Kept(first, count, dropped), make, AT_ONCE)
    report.skipped.update(entry["skipped"])
    return Source(
        name=name,
        adapter=entry["adapter"],
        fingerprint=decided.hexdigest(),
        splits={split: part.stream for split, part in items.items()},
        provenance=_provenance(entry),
        items=items,
    )


def _provenance(entry: Mapping[str, Any]) -> dict[str, str]:
    return {**entry["provenance"], "curated": "by data.curate, see curation.json"}


def _examples(
    directory: str, name: str, split: str, item: tuple[int, list[frozenset[int] | None]]
) -> Iterator[RegionExample]:
    begin, lost = item
    records = records_in(directory, name, split)
    for number, regions in enumerate(lost):
        if regions is not None:
            yield without(records[begin + number], regions)


def without(example: RegionExample, regions: frozenset[int]) -> RegionExample:
    """The example without some of its regions."""
    if not regions:
        return example
    kept = tuple(region for number, region in enumerate(example.regions) if number not in regions)
    return dataclasses.replace(example, regions=kept)
