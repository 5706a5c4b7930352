"""A function over many arguments in worker processes, results in order."""

import concurrent.futures
import concurrent.futures.process
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import cloudpickle

from medp_clip_jax.errors import InputError

AHEAD = 2  # arguments handed out per worker, so that none waits for the next

Argument = TypeVar("Argument")
Result = TypeVar("Result")
_function: Callable[[Any], Any] | None = None  # of the worker process that this is


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered(function: Callable[[Argument], Result], arguments: Iterable[Argument], workers: int) -> Iterator[Result]:
    """Yields function(argument) for each argument, in order, computed in up to `workers` processes (this one for 1).

    Function and arguments are pickled (by cloudpickle, which takes closures); arguments are drawn as they are handed
    out, so that memory does not grow with their number. Raises what the first failing call raised, InputError where a
    process was killed.
    """
    if workers <= 1:
        yield from map(function, arguments)
        return
    # Workers come from a process without threads: those of the record writer and of medical libraries survive no fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data.warm"])
    others = set(multiprocessing.active_children())
    ends, held = context.Pipe(duplex=False)  # `held` closes when this process ends, however it ends
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_start, initargs=(cloudpickle.dumps(function), ends)
    )
    try:
        yield from _in_order(pool, arguments, workers * AHEAD)
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


def _in_order(pool: concurrent.futures.Executor, arguments: Iterable[Any], most: int) -> Iterator[Any]:
    """Hands out at most `most` arguments at a time and none after a failure. A slow one keeps none of the others from
    being worked on, only from being yielded."""
    coming = iter(arguments)
    running: dict[concurrent.futures.Future[Any], int] = {}
    ended: dict[int, concurrent.futures.Future[Any]] = {}
    handed_out, more = 0, True
    for number in itertools.count():
        while number not in ended:
            while more and len(running) < most:
                try:
                    argument = next(coming)
                except StopIteration:
                    more = False
                    break
                running[pool.submit(_call, cloudpickle.dumps(argument))] = handed_out
                handed_out += 1
            if not running:
                return
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                ended[running.pop(future)] = future
                more = more and future.exception() is None
        yield ended.pop(number).result()


def _start(function: bytes, ends: multiprocessing.connection.Connection) -> None:
    global _function
    for sign in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the parent decides
        signal.signal(sign, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()
    _function = pickle.loads(function)


def _end_with(ends: multiprocessing.connection.Connection) -> None:
    """A killed parent cannot end its workers."""
    try:
        ends.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _call(argument: bytes) -> Any:
    assert _function is not None
    return _function(pickle.loads(argument))
