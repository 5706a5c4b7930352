"""One source into, or from one corpus into the next: its records, and its entry in the manifest."""

import contextlib
import functools
import hashlib
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging as absl_logging

from data import manifest, runners, shards
from data.region_corpus import region_corpus
from data.report import Report
from data.sources import Source
from data.staging import UNFINISHED
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology


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


def write(
    source: Source, work: pathlib.Path, ontology: Ontology, report: Report, workers: int, beam: Sequence[str]
) -> dict[str, Any] | None:
    """Writes a source below the directory `work`, except for what an earlier build finished there, and returns its
    entry of the manifest, None if it has no usable image.

    `workers` processes of this machine write, or, with pipeline options in `beam`, a Beam runner. Raises InputError if
    the disk does not take it, or if a record has a label outside the ontology.
    """
    parts = work / UNFINISHED / source.name
    with _full_disk_told(source.name, work):
        shards.prepare(parts, source, report.strict)
        job = shards.job(parts, source, frozenset(ontology), report)
        tasks = shards.plan(source)
        left = [task for task in tasks if not shards.is_finished(parts, task)]
        items_of = functools.partial(shards.items_of, source)
        if beam and left:
            ran = runners.run_beam(job, left, items_of, beam)
        else:
            ran = runners.run_local(job, left, items_of, workers)
        open_tasks = set(left)
        with contextlib.closing(ran):
            for task in tasks:
                if task in open_tasks:
                    next(ran)
                _tell(parts, task, report)
        return _entry(source, parts, work, report)


def _tell(parts: pathlib.Path, task: shards.Task, report: Report) -> None:
    """What the making of these records had to say, in the order of the records."""
    whole = task.end is None
    found = shards.finished_shards(parts, task.split) if whole else [shards.finished(parts, task.split, task.number)]
    for done in found:
        assert done is not None, task
        report.skipped.update(done["skipped"])
        for line in done["lines"]:
            print(line, file=sys.stderr)
    if sys.stderr.isatty():
        print(f"\r{parts.name} {task.split}: shard {task.number + 1}\033[K\r", end="", file=sys.stderr, flush=True)


def _entry(source: Source, parts: pathlib.Path, work: pathlib.Path, report: Report) -> dict[str, Any] | None:
    """Puts the finished shards where TFDS looks for them, and says what they hold."""
    absl_logging.set_verbosity(absl_logging.ERROR)
    builder = region_corpus.RegionCorpus(source.name, work)
    directory = pathlib.Path(builder.data_dir)
    lengths, sizes, splits = {}, {}, {}
    files: dict[str, tuple[int, str]] = {}
    for split in sorted(source.splits):
        filled = [
            (number, done["images"], done["record_bytes"], done["bytes"], done["sha256"])
            for number, done in enumerate(shards.finished_shards(parts, split))
            if done["images"]
        ]
        if not filled:
            continue  # TFDS knows no split without records
        directory.mkdir(parents=True, exist_ok=True)
        for place, (number, _, _, size, checksum) in enumerate(filled):
            path = directory / region_corpus.shard_name(builder, split, place, len(filled))
            _link(os.fspath(shards.record_path(parts, split, number)), os.fspath(path))
            files[path.relative_to(work).as_posix()] = size, checksum
        lengths[split], sizes[split] = [images for _, images, *_ in filled], sum(size for _, _, size, *_ in filled)
        hashes = [shards.hash_path(parts, split, number) for number, *_ in filled]
        splits[split] = manifest.merge(shards.finished_shards(parts, split), hashes)
    if not splits:
        return None
    region_corpus.write_info(builder, lengths, sizes)
    checksums = {name: checksum for name, (_, checksum) in sorted(files.items())}
    told = "".join(f"{name}\n{checksum}\n" for name, checksum in checksums.items())
    return {
        "adapter": source.adapter,
        "fingerprint": source.fingerprint,
        "path": directory.relative_to(work).as_posix(),
        "files": {name: size for name, (size, _) in sorted(files.items())},
        "checksums": checksums,
        "checksum": hashlib.sha256(told.encode()).hexdigest(),
        "provenance": dict(source.provenance),
        "skipped": dict(sorted(report.skipped.items())),
        "splits": splits,
    }


@contextlib.contextmanager
def _full_disk_told(name: str, work: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter is how the ArrayRecord writer says that the disk is full
        stated = re.search(r"\w\(\) failed: ([^;]+)", str(error))
        if isinstance(error, RuntimeError) and not stated:
            raise
        reason = stated[1] if stated else error
        raise InputError(
            f"{work.parent}: records of {name} cannot be written ({reason}): make room there; shards that are finished "
            "stay, and the same command goes on from them"
        ) from error


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
