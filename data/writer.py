"""One source into, or from one corpus into the next: its records, and its entry in the manifest."""

import contextlib
import functools
import hashlib
import io
import itertools
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from absl import logging as absl_logging

from data.manifest import SplitCounts
from data.region_corpus.region_corpus import RegionCorpus
from data.report import Report
from data.sources import Source
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import RegionExample


def is_current(corpus: Corpus | None, source: Source, strict: bool) -> bool:
    """Whether the corpus holds this very source with intact files; a strict build trusts no source that skipped
    records."""
    entry = corpus.manifest["sources"].get(source.name) if corpus else None
    if corpus is None or entry is None or entry["fingerprint"] != source.fingerprint or (strict and entry["skipped"]):
        return False
    try:
        for split in entry["splits"]:
            corpus.source(source.name, split)
    except InputError:
        return False
    return True


def keep(corpus: Corpus, name: str, work: pathlib.Path) -> dict[str, Any]:
    """Takes a source's files over from `corpus` into the directory `work` and returns its entry of the manifest.

    Files are linked where the file system can: they are never written again, so both corpora may share them.
    """
    entry = corpus.manifest["sources"][name]
    try:
        shutil.copytree(corpus.directory / entry["path"], work / entry["path"], copy_function=_link)
    except (OSError, shutil.Error) as error:
        raise InputError(
            f"{corpus.directory / entry['path']}: cannot be kept ({error}): build this source again"
        ) from error
    return entry


def write(source: Source, work: pathlib.Path, ontology: Ontology, report: Report) -> dict[str, Any] | None:
    """Writes a source below the directory `work` and returns its entry of the manifest, None if it has no usable image.

    Raises InputError if the disk does not take it, or if a record has a label outside the ontology.
    """
    counts: dict[str, SplitCounts] = {}
    streams = {}
    for split, stream in source.splits.items():
        counted = SplitCounts()
        examples = iter(_shown(counted.watch(_checked(stream(), ontology)), f"{source.name} {split}"))
        first = next(examples, None)
        if first is not None:  # TFDS cannot write a split without records
            counts[split] = counted
            streams[split] = functools.partial(itertools.chain, [first], examples)
    if not streams:
        return None
    builder_dir = _write_records(source.name, streams, work)
    names = sorted(path for path in builder_dir.iterdir() if ".array_record" in path.name)
    digest = hashlib.sha256()
    for path in names:
        digest.update(path.name.encode() + b"\n" + path.read_bytes())
    return {
        "adapter": source.adapter,
        "fingerprint": source.fingerprint,
        "path": builder_dir.relative_to(work).as_posix(),
        "files": {path.relative_to(work).as_posix(): path.stat().st_size for path in names},
        "checksum": digest.hexdigest(),
        "provenance": dict(source.provenance),
        "skipped": dict(sorted(report.skipped.items())),
        "splits": {split: counted.as_json() for split, counted in sorted(counts.items())},
    }


def _write_records(name: str, streams: dict, work: pathlib.Path) -> pathlib.Path:
    absl_logging.set_verbosity(absl_logging.ERROR)
    tfds.disable_progress_bar()
    settings = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    try:
        # TFDS prints where it downloads to, though it downloads nothing
        with contextlib.redirect_stdout(io.StringIO()):
            builder = RegionCorpus(name, streams, work)
            builder.download_and_prepare(download_config=settings)
    except (OSError, RuntimeError) as error:  # the latter is how the ArrayRecord writer says that the disk is full
        stated = re.search(r"\w\(\) failed: ([^;]+)", str(error))
        if isinstance(error, RuntimeError) and not stated:
            raise
        reason = stated[1] if stated else error
        raise InputError(f"{work.parent}: records of {name} cannot be written ({reason}): make room there") from error
    shutil.rmtree(work / "downloads", ignore_errors=True)  # TFDS makes it in any case
    return pathlib.Path(builder.data_dir)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _checked(examples: Iterable[RegionExample], ontology: Ontology) -> Iterator[RegionExample]:
    for example in examples:
        for label in (*example.image_labels, *(region.label for region in example.regions)):
            if label not in ontology:
                raise InputError(
                    f"{example.dataset}/{example.image_id}: label {label!r} is not in the ontology: add a node"
                )
        yield example


def _shown(examples: Iterable[RegionExample], title: str) -> Iterator[RegionExample]:
    """Counts on a terminal while a long source is written."""
    shown = sys.stderr.isatty()
    for number, example in enumerate(examples, 1):
        if shown and number % 100 == 0:
            print(f"\r{title}: {number:,} images", end="", file=sys.stderr, flush=True)
        yield example
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
