"""The device mesh, and how batches, parameters and activations lie on it."""

from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medp_clip_jax.errors import InputError

AXES = ("data", "fsdp")


def make_mesh(config: Any, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with axes `data` (replicas) and `fsdp` (parameters sharded); -1 takes all the devices that are left.

    Slices of TPUs, which a slower network joins, lie along `data`.

    Raises:
      InputError: the axes do not multiply to the number of devices, or `data` is no multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    fsdp = config.fsdp if config.fsdp > 0 else len(devices) // max(config.data, 1)
    data = config.data if config.data > 0 else len(devices) // fsdp
    if data * fsdp != len(devices):
        raise InputError(
            f"config.mesh: data {config.data} x fsdp {config.fsdp} does not make {len(devices)} devices; set one to -1"
        )
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if data % slices:
        raise InputError(
            f"config.mesh: data {data} is no multiple of the {slices} slices; set config.mesh.data={slices} and "
            "config.mesh.fsdp=-1, so that parameters are split inside a slice"
        )
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh((data // slices, fsdp), (slices, 1), devices)
        return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)
    return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def check_batch(config: Any, mesh: Mesh) -> None:
    """Raises InputError unless every device gets as many images as another, in every microbatch."""
    parts = mesh.size * config.train.accumulate
    if config.input.batch_size % parts:
        raise InputError(
            f"config.input.batch_size: {config.input.batch_size} does not divide among {mesh.size} devices x "
            f"{config.train.accumulate} microbatches; choose a multiple of {parts}"
        )


def logical_rules(config: Any) -> list[tuple[str, tuple[str, ...] | None]]:
    """`config.mesh.rules` as flax takes them, for `flax.linen.logical_axis_rules`."""
    return [(name, tuple(axes) or None) for name, axes in config.rules.items()]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over all devices along their first axis."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def array_sharding(arrays: Any, mesh: Mesh, axes: tuple[str, ...]) -> Any:
    """Each array is split over the mesh's `axes` along its largest axis that divides evenly, else replicated."""
    shards = int(np.prod([mesh.shape[axis] for axis in axes]))

    def spec(x: Any) -> NamedSharding:
        fits = [axis for axis in np.argsort(x.shape)[::-1] if x.shape[axis] % shards == 0 and x.shape[axis] > 1]
        if shards == 1 or not fits:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*((axes if axis == fits[0] else None) for axis in range(x.ndim))))

    return jax.tree.map(spec, arrays)


def state_sharding(state: Any, mesh: Mesh, rules: Any) -> Any:
    """Where a `TrainState` lies by `config.mesh.rules`: parameters and optimiser state by a rule each."""
    return state.replace(
        step=replicated(mesh),
        params=array_sharding(state.params, mesh, tuple(rules.parameters)),
        opt_state=array_sharding(state.opt_state, mesh, tuple(rules.optimizer)),
    )


def ambient_mesh() -> Mesh | None:
    """The mesh of `jax.set_mesh`, None where there is none."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch (numpy) as global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
