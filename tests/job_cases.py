"""Starts tests/process_program.py as a job of several real processes."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]


class Job:
    """Processes 0 .. count - 1 of `process_program.py WHAT DIRECTORY`, of which only those in `numbers` are started."""

    def __init__(self, what: str, directory: pathlib.Path, numbers=(0, 1), count: int = 2, **environment: str):
        directory.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
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
            ended = {number: process.poll() for number, process in self.processes.items()}
            assert not any(ended.values()) and time.monotonic() < deadline, (files, ended)
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
        return self.results
