"""The processes of a job: how they find each other, agree to stop, and end when one of them is gone.

A job is one process, or several that run the same program on one or many machines. Everything here works for one
process without any service.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import jax
from jax.experimental import multihost_utils

from medp_clip_jax import stderr_filter
from medp_clip_jax.cluster import Cluster, find_cluster
from medp_clip_jax.errors import InputError

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: the run was asked to stop and has saved; every launcher starts it again on this code
# Another process is gone. Below 75, because srun reports the largest code of all processes: when one was preempted and
# the others lost it, the job counts as preempted. A signal's number, because stderr_filter.py ends a process with it.
EXIT_LOST = int(signal.SIGUSR2)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_SECONDS = (
    3.0  # a scheduler's SIGTERM may come twice, directly and through srun: within this time it is the same one
)


def start() -> None:
    """Joins the processes of the job, before anything else uses JAX; one process needs nothing and gets nothing.

    From here on SIGTERM or Ctrl-C outside of `Preemption` ends this process at once with EXIT_PREEMPTED (there is
    nothing to save there). A process of the job that dies ends all others with one line and EXIT_LOST after
    MEDP_CLIP_HEARTBEAT_SECONDS (30). All have to arrive within MEDP_CLIP_START_SECONDS (300).

    Raises:
      InputError: the environment describes a job incompletely or wrongly.
    """
    cluster = find_cluster(os.environ)
    heartbeat, patience = _seconds("MEDP_CLIP_HEARTBEAT_SECONDS", 30), _seconds("MEDP_CLIP_START_SECONDS", 300)
    if cluster and not jax.distributed.is_initialized():
        _join(cluster, heartbeat, patience)
    _LISTENER.listen()


def is_main() -> bool:
    """True in the one process that writes files and metrics."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has come to the barrier of this name; in one process, nothing."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def main_first(name: str) -> Iterator[None]:
    """The main process runs the block alone, then all others do: what the first one made, they find."""
    if not is_main():
        barrier(name)
    yield
    if is_main():
        barrier(name)


class Preemption:
    """A watch over a loop that can stop after any step: `with Preemption() as watch: ... if watch.reached(step): save`.

    Inside, the first SIGTERM or Ctrl-C in any process makes `reached` true in every process at the same step; a later
    one kills. Every process has to call `reached` once after every step, with the same numbers.
    """

    def __enter__(self) -> "Preemption":
        self._own = _LISTENER.listen()
        _LISTENER.patient = True
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _LISTENER.patient = False
        if self._own:
            _LISTENER.close()

    def reached(self, step: int) -> bool:
        """Whether all processes stop after this step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return _LISTENER.asked


def exit_if_asked() -> None:
    """Ends this process with EXIT_PREEMPTED if it has been asked to stop and no step was left to stop after."""
    if _LISTENER.asked:
        sys.exit(EXIT_PREEMPTED)


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Around all that a process of a job does after `start`: whatever ends one process ends all of them, never a hang.

    In one process it changes nothing. In several, an InputError is one line and code 2, a lost peer one line and
    EXIT_LOST, anything else a traceback and code 1, at once: an ordinary exit would wait for the others, which wait for
    this one.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not jax.distributed.is_initialized():
            raise
        name = f"process {jax.process_index()} of {jax.process_count()}"
        if isinstance(error, InputError):
            _leave(2, f"error: {error} ({name})")
        if _is_loss(error):
            # The service knows which process it was, but only when its heartbeats have stopped; then it ends this one.
            time.sleep(_seconds("MEDP_CLIP_HEARTBEAT_SECONDS", 30) * 1.5)
            reason = " ".join(str(error).split())[:200]
            _leave(EXIT_LOST, f"error: {name} cannot reach another one ({reason}); {stderr_filter.AGAIN}")
        traceback.print_exc()
        _leave(1, f"error: {name} failed, and with it the job")


def _is_loss(error: BaseException) -> bool:
    """Whether an error of a collective or a barrier says that another process is gone."""
    text = str(error)
    lost = ("Connection reset", "Connection closed", "Connection refused", "Broken pipe", "heartbeat", "Socket closed")
    return any(word in text for word in (*lost, "coordination service", "NCCL", "Timed out", "Gloo"))


def _leave(code: int, line: str) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.stdout.flush()
    _FILTER.drain()
    os._exit(code)


def _seconds(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit() or not int(text):
        raise InputError(f"environment variable {name}: expected whole seconds, at least 1, got {text!r}")
    return int(text)


def _join(cluster: Cluster, heartbeat: int, patience: int) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # only CPUs look at it
    _FILTER.open(cluster, heartbeat, patience)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.count,
        cluster.process,
        cluster.local_devices,
        initialization_timeout=patience,
        heartbeat_timeout_seconds=heartbeat,
        shutdown_timeout_seconds=3600,  # one process may still evaluate when the others are done; heartbeats go on
    )
    # The first look at the devices and the first collective wait only two minutes and (on CPUs) 30 seconds for the
    # others: so both come now, when all are here, and not after something that takes one of them longer.
    barrier("start")


class _Filter:
    """Standard error through stderr_filter.py, whose docstring says why."""

    child: subprocess.Popen[bytes] | None = None

    def open(self, cluster: Cluster, heartbeat: int, patience: int) -> None:
        process = -1 if cluster.process is None else cluster.process
        numbers = (os.getpid(), process, cluster.count or 0, heartbeat, patience)
        command = [sys.executable, "-S", "-E", str(Path(stderr_filter.__file__)), *map(str, numbers)]
        sys.stderr.flush()
        self.original = os.dup(2)
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self.child.stdin is not None
        os.dup2(self.child.stdin.fileno(), 2)
        self.child.stdin.close()
        # abort() waits for the filter to say why, which then ends this process by SIGUSR2 with that as its exit code. C
        # functions serve as handlers, called with the signal's number: no Python can be relied on at that point.
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
        libc.signal(signal.SIGUSR2, ctypes.cast(libc._exit, ctypes.c_void_p))

    def drain(self) -> None:
        """Waits until all of standard error has come out: when a container's first process ends, the rest is killed."""
        if self.child:
            sys.stderr.flush()
            os.dup2(self.original, 2)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(5)


class _Listener:
    """SIGTERM and Ctrl-C, seen by a thread, so that they work while the main thread waits inside a collective."""

    asked = False  # a signal has come
    since = 0.0  # when
    patient = False  # a loop is running that looks at `asked`
    listening = False

    def listen(self) -> bool:
        """Starts to listen; True when it was not listening before."""
        if self.listening or threading.current_thread() is not threading.main_thread():
            return False
        self.listening, self.asked = True, False
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        # JAX's own handler, where it has one, tells all processes to agree on a step; it ignores any further signal.
        handler = libc.signal(signal.SIGTERM, None) if jax.distributed.is_initialized() else None
        self.announce = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler) if handler else None
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self.previous = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
        self.previous_fd = signal.set_wakeup_fd(writer)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return True

    def close(self) -> None:
        """Puts back what was there before."""
        os.close(signal.set_wakeup_fd(self.previous_fd))
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.listening = False

    def _watch(self, reader: int) -> None:
        while received := os.read(reader, 1):
            number = received[0]
            if number not in STOP_SIGNALS:
                continue
            name = signal.Signals(number).name
            if self.asked and number == signal.SIGTERM and time.monotonic() < self.since + SAME_SECONDS:
                continue
            if not self.patient:
                _leave(EXIT_PREEMPTED, f"stopped by {name}; nothing is lost: the same command continues")
            if self.asked:
                _leave(128 + number, f"killed by {name}, the second signal; the last checkpoint counts")
            self.asked, self.since = True, time.monotonic()
            print(f"{name}: stopping after this step, once saved; again: at once", file=sys.stderr, flush=True)
            if self.announce:
                self.announce(signal.SIGTERM)
        os.close(reader)


_FILTER = _Filter()
_LISTENER = _Listener()
