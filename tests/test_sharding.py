"""Training on meshes of fake devices: the losses of one device, and clear words where something does not divide."""

import json
import os
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from configs import common
from medp_clip_jax import sharding
from medp_clip_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]

# Losses of some steps on meshes of the first devices, printed by a process that owns eight fake ones.
PROGRAM = """
import functools, json, sys, jax, numpy as np
from configs import common
from medp_clip_jax import sharding, train
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.step import Bank, embed_bank, train_step
from tests import model_cases as cases

kind, steps = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
batch = cases.random_batch(rng, size=16)
bank = Bank(rng.integers(1, 299, (5, 2, 6)).astype(np.int32), np.zeros((5, 5), bool), np.zeros(5, np.float32))
for data, fsdp, accumulate in ((1, 1, 1), (8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 2)):
    config = common.get_config()
    config.model = cases.small_config()
    config.model.image.patch_drop = 0.25
    config.model.prompt.glimpse_drop = 0.3
    config.model.remat = "dots" if accumulate == 1 else "full"
    config.loss.distill = 0.5 if kind == "distill" else 0.0
    config.optim.frozen = ("text",) if kind == "frozen" else ()
    config.train.update(steps=20, accumulate=accumulate)
    config.mesh.update(data=data, fsdp=fsdp)
    mesh = sharding.make_mesh(config.mesh, jax.devices()[: data * fsdp])
    with jax.set_mesh(mesh):
        model = MedPCLIP(config.model)
        optimizer, layout, state = train.make_state(model, config, mesh)
        base = jax.tree.map(lambda x: 0.9 * x, state.params) if kind == "distill" else None
        step = functools.partial(train_step, model, optimizer, config, base=base)
        step = jax.jit(step, donate_argnums=0, out_shardings=(layout, None))
        split = sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(state.params))
        losses, known = [], jax.device_put(bank, sharding.replicated(mesh))
        if kind == "frozen":
            known = jax.jit(functools.partial(embed_bank, model), out_shardings=sharding.replicated(mesh))(
                state.params, known
            )
        for _ in range(steps):
            placed = sharding.put_batch(batch, mesh), known
            state, metrics = step(state, *placed)
            losses.append(float(metrics["loss"]))
        assert step._cache_size() == 1, "the layout of the state changed, so that the step was compiled anew"
        print("RESULT", json.dumps({"mesh": [data, fsdp, accumulate], "split": split, "losses": losses}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps"), [("contrastive", 20), ("distill", 5), ("frozen", 5)])
def test_every_mesh_trains_to_the_losses_of_one_device(kind, steps):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-c", PROGRAM, kind, str(steps)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    alone, *others = map(json.loads, lines)
    assert len(others) == 4
    assert len(set(alone["losses"])) == steps  # something was learned in every step
    for found in others:
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5), found["mesh"]
        assert (found["split"] > 0) == (found["mesh"][1] > 1)


def test_axes_that_do_not_fit_the_devices_are_refused():
    with pytest.raises(InputError, match="does not make"):
        sharding.make_mesh(ml_collections.ConfigDict({"data": 3, "fsdp": 5}))


@pytest.mark.parametrize(("batch", "accumulate"), [(7, 2), (6, 4)])
def test_a_batch_that_does_not_divide_is_refused(batch, accumulate):
    config = common.get_config()
    config.input.batch_size, config.train.accumulate = batch, accumulate
    with pytest.raises(InputError, match="choose a multiple of"):
        sharding.check_batch(config, sharding.make_mesh(config.mesh))


class Slice:
    """A device of one of two slices, as far as the mesh looks at it."""

    platform, device_kind, process_index = "tpu", "TPU v5 lite", 0

    def __init__(self, number: int):
        self.id, self.slice_index = number, number // 4


def test_parameters_stay_inside_a_slice():
    with pytest.raises(InputError, match=r"config\.mesh\.data=2"):
        sharding.make_mesh(ml_collections.ConfigDict({"data": 1, "fsdp": -1}), [Slice(i) for i in range(8)])
