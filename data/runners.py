"""Who does the tasks of a source: this process, processes on this machine, or an Apache Beam runner."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import pathlib
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from data import shards
from data.shards import Job, Task
from medp_clip_jax.errors import InputError

JOB, ERROR = "job.pickle", "error"

_job: Job | None = None  # of the worker process that this is


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_local(job: Job, tasks: Sequence[Task], workers: int) -> Iterator[Task]:
    """Does the tasks in up to `workers` processes and yields them in order, each when it and all before it are done.

    A stream is one task. Raises what the first failing task raised, InputError where a process was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield shards.run(job, task)
        return
    # Forked workers share the source's tables, and need nothing to pickle; elsewhere forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start, initargs=(job, os.getpid()))
    try:
        for future in [pool.submit(_run, task) for task in tasks]:
            yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed (often because memory ran out): give fewer --workers; what is finished stays"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:  # idle, or busy with what nobody waits for
            child.kill()
            child.join()


def _start(job: Job, parent: int) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed parent cannot end its workers, which would hold the lock of the output directory for ever."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _run(task: Task) -> Task:
    assert _job is not None
    return shards.run(_job, task)


def run_beam(job: Job, tasks: Sequence[Task], options: Sequence[str]) -> Iterator[Task]:
    """Does the tasks in a Beam pipeline with these pipeline options ("--runner=FlinkRunner", ...), then yields them.

    All workers must see the input and the output under the same paths and have this package. Raises InputError if Beam
    is not installed, an option is wrong, or the pipeline fails.
    """
    try:
        import apache_beam as beam
        import cloudpickle
        from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions
    except ImportError as error:
        raise InputError(f'--runner needs Apache Beam ({error}): pip install "medp-clip-jax[beam]"') from error
    # Beside the shards and not inside the pipeline, whose size runners limit: a source may have large tables.
    path = job.directory / JOB
    path.write_bytes(cloudpickle.dumps(job))
    for old in job.directory.glob(f"*.{ERROR}"):
        old.unlink()
    try:
        settings = PipelineOptions(list(options))
        settings.view_as(TypeOptions).pipeline_type_check = False
        with beam.Pipeline(options=settings) as pipeline:
            tasks_in = pipeline | "Tasks" >> beam.Create(list(tasks))
            _ = tasks_in | "Spread" >> beam.Reshuffle() | "Write shards" >> beam.Map(_run_in_beam, os.fspath(path))
    except (Exception, SystemExit) as error:  # SystemExit: how Beam's parser of options ends
        told = sorted(job.directory.glob(f"*.{ERROR}"))
        lines = told[0].read_text(encoding="utf-8") if told else " ".join(str(error).split())[-300:]
        raise InputError(lines if told else f"the Beam pipeline failed: {lines or type(error).__name__}") from error
    for task in tasks:
        if not shards.is_finished(job.directory, task):
            raise InputError(f"{job.directory}: the Beam workers have not written here: let them see this path")
        yield task


def _run_in_beam(task: Task, path: str) -> Task:
    job = _load(path)
    try:
        return shards.run(job, task)
    except InputError as error:  # Beam would wrap it in its own traceback
        place = job.directory / f"{task.split}-{task.number:05d}.{ERROR}"
        place.write_text(str(error), encoding="utf-8", errors="backslashreplace")
        raise


_jobs: dict[tuple[str, int], Job] = {}


def _load(path: str) -> Job:
    """The job, read once by each process."""
    key = path, pathlib.Path(path).stat().st_mtime_ns
    if key not in _jobs:
        _jobs.clear()
        _jobs[key] = pickle.loads(pathlib.Path(path).read_bytes())
    return _jobs[key]
