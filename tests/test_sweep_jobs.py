"""What of a sweep is run again and what is not, here and as jobs."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from sweep_cases import finished, made, written

from medp_clip_jax import evidence, sweep_cells, sweep_jobs, sweep_match, sweep_table
from medp_clip_jax.errors import InputError
from medp_clip_jax.processes import EXIT_PREEMPTED

# A training that leaves its results, or fails where it is told to; it waits to be stopped while there is a file `wait`.
PROGRAM = """
import json, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[-1].split("=", 1)[1])
print("ran", *sys.argv[1:], flush=True)
if not (folder.parent / "deaf").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
while (folder.parent / "wait").exists():
    (folder / "waiting").touch()
    time.sleep(0.01)
if any("fusion=late" in word for word in sys.argv) and (folder.parent / "fail").exists():
    sys.exit(3)
value = 0.5 + 0.1 * any("seed=1" in word for word in sys.argv)
content = {"metrics": {"region/mask/macro": value}, "commit": "abc", "data": {"name": "d", "checksum": "1"}}
content["config"] = json.loads((folder / "config.json").read_text())
(folder / "results.json").write_text(json.dumps(content))
"""


def run(grid, folder, jobs=1, kept=()):
    seen, wanted = [], sweep_cells.configurations(grid)

    def command(module, given):
        cell = pathlib.Path(given[-1].split("=", 1)[1])
        (cell / "config.json").write_text(json.dumps(wanted[cell.name].to_dict()))
        return [sys.executable, "-c", PROGRAM, *given]

    codes = sweep_jobs.run(grid, folder, jobs, lambda: seen.append(1), kept, command)
    assert len(seen) == sum((folder / name / sweep_jobs.LOG).exists() for name in codes)
    return codes


def test_finished_cells_are_not_run_again_and_failed_ones_are(tmp_path):
    (tmp_path / "fail").touch()
    assert run(made(), tmp_path) == {
        "fusion=tokens,seed=0": 0,
        "fusion=tokens,seed=1": 0,
        "fusion=late,seed=0": 3,
        "fusion=late,seed=1": 3,
    }
    (tmp_path / "fail").unlink()
    assert run(made(), tmp_path, jobs=2) == {"fusion=late,seed=0": 0, "fusion=late,seed=1": 0}
    assert run(made(), tmp_path) == {}
    assert (tmp_path / "fusion=late,seed=1" / sweep_jobs.LOG).read_text().count("ran") == 2


def test_kept_cells_are_not_run(tmp_path):
    first = "fusion=tokens,seed=0"
    assert set(run(made(), tmp_path, kept=[first])) == set(made().cells) - {first}
    assert not (tmp_path / first).exists()


def test_cells_of_an_edited_definition_are_refused(tmp_path):
    one = "fusion=tokens,seed=0"
    finished(tmp_path, made(), one)
    edited = made()
    edited.cells[one]["loss.tau"] = 0.25
    launcher = f"{sys.executable} -c ''"
    for begin in (run, sweep_table.write, lambda grid, folder: sweep_jobs.submit(grid, folder, launcher)):
        folder_first = (edited, tmp_path) if begin is not sweep_table.write else (tmp_path, edited)
        with pytest.raises(InputError, match=r"\(loss.tau was 0.5 and is 0.25\): remove the folder, or name another"):
            begin(*folder_first)
    assert sweep_match.finished(made(), tmp_path) == [one] and len(list(tmp_path.iterdir())) == 1
    asks = sweep_cells.Sweep("", {"a": {"checkpoint": "r", "split": "val"}})
    finished(tmp_path, asks, "a")
    assert sweep_match.finished(asks, tmp_path) == ["a"]
    asks.cells["a"]["split"] = "test"
    with pytest.raises(InputError, match=r"a: finished, but .*\(split was val and is test\)"):
        sweep_table.write(tmp_path, asks)
    (tmp_path / "a" / sweep_match.ARGUMENTS).unlink()
    with pytest.raises(InputError, match="does not tell what it was asked"):
        sweep_table.write(tmp_path, asks)


@pytest.mark.parametrize("deaf", [False, True], ids=["training", "evaluation"])
def test_a_stop_reaches_the_running_cells_and_begins_no_others(tmp_path, deaf):
    (tmp_path / "wait").touch()
    if deaf:  # it ends by the signal itself
        (tmp_path / "deaf").touch()
    handlers = signal.getsignal(signal.SIGTERM)

    def when_both_run():
        while sum(1 for _ in tmp_path.glob("*/waiting")) < 2:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=when_both_run, daemon=True).start()
    codes = run(made(), tmp_path, jobs=2)
    assert set(codes.values()) == {EXIT_PREEMPTED} and len(codes) == 4
    assert sum((tmp_path / name / sweep_jobs.LOG).exists() for name in codes) == 2
    assert signal.getsignal(signal.SIGTERM) is handlers
    (tmp_path / "wait").unlink()
    assert set(run(made(), tmp_path).values()) == {0}


def test_submitted_cells_are_submitted_once(tmp_path):
    launcher = f"{sys.executable} -c 'import sys; print(len(sys.argv))'"
    assert sweep_jobs.submit(made(), tmp_path, launcher) == 4
    assert (tmp_path / "fusion=late,seed=0" / sweep_jobs.SUBMITTED).read_text() == "5\n"
    assert sweep_jobs.submit(made(), tmp_path, launcher) == 0
    with pytest.raises(InputError, match="no such partition"):
        sweep_jobs.submit(
            made(seeds=(5,)), tmp_path, f"{sys.executable} -c 'import sys; sys.exit(\"no such partition\")'"
        )
    assert not (tmp_path / "fusion=tokens,seed=5" / sweep_jobs.SUBMITTED).exists()


ECHO = f"{sys.executable} -c 'import os, sys; print(os.environ[\"MODULE\"], *sys.argv[1:])'"


def test_evaluations_are_submitted_with_their_module(tmp_path):
    asked = {"checkpoint": "r", "data": "d"}
    grid = sweep_cells.Sweep("", {"a": asked, "b": {**asked, "evaluator": "robustness", "seed": 1}})
    assert sweep_jobs.submit(grid, tmp_path, ECHO) == 2
    told = [(tmp_path / name / sweep_jobs.SUBMITTED).read_text().strip() for name in "ab"]
    assert told == [
        f"medp_clip_jax.evaluate --checkpoint=r --data=d --output={tmp_path}/a",
        f"medp_clip_jax.evaluators.robustness --checkpoint=r --data=d --seed=1 --output={tmp_path}/b",
    ]
    assert sweep_match.noted(tmp_path / "b") == grid.cells["b"]  # so that the finished cell is known
    assert sweep_jobs.submit(made(seeds=(5,)), tmp_path, ECHO) == 2
    folder = tmp_path / "fusion=late,seed=5"
    assert (folder / sweep_jobs.SUBMITTED).read_text().startswith("medp_clip_jax.train --config=configs/smoke.py")


@pytest.mark.parametrize(
    ("says", "answer", "over"),
    [
        ("Submitted batch job 4711", "echo '  4711 part job me R 1:00'", False),
        ("Submitted batch job 4711", "echo '  4711 part job me PD 0:00'", False),
        ("Submitted batch job 4711", "true", True),
        ("Submitted batch job 4711", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("Submitted batch job 4711", "echo 'Unable to contact slurm controller' >&2; exit 1", False),
        ("Submitted batch job 4711 on cluster far", 'test "$3" = --clusters=far', True),
        ("started", "true", False),  # by another launcher
    ],
)
def test_a_job_that_slurm_no_longer_has_is_submitted_again(tmp_path, monkeypatch, says, answer, over):
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntest "$2" = --jobs=4711 || exit 9\n{answer}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    launcher, output = f"echo {says} #", tmp_path / "out"
    grid = made(fusions=("late",))
    assert sweep_jobs.submit(grid, output, launcher) == 2
    assert sweep_jobs.submit(grid, output, launcher) == (2 if over else 0)
    finished(output, grid, "fusion=late,seed=0")
    assert sweep_jobs.submit(grid, output, launcher) == (1 if over else 0)
    assert sweep_jobs.submit(grid, output, launcher, again=True) == 1


def test_without_squeue_jobs_are_taken_for_running(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_jobs.shutil, "which", lambda name: None)
    grid = made(seeds=(0,))
    assert sweep_jobs.submit(grid, tmp_path, "echo Submitted batch job 4711") == 2
    assert sweep_jobs.submit(grid, tmp_path, "echo Submitted batch job 4711") == 0


def test_the_command_keeps_evidence_and_refuses_what_it_cannot_show(tmp_path):
    body = "    s.grid = (('checkpoint', ('r',)), ('split', ('val', 'test')))\n"
    path = written(tmp_path, body)
    grid = sweep_cells.read_sweep(path)
    for name in grid.cells:
        finished(tmp_path / "out", grid, name)
    kept = tmp_path / "evidence" / "grid.json"
    kept.parent.mkdir()
    evidence.keep(kept, path, sweep_table.write(tmp_path / "out", grid))
    before = kept.read_text()

    def command(*flags):
        line = [sys.executable, "-m", "medp_clip_jax.sweep", f"--config={path}", f"--evidence={kept.parent}", *flags]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    done = command("--collect", f"--output={tmp_path / 'none'}")
    assert done.returncode == 0 and "2 of 2 cells are in" in done.stdout and kept.read_text() == before
    written(tmp_path, body.replace("'r'", "'other'") + "    s.cells = ({'checkpoint': 'r', 'split': 'all'},)\n")
    edited = sweep_cells.read_sweep(path)
    for name, old in zip(edited.cells, grid.cells, strict=False):  # a folder under the name of another cell
        (tmp_path / "out" / old).rename(tmp_path / "out" / name)
    refused = command("--collect", f"--output={tmp_path / 'out'}")
    assert refused.returncode == 2 and "(checkpoint was r and is other)" in refused.stderr
    assert "Traceback" not in refused.stderr and kept.read_text() == before
