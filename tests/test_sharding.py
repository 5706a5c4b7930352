"""Meshes of fake devices: the same numbers as one device, and clear words where the axes do not fit."""

import os
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from medp_clip_jax import sharding
from medp_clip_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]

# Losses of five steps on a mesh, printed by a process that owns its own fake devices.
PROGRAM = """
import functools, sys, jax, numpy as np
from configs import common
from medp_clip_jax import sharding, train
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.step import Bank, train_step
from tests import model_cases as cases

data, fsdp = map(int, sys.argv[1:])
config = common.get_config()
config.model = cases.small_config()
config.mesh.update(data=data, fsdp=fsdp)
config.train.steps = 5
rng = np.random.default_rng(0)
batch = cases.random_batch(rng)
bank = Bank(rng.integers(1, 299, (5, 2, 6)).astype(np.int32), np.zeros((5, 5), bool), np.zeros(5, np.float32))
mesh = sharding.make_mesh(config.mesh)
jax.set_mesh(mesh)
model = MedPCLIP(config.model)
optimizer, layout, state = train.make_state(model, config, mesh)
step = jax.jit(functools.partial(train_step, model, optimizer, config), out_shardings=(layout, None))
split = sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(state.params))
for _ in range(5):
    state, metrics = step(state, sharding.put_batch(batch, mesh), jax.device_put(bank, sharding.replicated(mesh)))
    print("loss", float(metrics["loss"]))
assert step._cache_size() == 1, "the layout of the state changed, so that the step was compiled anew"
print("split", split)
"""


def run(devices: int, data: int, fsdp: int) -> tuple[list[float], int]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data), str(fsdp)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [float(value) for name, value in lines if name == "loss"], int(lines[-1][1])


def test_meshes_train_to_the_losses_of_one_device():
    expected, _ = run(1, 1, 1)
    for data, fsdp in ((4, 1), (2, 2)):
        losses, split = run(4, data, fsdp)
        assert losses == pytest.approx(expected, rel=1e-5)
        assert (split > 0) == (fsdp > 1)


def test_axes_that_do_not_fit_the_devices_are_refused():
    with pytest.raises(InputError, match="does not make"):
        sharding.make_mesh(ml_collections.ConfigDict({"data": 3, "fsdp": 5}))
