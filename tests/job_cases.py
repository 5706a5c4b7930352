"""Starts tests/process_program.py as a job of several real processes."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

from launch.local import coordinator_address

ROOT = pathlib.Path(__file__).parents[1]


class Job:
    """Processes 0 .. count - 1 of `process_program.py WHAT DIRECTORY`, of which only those in `numbers` are started."""

    def __init__(self, what: str, directory: pathlib.Path, numbers=(0, 1), count: int = 2, **environment: str):
        directory.mkdir()
        self.held = contextlib.ExitStack()
        address = self.held.enter_context(coordinator_address())
        self.directory, self.results = directory, {}
        common = {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
        self.processes = {
            number: subprocess.Popen(
                [sys.executable, "-m", "tests.process_program", what, str(directory)],
                cwd=ROOT,
                env=os.environ | common | {"JAX_PROCESS_ID": str(number)} | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in numbers
        }

    def send(self, number: int, signal: int) -> None:
        self.processes[number].send_signal(signal)

    def wait_for(self, *files: str, seconds: int = 120) -> None:
        """Waits until the processes have written these files of their directory."""
        deadline = time.monotonic() + seconds
        while not all((self.directory / file).exists() for file in files):
            failed = any(process.poll() for process in self.processes.values())
            if failed or time.monotonic() > deadline:
                for process in self.processes.values():
                    process.kill()
                raise AssertionError(f"{self.directory}: expected {files}, but {self.finish()}")
            time.sleep(0.05)

    def finish(self, seconds: int = 60) -> dict[int, tuple[int, str, str]]:
        """Waits for the end of all: exit code, standard output and error of each."""
        try:
            for number, process in self.processes.items():
                output, error = process.communicate(timeout=seconds)
                self.results[number] = (process.returncode, output, error)
        finally:
            for process in self.processes.values():
                process.kill()
            self.held.close()
        return self.results
