"""Runs the cells of a sweep: here, some at a time, or as a job each through a launcher."""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from medp_clip_jax import results, sweep_match
from medp_clip_jax.errors import InputError
from medp_clip_jax.processes import EXIT_PREEMPTED
from medp_clip_jax.sweep_cells import Sweep, arguments

SUBMITTED, LOG = "submitted.txt", "log.txt"
BATCH_JOB = re.compile(r"Submitted batch job (\d+)(?: on cluster (\S+))?")  # what sbatch says


def run(
    sweep: Sweep,
    output: pathlib.Path,
    jobs: int = 1,
    finished: Callable[[], None] = lambda: None,
    kept: Collection[str] = (),
    command: Callable[[str, list[str]], list[str]] = lambda module, given: [sys.executable, "-m", module, *given],
) -> dict[str, int]:
    """Runs what is neither finished nor `kept`, `jobs` cells at a time, calling `finished` after each. Exit codes.

    A stop signal is passed on to the running cells, which save; no others are begun then. InputError where a finished
    cell is of another configuration than the sweep has for it.
    """
    ready = {*kept, *sweep_match.finished(sweep, output)}
    waiting = [name for name in sweep.cells if name not in ready]
    running: dict[str, subprocess.Popen] = {}
    codes: dict[str, int] = {}
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        stopped.append(number)
        for process in running.values():
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while running or (waiting and not stopped):
            while waiting and len(running) < jobs and not stopped:
                name = waiting.pop(0)
                folder = results.writable(output / name)
                sweep_match.note(folder, sweep, name)
                print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
                with (folder / LOG).open("a") as log:
                    whole = command(*arguments(sweep, sweep.cells[name], folder))
                    # A group of its own: Ctrl-C reaches the cells through `stop` alone, and once.
                    running[name] = subprocess.Popen(whole, stdout=log, stderr=log, process_group=0)
                if stopped:  # while it began
                    running[name].send_signal(signal.SIGTERM)
            time.sleep(0.05)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                codes[name] = running.pop(name).returncode
                if stopped and codes[name] == -signal.SIGTERM:  # an evaluation, which has nothing to save
                    codes[name] = EXIT_PREEMPTED
                finished()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        codes |= dict.fromkeys(waiting, EXIT_PREEMPTED)
    return codes


def submit(sweep: Sweep, output: pathlib.Path, launcher: str, kept: Collection[str] = (), again: bool = False) -> int:
    """Calls `launcher` with the arguments of each cell that is not finished, kept or under way; how many were.

    `MODULE` in its environment is the module that takes the arguments. Under way is what was submitted, unless SLURM
    says that its job is over; all else is submitted once more with `again` alone.

    Raises:
      InputError: the launcher refuses a cell, in its words, or a finished one is not as the sweep has it.
    """
    count, ready = 0, {*kept, *sweep_match.finished(sweep, output)}
    for name, cell in sweep.cells.items():
        folder = output / name
        if name in ready or ((folder / SUBMITTED).is_file() and not again and not _over(folder / SUBMITTED)):
            continue
        results.writable(folder)
        sweep_match.note(folder, sweep, name)
        module, given = arguments(sweep, cell, folder)
        try:
            whole, variables = [*shlex.split(launcher), *given], {**os.environ, "MODULE": module}
            done = subprocess.run(whole, capture_output=True, text=True, env=variables)
        except OSError as error:
            raise InputError(f"--submit={launcher}: {error.strerror}; expected a command such as sbatch") from error
        if done.returncode:
            raise InputError(f"--submit={launcher}: {name}: {(done.stderr or done.stdout).strip()[-300:]}")
        (folder / SUBMITTED).write_text(done.stdout)
        print(f"{name}: {done.stdout.strip()}", flush=True)
        count += 1
    return count


def _over(submitted: pathlib.Path) -> bool:
    """Whether SLURM says that the job is neither waiting nor running; of other launchers' jobs it is not known."""
    job = BATCH_JOB.search(submitted.read_text())
    if not job or not shutil.which("squeue"):
        return False
    cluster = [f"--clusters={job[2]}"] if job[2] else []
    asked = subprocess.run(["squeue", "--noheader", f"--jobs={job[1]}", *cluster], capture_output=True, text=True)
    if asked.returncode:  # a job is forgotten after some minutes; any other error tells nothing about it
        return "Invalid job id" in asked.stderr
    return not any(line.split()[:1] == [job[1]] for line in asked.stdout.splitlines())
