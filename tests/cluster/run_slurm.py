"""Trains on a real SLURM cluster of two nodes, preempts it twice, and compares it with a run that nobody disturbed.

    python tests/cluster/run_slurm.py [--keep=DIRECTORY] [--steps=STEPS]

Starts the cluster (slurm_cluster.py), submits launch/slurm/train.sbatch, takes the nodes away once with `scontrol
requeue` and once by the signal before the time limit, and ends with code 1 unless each time the last step was saved and
the metrics are, to the last digit, those of two undisturbed processes (launch/local.py).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.cluster.slurm_cluster import slurm_cluster, tails

ROOT = Path(__file__).parents[2]
CONFIG = """
import pathlib
from tests.tiny_train import tiny_config

def get_config():
    config = tiny_config(pathlib.Path({corpus!r}), pathlib.Path("unset"))
    config.train.update(steps={steps}, log_every=1, checkpoint_every=1000, eval_every=0)
    config.compile_cache = {cache!r}
    return config
"""


def main() -> int:
    """Runs everything and says what it saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep", help="a directory that stays, with all logs; an undisturbed run in it is used again", type=Path
    )
    steps = "the training's length; SLURM looks at time limits twice a minute, and the run must last that long"
    parser.add_argument("--steps", help=steps, type=int, default=2000)
    arguments = parser.parse_args()
    keep = arguments.keep
    with tempfile.TemporaryDirectory(prefix="slurm-") as temporary:
        directory = (keep or Path(temporary)).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "config.py"
        paths = {name: str(directory / name) for name in ("corpus", "cache")}
        config.write_text(CONFIG.format(steps=arguments.steps, **paths))
        if not (directory / "undisturbed/results.json").exists():
            say("training undisturbed, two processes of launch.local")
            undisturbed(directory, config)
        for name in ("cluster", "on_slurm"):
            shutil.rmtree(directory / name, ignore_errors=True)
        with slurm_cluster(directory / "cluster") as environment:
            try:
                disturbed(Job(directory, config, environment))
            except Failure as failure:
                print(f"FAILED: {failure}\n{tails(directory / 'cluster')}", file=sys.stderr)
                return 1
    print("passed: preempted twice, and every metric is that of the undisturbed run")
    return 0


class Failure(Exception):
    """Something that was promised did not happen."""


class Job:
    """A training on the cluster."""

    def __init__(self, directory: Path, config: Path, environment: dict[str, str]) -> None:
        """Submits it with a long time limit."""
        self.workdir, self.log, self.environment = directory / "on_slurm", directory / "cluster/train.log", environment
        options = ["--parsable", f"--output={self.log}", "--time=60", "--export=ALL", "--ntasks-per-node=1"]
        arguments = [f"--config={config}", f"--config.workdir={self.workdir}"]
        script = ROOT / "launch/slurm/train.sbatch"
        self.number = self.slurm("sbatch", *options, str(script), *arguments)

    def slurm(self, *command: str) -> str:
        """One of SLURM's commands; returns what it prints."""
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def field(self, name: str) -> str:
        """A field of `scontrol show job`."""
        return re.search(rf"\b{name}=(\S+)", self.slurm("scontrol", "show", "job", self.number)).group(1)

    def wait(self, what: str, condition, seconds: int = 900) -> None:
        """Waits for a condition; a job that ends before has failed, unless its end is what is waited for."""
        for _ in range(seconds * 5):
            if condition():
                return
            state = self.field("JobState")
            if state in ("FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL") or state == "COMPLETED" and what != "its end":
                raise Failure(f"waiting for {what}, but the job is {state}:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)
        raise Failure(f"waited {seconds} s for {what}, the job is {self.field('JobState')}")

    def step(self) -> int:
        """The last step in the metrics."""
        return max((line["step"] for line in metrics(self.workdir)), default=0)

    def restarted_after(self, how: str, times: int, before: int) -> None:
        """Waits until SLURM has taken the job off the nodes, looks at what was saved, and has it start again."""
        self.wait(f"the requeue by {how}", lambda: self.field("Restarts") == str(times))
        self.wait("the end of its processes", lambda: self.field("JobState") == "PENDING")
        saved = max(int(path.name) for path in (self.workdir / "checkpoints").iterdir() if path.name.isdigit())
        if not before <= saved == self.step():
            raise Failure(f"{how} at step {before}: saved step {saved}, but the metrics go to step {self.step()}")
        say(f"{how}: stopped and saved at step {saved}")
        time.sleep(2)  # in the second of its requeue the job's credential counts as revoked, and SLURM would fail it
        # SLURM would wait two minutes, and a limit that was shortened would end the next start as well.
        self.slurm("scontrol", "update", f"JobId={self.number}", "StartTime=now", "TimeLimit=60")
        self.wait("its next start", lambda: self.log.read_text().count("== start") == times + 1)
        self.wait("the next step", lambda: self.step() > saved)


def undisturbed(directory: Path, config: Path) -> None:
    """The run to compare with; it also makes the corpus."""
    command = [sys.executable, "-m", "launch.local", "--processes=2", "--", f"--config={config}"]
    log = directory / "undisturbed.log"
    with open(log, "w") as output:
        done = subprocess.run(
            [*command, f"--config.workdir={directory / 'undisturbed'}"], cwd=ROOT, stdout=output, stderr=output
        )
    if done.returncode:
        raise SystemExit(f"the undisturbed run failed:\n{log.read_text()[-3000:]}")


def disturbed(job: Job) -> None:
    """Preempts the job in both ways, and compares."""
    job.wait("some steps", lambda: job.step() >= 40)
    before = job.step()
    job.slurm("scontrol", "requeue", job.number)
    job.restarted_after("scontrol requeue", 1, before)

    before = job.step()
    # Two to three minutes from now: no more than what is left when SLURM sends the signal (180 seconds).
    hours, minutes, _ = job.field("RunTime").split(":")
    job.slurm("scontrol", "update", f"JobId={job.number}", f"TimeLimit={60 * int(hours) + int(minutes) + 3}")
    job.restarted_after("the signal before the time limit", 2, before)

    job.wait("its end", lambda: job.field("JobState") == "COMPLETED", seconds=3600)
    expected, found = metrics(job.workdir.parent / "undisturbed"), metrics(job.workdir)
    if expected != found:
        different = next(step for step, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1])
        raise Failure(f"the metrics differ first in line {different + 1}:\n{expected[different]}\n{found[different]}")


def metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics that are complete."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def say(text: str) -> None:
    """A line about what happens now."""
    print(text, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("PYTHON", sys.executable)
    # Compiling takes most of the time of so small a model.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.exit(main())
