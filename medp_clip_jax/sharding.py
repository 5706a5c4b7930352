"""The device mesh, and how batches and parameters lie on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medp_clip_jax.errors import InputError


def make_mesh(config: Any) -> Mesh:
    """A mesh with axes `data` (replicas) and `fsdp` (parameters sharded); -1 takes all the devices that are left.

    Raises:
      InputError: the axes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    fsdp = config.fsdp if config.fsdp > 0 else devices // max(config.data, 1)
    data = config.data if config.data > 0 else devices // fsdp
    if data * fsdp != devices:
        raise InputError(
            f"config.mesh: data {config.data} x fsdp {config.fsdp} does not make {devices} devices; set one to -1"
        )
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over all devices along their first axis."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """Each array of a state is split over `fsdp` along its largest axis that divides evenly, else replicated."""
    shards = mesh.shape["fsdp"]

    def spec(x: Any) -> NamedSharding:
        axes = [axis for axis in np.argsort(x.shape)[::-1] if x.shape[axis] % shards == 0 and x.shape[axis] > 1]
        if shards == 1 or not axes:
            return replicated(mesh)
        return NamedSharding(
            mesh, PartitionSpec(*(("fsdp" if axis == axes[0] else None) for axis in range(len(x.shape))))
        )

    return jax.tree.map(spec, state)


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch (numpy) as global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
