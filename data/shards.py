"""The shards of a source in the making: which there are, writing one, and which are finished.

A task is all that a process needs beside the source: a piece of one split. Each shard becomes two or three files in the
source's working directory, the last of which says that it is finished:

train-00007.array_record   the records (none if all were skipped)
train-00007.npz            hashes of its groups
train-00007.done.json      records, bytes, checksum, counts, and what the report tells of it

They are written under other names and renamed, so a name is never that of half a file. Which records a shard holds
depends on the source alone, not on processes, their number, or how often the build was started.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

from data.manifest import SplitCounts, save_hashes
from data.region_corpus.region_corpus import serialize
from data.report import Report
from data.sources import Source
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import RegionExample

VERSION = 1  # of how a source is cut into shards and written: another one makes no use of what is there
SMALLEST, LARGEST, SHARDS = 64, 4096, 256  # records in a shard, and how many shards a split has in between
STREAMED = 1024  # records in a shard of a stream, whose number of records nobody knows before
RECORDS, HASHES, DONE = "array_record", "npz", "done.json"


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard, items `begin` to `end` of a split; or, with `end` None, all shards of a split that only streams."""

    split: str
    number: int
    begin: int
    end: int | None


@dataclasses.dataclass(frozen=True)
class Job:
    """What the tasks of a source have in common; it travels to every process, therefore without the items."""

    directory: pathlib.Path
    makes: Mapping[str, Callable[[Any], Iterator[RegionExample]]]  # of the splits with items
    streams: Mapping[str, Callable[[], Iterator[RegionExample]]]  # of the others
    labels: Collection[str]  # ids of the ontology
    report: Report


def job(directory: pathlib.Path, source: Source, labels: Collection[str], report: Report) -> Job:
    """The job of writing a source's shards into `directory`."""
    return Job(
        directory,
        {split: items.make for split, items in source.items.items()},
        {split: stream for split, stream in source.splits.items() if split not in source.items},
        labels,
        report,
    )


def plan(source: Source) -> list[Task]:
    """The source's tasks in the order of its records."""
    tasks = []
    for split in source.splits:
        items = source.items.get(split)
        if items is None:
            tasks.append(Task(split, 0, 0, None))
            continue
        total, step = len(items.items), _items_per_shard(len(items.items), items.records)
        tasks += [
            Task(split, number, begin, min(begin + step, total)) for number, begin in enumerate(range(0, total, step))
        ]
    return tasks


def _items_per_shard(count: int, records: float) -> int:
    wanted = min(max(math.ceil(count * records / SHARDS), SMALLEST), LARGEST)
    return max(1, round(wanted / max(records, 1e-9)))


def prepare(directory: pathlib.Path, source: Source, strict: bool) -> None:
    """Makes the source's working directory, or keeps what an earlier build finished there of this very source; a
    strict build keeps no shard that skipped something."""
    plan_path, key = directory / "plan.json", {"fingerprint": source.fingerprint, "version": VERSION}
    known = _read(plan_path) == key
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(directory.iterdir()):
        done = _read(path) if known and path.name.endswith(DONE) else None
        if not known or ".incomplete" in path.name or (done and strict and done["skipped"]):
            path.unlink()
    plan_path.write_text(json.dumps(key))


def finished(directory: pathlib.Path, split: str, number: int) -> dict[str, Any] | None:
    """What is known of a shard if it is finished and its records are whole, else None."""
    done = _read(_path(directory, split, number, DONE))
    if done is None or not done["bytes"]:
        return done
    records = _path(directory, split, number, RECORDS)
    whole = records.is_file() and records.stat().st_size == done["bytes"]
    return done if whole and _path(directory, split, number, HASHES).is_file() else None


def is_finished(directory: pathlib.Path, task: Task) -> bool:
    """Whether there is nothing left to do; a stream is only known to have ended by its last, empty shard."""
    if task.end is not None:
        return finished(directory, task.split, task.number) is not None
    return any(done["end"] for done in finished_shards(directory, task.split))


def finished_shards(directory: pathlib.Path, split: str) -> Iterator[dict[str, Any]]:
    """The split's finished shards from the first on, up to one that is not."""
    for number in itertools.count():
        done = finished(directory, split, number)
        if done is None:
            return
        yield done


def items_of(source: Source, task: Task) -> list[Any]:
    """The items of a task; none for a stream."""
    return [] if task.end is None else [source.items[task.split].items[i] for i in range(task.begin, task.end)]


def run(job: Job, task: Task, items: Iterable[Any]) -> Task:
    """Does a task, whatever of it is unfinished, and returns it."""
    if task.end is None:
        _write_stream(job, task.split)
    elif finished(job.directory, task.split, task.number) is None:
        examples = itertools.chain.from_iterable(map(job.makes[task.split], items))
        with job.report.apart():
            _write_shard(job, task.split, task.number, examples)
    return task


def _write_stream(job: Job, split: str) -> None:
    """Cuts a stream into shards by number of records; finished ones are read past."""
    examples = job.streams[split]()
    for number in itertools.count():
        done = finished(job.directory, split, number)
        with job.report.apart():  # what is told while a finished shard is read past has been kept beside it
            if done is not None:
                collections.deque(itertools.islice(examples, done["images"]), maxlen=0)
            else:
                done = _write_shard(job, split, number, itertools.islice(examples, STREAMED), streamed=True)
        if done["end"]:
            return


def _write_shard(
    job: Job, split: str, number: int, examples: Iterable[RegionExample], streamed: bool = False
) -> dict[str, Any]:
    counts = SplitCounts()
    records = _path(job.directory, split, number, RECORDS)
    with _renamed(records) as path:
        size = _write_records(path, _checked(counts.watch(examples), job.labels))
    hashes = _path(job.directory, split, number, HASHES)
    with _renamed(hashes) as path:
        save_hashes(path, counts.hashes())
    if not counts.images:
        records.unlink()
    lines, skipped = job.report.kept_back or [], job.report.skipped
    done = counts.as_json() | {
        "end": streamed and counts.images < STREAMED,
        "record_bytes": size,
        "bytes": records.stat().st_size if counts.images else 0,
        "sha256": checksum(records) if counts.images else "",
        "skipped": dict(sorted(skipped.items())),
        "lines": lines,
    }
    with _renamed(_path(job.directory, split, number, DONE)) as path:
        path.write_text(json.dumps(done))  # in ASCII: names that are not UTF-8 come back as they were
    return done


def _write_records(path: pathlib.Path, examples: Iterable[RegionExample]) -> int:
    """Writes as TFDS does, one record per group for random access; returns the bytes of the records."""
    writer, size = ArrayRecordWriter(os.fspath(path), "group_size:1"), 0
    try:
        for example in examples:
            record = serialize(example)
            writer.write(record)
            size += len(record)
    finally:
        writer.close()  # also where the source raised: the writer's threads must end
    return size


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_path(directory: pathlib.Path, split: str, number: int) -> pathlib.Path:
    """Where the records of a finished shard lie."""
    return _path(directory, split, number, RECORDS)


def hash_path(directory: pathlib.Path, split: str, number: int) -> pathlib.Path:
    """Where the hashes of a finished shard's groups lie."""
    return _path(directory, split, number, HASHES)


def _checked(examples: Iterable[RegionExample], labels: Collection[str]) -> Iterator[RegionExample]:
    for example in examples:
        for label in (*example.image_labels, *(region.label for region in example.regions)):
            if label not in labels:
                raise InputError(
                    f"{example.dataset}/{example.image_id}: label {label!r} is not in the ontology: add a node"
                )
        yield example


@contextlib.contextmanager
def _renamed(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields another name and renames the file when it is whole and on disk; after an error it is removed."""
    incomplete = path.with_name(f"{path.name}.incomplete-{os.getpid()}")
    try:
        yield incomplete
        with incomplete.open("rb+") as file:
            os.fsync(file.fileno())
        incomplete.rename(path)
    finally:
        incomplete.unlink(missing_ok=True)


def _path(directory: pathlib.Path, split: str, number: int, kind: str) -> pathlib.Path:
    return directory / f"{split}-{number:05d}.{kind}"


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
