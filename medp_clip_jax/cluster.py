"""Which job this process belongs to, by the environment that launchers and schedulers set; nothing starts here."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from medp_clip_jax.errors import InputError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What jax.distributed.initialize takes; None is for it to find out. `local_devices` []: all that are visible."""

    coordinator: str | None = None
    count: int | None = None
    process: int | None = None
    local_devices: list[int] | None = None


def find_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The job of several processes that this one is part of, or None when it is alone.

    Looked for in this order: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID; a
    step of SLURM (`srun`) with several tasks; the workers of a TPU slice on GKE or of a Cloud TPU VM.

    Raises:
      InputError: some of the three variables are missing, or their numbers do not fit together.
    """
    given = {name: environment[name] for name in VARIABLES if environment.get(name)}
    if given:
        job = _from_variables(given)
        # JAX_LOCAL_DEVICE_IDS, which JAX reads by itself, divides the GPUs of one machine between its processes.
        return job and dataclasses.replace(job, local_devices=None if "JAX_LOCAL_DEVICE_IDS" in environment else [])
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _from_slurm(environment)
    if "tpu" in environment.get("JAX_PLATFORMS", "tpu") and _on_tpu(environment):
        return Cluster()
    return None


def _from_variables(given: Mapping[str, str]) -> Cluster | None:
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        raise InputError(
            f"environment: {', '.join(given)} set, but not {', '.join(missing)}; set all three, or none for one process"
        )
    address, count, process = (given[name] for name in VARIABLES)
    if not count.isdigit() or not process.isdigit() or int(process) >= int(count):
        raise InputError(
            f"environment: expected JAX_PROCESS_ID from 0 to JAX_NUM_PROCESSES - 1, got {process!r} and {count!r}"
        )
    if not address.rpartition(":")[2].isdigit():
        raise InputError(f"environment: expected JAX_COORDINATOR_ADDRESS as host:port, got {address!r}")
    return Cluster(address, int(count), int(process)) if int(count) > 1 else None


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    # JAX reads the address from SLURM by itself, but would give every task the one GPU of its number on the node. That
    # is wrong for one task per node, which has them all, and for tasks to which SLURM shows only their own GPU.
    tasks_here = int(environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0].split(",")[0])
    visible = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    one_each = tasks_here > 1 and len(visible) != 1
    return Cluster(
        count=int(environment["SLURM_STEP_NUM_TASKS"]),
        process=int(environment["SLURM_PROCID"]),
        local_devices=None if one_each else [],
    )


def _on_tpu(environment: Mapping[str, str]) -> bool:
    """Whether JAX has TPU workers to find: by the variables that GKE sets, else by the metadata server of a TPU VM."""
    devices = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    if not devices or importlib.util.find_spec("libtpu") is None:
        return False
    return "TPU_WORKER_HOSTNAMES" in environment or "TPU_SKIP_MDS_QUERY" not in environment
