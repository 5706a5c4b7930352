"""The train step of a configuration on shapes alone: nothing is allocated, so any number of devices will do."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from medp_clip_jax import sharding
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import Bank, TrainState, train_step
from medp_clip_jax.train import plan_state

Struct = jax.ShapeDtypeStruct


def batch_shapes(config: Any) -> dict[str, Any]:
    """Shapes and types of a global training batch, as `input.train_dataset` yields it."""
    batch, size = config.input.batch_size, config.model.image.size
    regions, points, mask = config.input.regions, config.input.points, config.input.mask_size
    prompts = RegionPrompts(
        points=Struct((batch, regions, points, 2), np.float32),
        point_labels=Struct((batch, regions, points), np.int32),
        boxes=Struct((batch, regions, 4), np.float32),
        box_valid=Struct((batch, regions), bool),
        masks=Struct((batch, regions, mask, mask), np.uint8),
        mask_valid=Struct((batch, regions), bool),
        valid=Struct((batch, regions), bool),
    )
    return {
        "image": Struct((batch, size, size, 3), np.uint8),
        "rectangle": Struct((batch, 4), np.float32),
        "prompts": prompts,
        "label": Struct((batch, regions), np.int32),
        "text": Struct((batch, config.model.text.context), np.int32),
        "text_id": Struct((batch,), np.int32),
        "position": Struct((batch,), np.int32),
    }


def bank_shapes(config: Any, labels: int) -> Bank:
    """Shapes and types of a label bank with `labels` rows."""
    variants = config.input.label_variants
    bank = Bank(
        tokens=Struct((labels, variants, config.input.label_context), np.int32),
        excluded=Struct((labels, labels), bool),
        log_prior=Struct((labels,), np.float32),
    )
    if "text" in config.optim.frozen:
        bank = bank.replace(embedded=Struct((labels, variants, config.model.embed), np.float32))
    return bank


def state_shapes(config: Any, mesh: Mesh) -> tuple[Any, Any, TrainState]:
    """The optimiser, the layout on the mesh, and the training state as laid-out shapes."""
    optimizer, layout, fresh = plan_state(MedPCLIP(config.model), config, mesh)
    return optimizer, layout, jax.tree.map(_laid_out, jax.eval_shape(fresh), layout)


def compile_step(config: Any, mesh: Mesh, labels: int) -> tuple[jax.stages.Compiled, str]:
    """The train step, compiled for the devices of `mesh` just as `train.train` would, and the program as text.

    Raises:
      InputError: the batch does not divide among the devices and microbatches.
    """
    sharding.check_batch(config, mesh)
    optimizer, layout, state = state_shapes(config, mesh)
    batch = jax.tree.map(lambda x: _laid_out(x, sharding.batch_sharding(mesh)), batch_shapes(config))
    bank = jax.tree.map(lambda x: _laid_out(x, sharding.replicated(mesh)), bank_shapes(config, labels))
    step = functools.partial(train_step, MedPCLIP(config.model), optimizer, config)
    with jax.set_mesh(mesh):
        lowered = jax.jit(step, donate_argnums=0, out_shardings=(layout, None)).lower(state, batch, bank)
    if mesh.devices.flat[0].platform != "tpu":
        compiled = lowered.compile()
        return compiled, compiled.as_text()
    # jax cannot print what v5p and v6e hand to their SparseCores; the compiler itself can.
    with tempfile.TemporaryDirectory() as dump:
        compiled = lowered.compile({"xla_dump_to": dump, "xla_dump_hlo_as_text": True})
        return compiled, next(Path(dump).glob("*.after_optimizations.txt")).read_text()


def _laid_out(x: Struct, where: NamedSharding) -> Struct:
    return Struct(x.shape, x.dtype, sharding=where)
