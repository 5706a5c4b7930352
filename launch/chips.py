"""What the chips can do, and their devices without having any: TPU topologies by name."""

import dataclasses
import importlib.util
import os
from typing import Any

import jax

from medp_clip_jax.errors import InputError
from medp_clip_jax.flops import peak_flops

GIB, GB = 2**30, 1e9


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip; bandwidths in bytes per second and one direction."""

    device_kind: str
    hbm: float  # bytes
    hbm_bandwidth: float
    ici: float  # all ports of a chip together
    dcn: float  # a chip's share of its host's network
    per_host: int  # chips, in slices of several hosts
    cores: int  # virtual CPUs per host

    @property
    def peak(self) -> float:
        """Dense bf16 FLOP/s."""
        return peak_flops(self.device_kind)


# docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}: HBM and its bandwidth, half of the bidirectional interchip bandwidth,
# data center network (per pod, over its chips), and hosts: ct4p, ct5lp-hightpu-4t, ct5p-hightpu-4t, ct6e-standard-4t.
# The network of v4 is not on its page but in jax-ml.github.io/scaling-book/tpus.
CHIPS = {
    "v4": Chip("TPU v4", 32 * GIB, 1228 * GB, 300 * GB, 6.25 * GB, 4, 240),
    "v5e": Chip("TPU v5 lite", 16 * GIB, 819 * GB, 200 * GB, 3.125 * GB, 4, 112),
    "v5p": Chip("TPU v5", 95 * GIB, 2765 * GB, 600 * GB, 6.25 * GB, 4, 208),
    "v6e": Chip("TPU v6 lite", 32 * GIB, 1600 * GB, 400 * GB, 12.5 * GB, 4, 180),
}
EXAMPLES = "v4:4x4x4, v5e:16x16, v5p:8x8x4, v6e:16x16"
# libtpu asks for these when it loads; any valid value does for a compilation without chips.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no chip that two processes could fight over
}


def tpu_topology(name: str, slices: int) -> tuple[Chip, list[Any]]:
    """The chip and the devices of `slices` TPU topologies such as `v5e:16x16`, on a machine without any.

    Raises:
      InputError: libtpu is not installed, or there is no such chip or topology.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not shape:
        raise InputError(f"--topology={name}: expected a chip of {', '.join(CHIPS)} and its shape, such as {EXAMPLES}")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("--topology needs the TPU compiler: pip install libtpu (no TPU is needed)")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies  # here, because it reads the environment

    options: dict[str, Any] = {"chip_config_name": "megacore"} if kind == "v4" else {}
    if slices > 1:
        options["num_slices"] = slices
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # libtpu raises what it likes
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--topology={name}, --slices={slices}: no such topology ({reason}); try one such as {EXAMPLES}"
        ) from None
    return CHIPS[kind], list(devices)


def cpu_devices(count: int) -> list[Any]:
    """`count` fake devices of this machine's CPU, which compile but hold nothing apart.

    Raises:
      InputError: jax already runs with another number of devices.
    """
    jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) != count:
        raise InputError(
            f"--cpu_devices={count}: jax has {len(devices)} devices; unset XLA_FLAGS=--xla_force_host_platform_..."
        )
    return devices
