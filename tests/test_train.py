"""Whole training runs of a tiny model: they learn, stop, resume and refuse as promised."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from medp_clip_jax import checkpoint, preparation, train
from medp_clip_jax.config import save_config
from medp_clip_jax.errors import InputError
from tests.tiny_train import STEPS, tiny_config

ROOT = pathlib.Path(__file__).parents[1]


CONFIG_FILE = """
import pathlib
from tests.tiny_train import tiny_config

def get_config():
    return tiny_config(pathlib.Path({corpus!r}), pathlib.Path("unset"))
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("train")
    (folder / "config.py").write_text(CONFIG_FILE.format(corpus=str(folder / "corpus")))
    return folder


def command(shared: pathlib.Path, workdir: pathlib.Path, *overrides: str) -> subprocess.Popen:
    arguments = [f"--config={shared / 'config.py'}", f"--config.workdir={workdir}", *overrides]
    return subprocess.Popen(
        [sys.executable, "-m", "medp_clip_jax.train", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def metrics_of(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def params_of(workdir: pathlib.Path):
    with checkpoint.make_checkpointer(workdir, 3, "region/mask/micro") as checkpointer:
        saved = checkpointer.checkpointables_metadata(STEPS).metadata["params"]
    return checkpoint.load_params(workdir, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved), STEPS)


@pytest.fixture(scope="module")
def uninterrupted(shared) -> pathlib.Path:
    workdir = shared / "uninterrupted"
    finish(command(shared, workdir))
    return workdir


def test_a_run_leaves_everything_that_using_it_needs(uninterrupted):
    for name in ("config.json", "tokenizer.json", "ontology.json", "labels.json", "results.json", "report.html"):
        assert (uninterrupted / name).stat().st_size > 0, name
    losses = [line["loss"] for line in metrics_of(uninterrupted) if "loss" in line]
    assert len(losses) == STEPS
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(shared, uninterrupted):
    workdir = shared / "killed"
    at = random.randint(6, STEPS - 2)
    process = command(shared, workdir)
    log = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and log.read_text().count("\n") >= at):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(command(shared, workdir))
    assert metrics_of(workdir) == metrics_of(uninterrupted)
    jax.tree.map(np.testing.assert_array_equal, params_of(workdir), params_of(uninterrupted))


def test_a_finished_run_started_again_changes_nothing(shared, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    params = params_of(uninterrupted)
    finish(command(shared, uninterrupted))
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before
    jax.tree.map(np.testing.assert_array_equal, params_of(uninterrupted), params)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.optim.learning_rate=fast", "learning_rate"),
        ("--config.trian.steps=3", "trian"),
        ("--config.model.image.size=50", "multiple of patch"),
        ("--config.data.train_split=training", "training"),
        ("--config.input.batch_size=0", "at least 1"),
    ],
)
def test_bad_command_lines_end_in_one_line(shared, uninterrupted, override, words):
    process = command(shared, shared / "refused", override)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in output, output
    assert words in output


def test_another_architecture_in_the_workdir_is_refused(shared, uninterrupted):
    config = tiny_config(shared / "corpus", uninterrupted)
    config.model.image.width = 64
    with pytest.raises(InputError, match=r"another config\.model\.image\.width"):
        preparation.make_workdir(config)


def test_another_configuration_in_the_workdir_is_refused_but_not_what_decides_nothing(shared, uninterrupted):
    config = tiny_config(shared / "corpus", uninterrupted)
    config.train.log_every, config.eval.gallery = 7, 5
    preparation.make_workdir(config)
    config.seed = 1
    with pytest.raises(InputError, match=r"another config\.seed"):
        preparation.make_workdir(config)


def test_a_checkpoint_of_another_architecture_names_the_parameter(shared, uninterrupted):
    params = params_of(uninterrupted)
    params["visual"]["proj"] = np.zeros((3, 3), np.float32)
    with pytest.raises(InputError, match="visual/proj"):
        checkpoint.load_params(uninterrupted, params)


def test_an_unwritable_workdir_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    config = tiny_config(tmp_path, blocker / "run")
    with pytest.raises(InputError, match="choose a writable directory"):
        preparation.make_workdir(config)


def test_non_finite_steps_end_the_run_only_in_a_row(tmp_path):
    config = tiny_config(tmp_path, tmp_path)
    train.check_finite({"bad_steps_in_a_row": config.train.max_bad_steps - 1}, 5, config)
    with pytest.raises(InputError, match="step 5"):
        train.check_finite({"bad_steps_in_a_row": config.train.max_bad_steps}, 5, config)


def test_a_run_stores_its_configuration(tmp_path):
    config = tiny_config(tmp_path, tmp_path)
    save_config(config, tmp_path / "config.json")
    preparation.make_workdir(config)  # the same model again is no conflict
