"""Trains with several processes on this machine: `python -m launch.local --processes=2 -- --config=configs/smoke.py`.

Everything after `--` goes to `python -m medp_clip_jax.train`, in every process. What process 0 says appears as it is,
the others' lines behind their number. SIGTERM and Ctrl-C go to all: one makes them save and stop, a second one kills.
"""

import collections
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from absl import flags

from medp_clip_jax.errors import run_cli
from medp_clip_jax.processes import EXIT_LOST, EXIT_PREEMPTED

PROCESSES = flags.DEFINE_integer("processes", 2, "How many processes to start.", lower_bound=1)
DEVICES = flags.DEFINE_integer("devices_per_process", 1, "CPU devices, or GPUs, of each process.", lower_bound=1)
PLATFORM = flags.DEFINE_enum("platform", "cpu", ["cpu", "gpu"], "What to train on; GPUs are dealt out in order.")
RESTARTS = flags.DEFINE_integer("restarts", 0, "How often to start again after a preemption or a crash.", lower_bound=0)
MODULE = flags.DEFINE_string("module", "medp_clip_jax.train", "The Python module that each process runs.")

EXIT_USAGE = 2  # an error in what the user gave: starting again would only repeat it
GRACE = 60  # seconds for the others to save once one process has been preempted
TAIL = 20  # last lines of a process that failed
PR_SET_PDEATHSIG = 1
# What gloo prints at every start, a write per piece, and a last one for the end of the line.
GLOO_END = "Expected number of connected peer ranks is : "
GLOO = re.compile(
    rf"\[Gloo\] Rank \d+ is connected to (\d+) peer ranks\. {GLOO_END}\1"  # whole
    rf"|\[Gloo\] Rank |\d* is connected to | peer ranks\. |{GLOO_END}"  # torn
)


def main(argv: list[str]) -> None:
    """Starts the processes, again if they end early and --restarts allows it, and exits with their code."""
    command = [sys.executable, "-m", MODULE.value, *argv[1:]]
    job = Job(command, PROCESSES.value, DEVICES.value, PLATFORM.value)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, job.forward)
    for attempt in range(RESTARTS.value + 1):
        code = job.run()
        if code in (0, EXIT_USAGE) or job.told_to_stop or attempt == RESTARTS.value:
            break
        _say(f"starting again ({attempt + 1} of at most {RESTARTS.value} times)")
    sys.exit(code)


@contextlib.contextmanager
def coordinator_address() -> Iterator[str]:
    """An address for process 0 to listen at; on Linux no other job on this machine is given it inside the block.

    Process 0 takes seconds to get there. Meanwhile a socket that does not listen keeps the port: JAX's coordinator can
    bind it all the same, because it sets SO_REUSEPORT, too.
    """
    with socket.socket() as held:
        if sys.platform == "linux":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        if sys.platform != "linux":
            held.close()
        yield address


class Job:
    """Some processes on this machine that train together."""

    def __init__(self, command: Sequence[str], count: int, devices: int = 1, platform: str = "cpu") -> None:
        """Takes the command that every process runs, and for each its number of devices."""
        self.command, self.count, self.devices, self.platform = list(command), count, devices, platform
        self.told_to_stop = False
        self.members: list[Member] = []

    def run(self) -> int:
        """Starts all and waits for them: 0, EXIT_PREEMPTED, or the exit code of the process that failed first."""
        with coordinator_address() as address:
            self.members = [
                Member(self.command, number, self.count, self._environment(number, address))
                for number in range(self.count)
            ]
            try:
                return self._wait()
            finally:
                for member in self.members:
                    member.kill()
                for member in self.members:
                    member.finish()

    def forward(self, number: int, _: object) -> None:
        """Passes a signal on to all processes."""
        self.told_to_stop = True
        for member in self.members:
            member.send(number)

    def _environment(self, number: int, address: str) -> dict[str, str]:
        own = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": self.count, "JAX_PROCESS_ID": number}
        if self.platform == "gpu":
            first = number * self.devices
            own["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(first, first + self.devices)))
        else:
            own |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": self.devices}
        return os.environ | {name: str(value) for name, value in own.items()} | {"PYTHONUNBUFFERED": "1"}

    def _wait(self) -> int:
        deadline = None
        while True:
            codes = [member.process.poll() for member in self.members]
            failed = [member for member, code in zip(self.members, codes, strict=True) if code not in (None, 0)]
            crashed = [member for member in failed if member.process.returncode != EXIT_PREEMPTED]
            if crashed:
                return self._report(crashed)
            if None not in codes:
                return EXIT_PREEMPTED if failed else 0
            if failed and deadline is None:
                deadline = time.monotonic() + GRACE
                if not self.told_to_stop:  # a second signal would end at once what is still saving
                    for member in self.members:
                        member.send(signal.SIGTERM)
            if deadline and time.monotonic() > deadline:
                _say(f"some processes had not stopped {GRACE} s after the first one; killing them")
                return EXIT_PREEMPTED
            time.sleep(0.1)

    def _report(self, crashed: list["Member"]) -> int:
        """Says which process failed; one that only lost the others is not the cause, so give the cause a moment."""
        for _ in range(10):
            causes = [member for member in self.members if member.process.poll() not in (None, 0, EXIT_LOST)]
            if causes:
                break
            time.sleep(0.1)
        cause = (causes or crashed)[0]
        cause.finish()
        code = cause.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        _say(f"process {cause.number} of {self.count} {how}; ending the others")
        if cause.number and cause.tail:
            _say("\n".join(["its last lines:", *cause.tail]))
        return 128 - code if code < 0 else code


class Member:
    """One process and its output."""

    def __init__(self, command: Sequence[str], number: int, count: int, environment: dict[str, str]) -> None:
        """Starts process `number` of `count`, in a session of its own: Ctrl-C reaches it only through us."""
        self.number = number
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL)
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
        )
        prefix = f"[{number}] " if count > 1 and number else ""
        pipes = ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        self.threads = [threading.Thread(target=self._pump, args=(*pipe, prefix), daemon=True) for pipe in pipes]
        for thread in self.threads:
            thread.start()

    def send(self, number: int) -> None:
        """Sends a signal, if the process is still there."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Ends the process whatever it does."""
        self.send(signal.SIGKILL)

    def finish(self) -> None:
        """Waits until the process has ended and its output is out, and ends what it has left behind."""
        self.process.wait()
        for thread in self.threads:
            thread.join(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _pump(self, source: IO[bytes], target: IO[str], prefix: str) -> None:
        """Passes output on: without a prefix as it comes, since a progress bar ends no lines, else line by line."""
        pending, gloo = "", Gloo()
        while chunk := source.read1(65536).decode(errors="replace"):
            *lines, pending = (pending + chunk).split("\n")
            lines = [rest for line in lines if (rest := gloo.rest(line)) is not None]
            self.tail.extend(line.rpartition("\r")[2] for line in lines)
            target.write("".join(f"{prefix}{line}\n" for line in lines))
            if not prefix and not GLOO.search(pending) and not pending.isdigit():
                target.write(pending)
                gloo.begun = gloo.begun or bool(pending)
                pending = ""
            target.flush()
        if pending and (pending := gloo.rest(pending)):
            self.tail.append(pending)
            target.write(f"{prefix}{pending}\n")
            target.flush()


class Gloo:
    """Takes what gloo prints out of a process's output, whose threads tear each other's lines between two writes."""

    def __init__(self) -> None:
        """Nothing has been seen."""
        self.open = 0  # messages whose end of line has not come
        self.begun = False  # whether the beginning of the next line has been passed on already

    def rest(self, line: str) -> str | None:
        """Returns what else a line holds, or None where nothing is left of it.

        While a message's end of line has not come, a line that is empty or a number is taken to be of it.
        """
        rest = GLOO.sub("", line)
        self.open += line.count(GLOO_END)
        begun, self.begun = self.begun, False
        if rest.strip("0123456789") or (rest == line and not self.open):
            return rest
        if begun:  # it has to end
            return "" if rest != line else rest
        self.open -= self.open > 0
        return None


def _stop_with_parent() -> None:
    """Has the kernel send SIGTERM to this process when the launcher dies, even by kill -9."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _say(text: str) -> None:
    print(f"launch.local: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_cli(main)
