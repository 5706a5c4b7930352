"""Twenty random kills of a two-process training in a row lose nothing but unsaved steps: `make test-kills`."""

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

from medp_clip_jax import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
KILLS = 20
STEPS = 120
CHECKPOINT_EVERY = 5
CONFIG = """
import pathlib
from tests.tiny_train import tiny_config

def get_config():
    config = tiny_config(pathlib.Path({corpus!r}), pathlib.Path("unset"))
    config.train.update(steps={steps}, log_every=1, checkpoint_every={every}, eval_every=0)
    config.compile_cache = {cache!r}
    return config
"""


class Training:
    """The training of one workdir by two processes of launch.local, started as often as it is killed."""

    def __init__(self, folder: pathlib.Path, name: str):
        self.workdir, self.folder, self.output = folder / name, folder, folder / f"{name}.log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "launch.local", "--processes=2", "--"]
        arguments = [f"--config={self.folder / 'config.py'}", f"--config.workdir={self.workdir}"]
        with open(self.output, "a") as output:
            self.process = subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=output, stderr=output)

    def metrics(self) -> list[dict]:
        path = self.workdir / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def saved(self) -> int:
        """The newest checkpoint's step; unfinished ones have other names."""
        folder = self.workdir / "checkpoints"
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        return max((int(name) for name in names if name.isdigit()), default=0)

    def children(self) -> list[int]:
        listed = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in listed.split()]

    def kill_one(self, generator: random.Random, step: int, seconds: float) -> int:
        """Waits for a step, then so many seconds, kills one of the two processes, and waits for the end of the job."""
        deadline = time.monotonic() + 900
        while not (len(self.metrics()) >= step and len(self.children()) == 2):
            assert self.process.poll() is None and time.monotonic() < deadline, self.output.read_text()[-3000:]
            time.sleep(0.01)
        time.sleep(seconds)
        number = generator.randrange(2)
        reached = len(self.metrics())
        os.kill(self.children()[number], signal.SIGKILL)
        assert self.process.wait(timeout=60) != 0
        said = self.output.read_text()
        assert f"process {number} of 2 was killed by SIGKILL" in said, said[-3000:]
        return reached


def params_of(workdir: pathlib.Path):
    with checkpoint.make_checkpointer(workdir, 3, "region/mask/macro") as checkpointer:
        saved = checkpointer.checkpointables_metadata(STEPS).metadata["params"]
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # not on the two processes that wrote them
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved)
    return checkpoint.load_params(workdir, shapes, STEPS)


@pytest.mark.kills
def test_twenty_random_kills_lose_nothing_but_unsaved_steps(tmp_path):
    seed = random.randrange(10**6)
    print(f"\nseed {seed}")
    generator = random.Random(seed)
    paths = {name: str(tmp_path / name) for name in ("corpus", "cache")}
    (tmp_path / "config.py").write_text(CONFIG.format(steps=STEPS, every=CHECKPOINT_EVERY, **paths))
    undisturbed = Training(tmp_path, "undisturbed")
    undisturbed.start()
    assert undisturbed.process.wait(timeout=1800) == 0, undisturbed.output.read_text()[-3000:]
    expected = undisturbed.metrics()

    training = Training(tmp_path, "killed")
    for kill in range(KILLS):
        before = training.saved()
        # Mostly a few steps on, so that it ends; now and then while it still starts, compiles or restores.
        step = 0 if generator.random() < 0.2 else min(before + generator.randint(1, 2 * STEPS // KILLS), STEPS - 1)
        training.start()
        reached = training.kill_one(generator, step, generator.uniform(0, 2 if step == 0 else 0.5))
        saved = training.saved()
        print(f"kill {kill + 1:2}: started from step {before:3}, killed at {reached:3}, saved {saved:3}", flush=True)
        assert saved >= before
        assert training.metrics() == expected[: len(training.metrics())]
    training.start()
    assert training.process.wait(timeout=1800) == 0, training.output.read_text()[-3000:]
    assert training.metrics() == expected
    jax.tree.map(np.testing.assert_array_equal, params_of(training.workdir), params_of(undisturbed.workdir))
    print(
        f"{KILLS} kills, and metrics of {STEPS} steps and final parameters are those of the undisturbed run to the bit"
    )
