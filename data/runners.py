"""Who does the tasks of a source: this process, processes on this machine, or an Apache Beam runner.

The job and the items of a task are pickled (by cloudpickle, which takes closures) and sent to where the work is done:
a process holds the items it works on, never the whole table of a source.
"""

import functools
import logging
import os
import pathlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cloudpickle

from data import parallel, shards
from data.shards import Job, Task
from medp_clip_jax.errors import InputError

JOB, ITEMS, ERROR = "job.pickle", "items.pickle", "error"
ItemsOf = Callable[[Task], Sequence[Any]]


def run_local(job: Job, tasks: Sequence[Task], items_of: ItemsOf, workers: int) -> Iterator[Task]:
    """Does the tasks in up to `workers` processes and yields them in order, each when it and all before it are done.

    A stream is one task. Raises what the first failing task raised, InputError where a process was killed.
    """
    run = functools.partial(_run, job)
    return parallel.ordered(run, ((task, items_of(task)) for task in tasks), min(workers, len(tasks)))


def _run(job: Job, given: tuple[Task, Sequence[Any]]) -> Task:
    return shards.run(job, *given)


def run_beam(job: Job, tasks: Sequence[Task], items_of: ItemsOf, options: Sequence[str]) -> Iterator[Task]:
    """Does the tasks in a Beam pipeline with these pipeline options ("--runner=FlinkRunner", ...), then yields them.

    All workers must see the input and the output under the same paths and have this package. Raises InputError if Beam
    is not installed, an option is wrong, or the pipeline fails.
    """
    logging.getLogger("apache_beam").setLevel(logging.ERROR)  # progress notes, hundreds of lines
    logging.disable(logging.WARNING)  # what it says on import of clouds that are not installed
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions
    except ImportError as error:
        raise InputError(f'--runner needs Apache Beam ({error}): pip install "medp-clip-jax[beam]"') from error
    finally:
        logging.disable(logging.NOTSET)
    for old in job.directory.glob(f"*.{ERROR}"):
        old.unlink()
    # Beside the shards and not inside the pipeline, whose size runners limit: a source may have large tables.
    (job.directory / JOB).write_bytes(cloudpickle.dumps(job))
    for task in tasks:
        _path(job.directory, task, ITEMS).write_bytes(cloudpickle.dumps(items_of(task)))
    try:
        settings = PipelineOptions(["--default_sdk_harness_log_level=ERROR", *options])
        settings.view_as(TypeOptions).pipeline_type_check = False
        with beam.Pipeline(options=settings) as pipeline:
            spread = pipeline | "Tasks" >> beam.Create(list(tasks)) | "Spread" >> beam.Reshuffle()
            _ = spread | "Write shards" >> beam.Map(_run_in_beam, os.fspath(job.directory))
    except (Exception, SystemExit) as error:  # SystemExit: how Beam's parser of options ends
        told = [path.read_text(encoding="utf-8") for path in sorted(job.directory.glob(f"*.{ERROR}"))]
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) < 800 else f"{reason[:300]} ... {reason[-400:]}"
        raise InputError(told[0] if told else f"the Beam pipeline failed: {reason}") from error
    for task in tasks:
        if not shards.is_finished(job.directory, task):
            raise InputError(f"{job.directory}: the Beam workers have not written here: let them see this path")
        yield task


def _path(directory: pathlib.Path, task: Task, kind: str) -> pathlib.Path:
    return directory / f"{task.split}-{task.number:05d}.{kind}"


def _run_in_beam(task: Task, directory: str) -> Task:
    job = _load(pathlib.Path(directory) / JOB)
    try:
        return shards.run(job, task, pickle.loads(_path(job.directory, task, ITEMS).read_bytes()))
    except InputError as error:  # Beam would wrap it in its own traceback
        _path(job.directory, task, ERROR).write_text(str(error), encoding="utf-8", errors="backslashreplace")
        raise


_loaded: dict[tuple[pathlib.Path, int], Job] = {}


def _load(path: pathlib.Path) -> Job:
    """The job, read once by each process."""
    key = path, path.stat().st_mtime_ns
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = pickle.loads(path.read_bytes())
    return _loaded[key]
