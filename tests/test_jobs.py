"""Trainings in several processes of this machine: the losses of one process, whoever stops, saves or goes on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny_train import STEPS

ROOT = pathlib.Path(__file__).parents[1]
TINY = """
import pathlib
from tests.tiny_train import tiny_config

def get_config():
    return tiny_config(pathlib.Path({corpus!r}), pathlib.Path("unset"))
"""
SMOKE = """
from configs import smoke

def get_config():
    config = smoke.get_config()
    config.data.corpus = {corpus!r}
    config.data.build = ("--source=phantoms", "--train=400", "--val=8", "--test=8", "--size=64")
    config.train.update(steps=50, log_every=1, checkpoint_every=20)
    config.eval.kinds = ("mask", "none", "crop")
    return config
"""


def write_config(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "config.py"
    path.write_text(text.format(corpus=str(folder / "corpus")))
    return path


def start(processes: int, config: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
    """A training of as many processes, one of them without any launcher."""
    arguments = [f"--config={config}", f"--config.workdir={workdir}"]
    if processes == 1:
        command = ["-m", "medp_clip_jax.train", *arguments]
    else:
        command = ["-m", "launch.local", f"--processes={processes}", "--", *arguments]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, **pipes)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == code, output
    return output


def stop_at(process: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    """Sends SIGTERM when that many steps are in the metrics."""
    log, deadline = workdir / "metrics.jsonl", time.monotonic() + 600
    while not (log.exists() and log.read_text().count("\n") >= step):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)


def losses(workdir: pathlib.Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert len(found) == sum("loss" in line for line in lines)  # no step twice
    return found


def assert_same(workdir: pathlib.Path, expected: dict[int, float]) -> None:
    found = losses(workdir)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[pathlib.Path, dict[int, float]]:
    """(config, losses) of a run in one process."""
    folder = tmp_path_factory.mktemp("jobs")
    config = write_config(folder, TINY)
    finish(start(1, config, folder / "alone"))
    return config, losses(folder / "alone")


def test_two_processes_stopped_and_continued_by_one_train_as_one_process_alone(tiny, tmp_path):
    config, expected = tiny
    workdir = tmp_path / "run"
    process = start(2, config, workdir)
    stop_at(process, workdir, 7)
    output = finish(process, 75)
    assert "Traceback" not in output
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 7 <= saved < STEPS
    assert max(losses(workdir)) == saved  # nothing was done in vain
    output = finish(start(1, config, workdir))
    assert "lost 0.0%" in output
    assert_same(workdir, expected)
    results = json.loads((workdir / "results.json").read_text())
    assert results["metrics"]


def test_one_process_stops_when_asked_and_goes_on_in_two(tiny, tmp_path):
    config, expected = tiny
    workdir = tmp_path / "run"
    process = start(1, config, workdir)
    stop_at(process, workdir, 4)
    assert "Traceback" not in finish(process, 75)
    finish(start(2, config, workdir))
    assert_same(workdir, expected)


@pytest.mark.slow
def test_smoke_trains_alike_in_one_two_and_four_processes_and_moves_between_them(tmp_path):
    config = write_config(tmp_path, SMOKE)
    finish(start(1, config, tmp_path / "one"))
    expected = losses(tmp_path / "one")
    assert len(expected) == 50
    for count in (2, 4):
        finish(start(count, config, tmp_path / f"all{count}"))
        assert_same(tmp_path / f"all{count}", expected)
    for count in (1, 2):
        workdir = tmp_path / f"four_then_{count}"
        process = start(4, config, workdir)
        stop_at(process, workdir, 22)
        finish(process, 75)
        finish(start(count, config, workdir))
        assert_same(workdir, expected)
