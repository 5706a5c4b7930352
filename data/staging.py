"""A directory that appears complete or not at all: written beside its place, then renamed.

What lies in its subdirectory `UNFINISHED` is the exception: a start that finds it goes on from there.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator

from medp_clip_jax.errors import InputError

UNFINISHED = ".unfinished_shards"


@contextlib.contextmanager
def staged(output: pathlib.Path, fresh: bool = False) -> Iterator[tuple[pathlib.Path, Callable[[], None]]]:
    """Yields a directory beside `output` and a function that puts it in its place, replacing what stands there.

    The directory is empty but for `UNFINISHED`, with the finished shards of a build that did not end; `fresh` throws
    them away. Without a call of the function, or after an error or interrupt, `output` is as before, and the directory
    is removed unless a shard is finished. What a killed process left otherwise is cleaned first; a second process waits
    until the first is done. Raises InputError if `output` cannot be written.
    """
    output = output.resolve()  # a link is followed: its target is replaced, not the link
    work, replaced = (output.parent / f".{output.name}.{state}" for state in ("building", "replaced"))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(work, output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}): choose another --output") from error
    done: list[pathlib.Path] = []
    try:
        _recover(output, replaced)
        for leftover in work.iterdir():
            if fresh or leftover.name != UNFINISHED:
                _remove(leftover)

        def commit() -> None:
            if output.exists():
                output.rename(replaced)
            work.rename(output)
            done.append(output)
            _remove(output / UNFINISHED)  # not before: a kill in between would lose both
            _remove(replaced)

        yield work, commit
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error}): check room and permissions there") from error
    finally:
        _recover(output, replaced)
        if not done and not finished_shards(output):  # once done, the name may already be another process's
            _remove(work)
        for half in (work / UNFINISHED).glob("*/*.incomplete-*"):
            _remove(half)
        os.close(lock)


def finished_shards(output: pathlib.Path) -> int:
    """How many finished shards of a build that did not end wait for its restart."""
    work = output.resolve().parent / f".{output.resolve().name}.building"
    return sum(1 for _ in (work / UNFINISHED).glob("*/*.array_record"))


def _lock(work: pathlib.Path, output: pathlib.Path) -> int:
    """Makes `work` and locks it; the lock lives as long as the process, so a killed one leaves none behind."""
    while True:
        work.mkdir(exist_ok=True)
        handle = os.open(work, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that builds {output}", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):  # whoever held it has renamed or removed the directory meanwhile
            if os.stat(work).st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)


def _recover(output: pathlib.Path, replaced: pathlib.Path) -> None:
    """Undoes a replacement that was cut between its two renames, or ends one that was cut after them."""
    if (output / UNFINISHED).is_dir():
        _remove(output / UNFINISHED)
    if replaced.exists():
        if output.exists():
            _remove(replaced)
        else:
            replaced.rename(output)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
