"""One walk over the records of corpora: what the rules for single images find, and what images are compared by."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data import parallel
from data.curation import Finding, images, regions
from data.reading import corpus_in, records_in
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.errors import InputError

AT_ONCE = 128  # records that a process looks at in one go

Range = tuple[str, str, int, int]  # source, split, records from and to


@dataclasses.dataclass
class Table:
    """All images of a corpus in the order of sources, splits and records, as columns; labels are rows of `names`.

    `labels` holds those of the regions that stay, one image after another, and those of image `i` end at `ends[i]`.
    """

    corpus: Corpus
    parts: list[tuple[str, str, int]]  # source, split, number of the first image
    names: list[str]
    modalities: list[str]
    exact: np.ndarray  # uint64 [images]
    look: np.ndarray  # uint64 [images]
    group: np.ndarray  # uint64 [images], of source and group
    comparable: np.ndarray  # bool [images]: decodable and not flat
    thumbs: np.ndarray  # uint8 [images, 16, 16]
    modality: np.ndarray  # int32 [images]
    ends: np.ndarray  # int64 [images]
    labels: np.ndarray  # int32 [regions]

    def __len__(self) -> int:
        return len(self.exact)

    def split_of(self) -> np.ndarray:
        """Split name of each image, object [images]."""
        return self._column(1)

    def source_of(self) -> np.ndarray:
        """Source name of each image, object [images]."""
        return self._column(0)

    def _column(self, field: int) -> np.ndarray:
        column = np.empty(len(self), object)
        for part in self.parts:
            column[part[2] :] = part[field]
        return column

    def place(self, row: int) -> str:
        """SOURCE/SPLIT/INDEX of an image."""
        name, split, first = [part for part in self.parts if part[2] <= row][-1]
        return f"{name}/{split}/{row - first}"

    def labels_of(self, row: int) -> frozenset[int]:
        """Labels of an image's regions."""
        return frozenset(self.labels[self.ends[row - 1] if row else 0 : self.ends[row]].tolist())


Found = tuple[int, Finding, str]  # number of the image, what was found, its label ("" for the image)


def scan(corpus: Corpus, config: Any, workers: int, folder: pathlib.Path, tell: Callable[..., object]) -> Table:
    """Reads all records in `workers` processes and gives each finding to `tell(table, image, finding, label)`, in
    order. Thumbnails lie in a file in `folder`: all else is tens of bytes per image."""
    parts: list[tuple[str, str, int]] = []
    ranges: list[Range] = []
    total = 0
    for name in corpus.sources:
        for split in sorted(corpus.manifest["sources"][name]["splits"]):
            count = len(corpus.source(name, split))
            parts.append((name, split, total))
            ranges += [(name, split, begin, min(begin + AT_ONCE, count)) for begin in range(0, count, AT_ONCE)]
            total += count
    table = Table(
        corpus, parts, list(corpus.labels), _modalities(corpus),
        *(np.zeros(total, np.uint64) for _ in range(3)), np.zeros(total, bool),
        np.memmap(folder / "thumbs", np.uint8, "w+", shape=(max(total, 1), images.THUMB, images.THUMB)),
        np.zeros(total, np.int32), np.zeros(total, np.int64), np.zeros(0, np.int32),
    )  # fmt: skip
    look = functools.partial(scan_range, os.fspath(corpus.directory), config)
    labels: list[np.ndarray] = []
    row, regions_so_far = 0, 0
    for columns, found in parallel.ordered(look, ranges, workers):
        end = row + len(columns["exact"])
        for name in ("exact", "look", "group", "comparable", "thumbs", "modality"):
            getattr(table, name)[row:end] = columns[name]
        table.ends[row:end] = regions_so_far + np.cumsum(columns["regions"])
        labels.append(columns["labels"])
        regions_so_far += len(columns["labels"])
        for number, finding, label in found:
            tell(table, row + number, finding, label)
        row = end
    table.labels = np.concatenate([table.labels, *labels])
    return table


def scan_range(directory: str, config: Any, place: Range) -> tuple[dict[str, np.ndarray], list[Found]]:
    """Looks at some records of the corpus in `directory`: their columns of the table, and what was found in them."""
    name, split, begin, end = place
    related, rows, modalities = _tables(directory)
    records, count = records_in(directory, name, split), end - begin
    columns = {
        **{column: np.zeros(count, np.uint64) for column in ("exact", "look", "group")},
        "comparable": np.zeros(count, bool),
        "thumbs": np.zeros((count, images.THUMB, images.THUMB), np.uint8),
        "modality": np.zeros(count, np.int32),
        "regions": np.zeros(count, np.int64),
    }
    labels: list[int] = []
    found: list[Found] = []
    for number in range(count):
        example = records[begin + number]
        finding, signature = images.look_at(example, config)
        if finding is not None:
            found.append((number, finding, ""))
        if signature is not None:
            columns["comparable"][number], columns["thumbs"][number] = True, signature.thumb
            columns["exact"][number], columns["look"][number] = signature.exact, signature.look
        columns["group"][number] = group_key(name, example.group)
        columns["modality"][number] = modalities[example.modality]
        lost = set()
        for finding in regions.findings(example, config, related):
            found.append((number, finding, example.regions[finding.region].label))
            if config[finding.rule].action == "drop":
                lost.add(finding.region)
        stay = [rows[region.label] for i, region in enumerate(example.regions) if i not in lost]
        if example.regions and not stay and config.bare.action != "keep":
            found.append((number, Finding("bare", detail=f"all {len(example.regions)} regions are dropped"), ""))
        columns["regions"][number] = len(stay)
        labels += stay
    return columns | {"labels": np.array(labels, np.int32)}, found


@functools.lru_cache(maxsize=1)
def _tables(directory: str) -> tuple[Callable[[str, str], bool], dict[str, int], dict[str, int]]:
    """Whether one of two labels is a kind of the other; the rows of labels and of modalities."""
    corpus = corpus_in(directory)
    ancestors = functools.cache(corpus.ontology.ancestors)
    return (
        lambda a, b: a in ancestors(b) or b in ancestors(a),
        {label: row for row, label in enumerate(corpus.labels)},
        {modality: row for row, modality in enumerate(_modalities(corpus))},
    )


def _modalities(corpus: Corpus) -> list[str]:
    entries = corpus.manifest["sources"].values()
    return sorted({name for entry in entries for split in entry["splits"].values() for name in split["modalities"]})


def group_key(source: str, group: str) -> int:
    """64 bits that stand for a patient of a source."""
    digest = hashlib.blake2b(f"{source}\0{group}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def evaluation_rows(table: Table, train_splits: Sequence[str]) -> np.ndarray:
    """Which images are no training images, bool [images]."""
    return ~np.isin(table.split_of().astype(str), list(train_splits))


def check_evaluation(table: Table, train_splits: Sequence[str]) -> None:
    """Raises InputError where a corpus given as evaluation has training splits only."""
    if not evaluation_rows(table, train_splits).any():
        raise InputError(
            f"{table.corpus.directory}: its splits ({', '.join(table.corpus.splits)}) are all for training: build it "
            "with --split=test, or name others by --config.train_splits"
        )
