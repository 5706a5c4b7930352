"""Who does the tasks of a source: this process, processes on this machine, or an Apache Beam runner.

The job and the items of a task are pickled (by cloudpickle, which takes closures) and sent to where the work is done:
a process holds the items it works on, never the whole table of a source.
"""

import concurrent.futures
import concurrent.futures.process
import logging
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cloudpickle

from data import shards
from data.shards import Job, Task
from medp_clip_jax.errors import InputError

JOB, ITEMS, ERROR = "job.pickle", "items.pickle", "error"
AHEAD = 2  # tasks handed out per worker, so that none waits for the next

ItemsOf = Callable[[Task], Sequence[Any]]
_job: Job | None = None  # of the worker process that this is


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_local(job: Job, tasks: Sequence[Task], items_of: ItemsOf, workers: int) -> Iterator[Task]:
    """Does the tasks in up to `workers` processes and yields them in order, each when it and all before it are done.

    A stream is one task. Raises what the first failing task raised, InputError where a process was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield shards.run(job, task, items_of(task))
        return
    # Workers come from a process without threads: those of the record writer and of medical libraries survive no fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data.build"])
    others = set(multiprocessing.active_children())
    ends, held = context.Pipe(duplex=False)  # `held` closes when this process ends, however it ends
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_start, initargs=(cloudpickle.dumps(job), ends)
    )
    try:
        yield from _in_order(pool, tasks, items_of, workers * AHEAD)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed (often because memory ran out): give fewer --workers; what is finished stays"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:  # idle, or busy with what nobody waits for
            child.kill()
            child.join()
        held.close()


def _in_order(pool: concurrent.futures.Executor, tasks: Sequence[Task], items_of: ItemsOf, most: int) -> Iterator[Task]:
    """Hands out at most `most` tasks at a time and none after a failure. A slow task keeps none of the others from
    being done, only from being yielded."""
    running: dict[concurrent.futures.Future[Task], int] = {}
    ended: dict[int, concurrent.futures.Future[Task]] = {}
    handed_out, failed = 0, False
    for number in range(len(tasks)):
        while number not in ended:
            while handed_out < len(tasks) and len(running) < most and not failed:
                task = tasks[handed_out]
                running[pool.submit(_run, task, cloudpickle.dumps(items_of(task)))] = handed_out
                handed_out += 1
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                ended[running.pop(future)] = future
                failed = failed or future.exception() is not None
        yield ended.pop(number).result()


def _start(job: bytes, ends: multiprocessing.connection.Connection) -> None:
    global _job
    for sign in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the parent decides
        signal.signal(sign, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()
    _job = pickle.loads(job)


def _end_with(ends: multiprocessing.connection.Connection) -> None:
    """A killed parent cannot end its workers."""
    try:
        ends.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _run(task: Task, items: bytes) -> Task:
    assert _job is not None
    return shards.run(_job, task, pickle.loads(items))


def run_beam(job: Job, tasks: Sequence[Task], items_of: ItemsOf, options: Sequence[str]) -> Iterator[Task]:
    """Does the tasks in a Beam pipeline with these pipeline options ("--runner=FlinkRunner", ...), then yields them.

    All workers must see the input and the output under the same paths and have this package. Raises InputError if Beam
    is not installed, an option is wrong, or the pipeline fails.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions
    except ImportError as error:
        raise InputError(f'--runner needs Apache Beam ({error}): pip install "medp-clip-jax[beam]"') from error
    for old in job.directory.glob(f"*.{ERROR}"):
        old.unlink()
    # Beside the shards and not inside the pipeline, whose size runners limit: a source may have large tables.
    (job.directory / JOB).write_bytes(cloudpickle.dumps(job))
    for task in tasks:
        _path(job.directory, task, ITEMS).write_bytes(cloudpickle.dumps(items_of(task)))
    try:
        logging.getLogger("apache_beam").setLevel(logging.ERROR)  # progress notes, hundreds of lines
        settings = PipelineOptions(["--default_sdk_harness_log_level=ERROR", *options])
        settings.view_as(TypeOptions).pipeline_type_check = False
        with beam.Pipeline(options=settings) as pipeline:
            spread = pipeline | "Tasks" >> beam.Create(list(tasks)) | "Spread" >> beam.Reshuffle()
            _ = spread | "Write shards" >> beam.Map(_run_in_beam, os.fspath(job.directory))
    except (Exception, SystemExit) as error:  # SystemExit: how Beam's parser of options ends
        told = [path.read_text(encoding="utf-8") for path in sorted(job.directory.glob(f"*.{ERROR}"))]
        reason = " ".join(str(error).split())[-300:] or type(error).__name__
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
