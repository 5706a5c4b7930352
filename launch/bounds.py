"""What limits a step: the time that each resource of a chip needs on its own, as in a roofline."""

import dataclasses
import math

from launch.chips import Chip


@dataclasses.dataclass(frozen=True)
class Load:
    """What one training step asks for."""

    pairs: int  # images with their texts, global
    chips: int
    model_flops: float  # global
    hardware_flops: float  # global, recomputation included
    hbm: float  # bytes that a chip reads and writes; 0 = not known
    ici: float  # bytes that a chip receives inside its slice
    dcn: float  # bytes that a chip receives from other slices


@dataclasses.dataclass(frozen=True)
class Forecast:
    """How long a step takes if everything overlaps: as long as its slowest part."""

    seconds: dict[str, float]  # resource -> time that it needs
    load: Load
    chip: Chip
    images_per_core: float

    @property
    def bound(self) -> str:
        """The resource that takes longest."""
        return max(self.seconds, key=self.seconds.get)

    @property
    def step(self) -> float:
        """Seconds per step at the bound."""
        return self.seconds[self.bound]

    @property
    def pairs_per_second(self) -> float:
        """Global rate at the bound."""
        return self.load.pairs / self.step

    @property
    def mfu(self) -> float:
        """Model FLOPs per step over what the chips could do in that time."""
        return self.load.model_flops / (self.step * self.load.chips * self.chip.peak)

    @property
    def hosts(self) -> int:
        """Hosts of all slices."""
        return math.ceil(self.load.chips / self.chip.per_host)

    @property
    def images_per_host(self) -> float:
        """Images per second that each host has to prepare so that the chips never wait."""
        return self.load.pairs / self.hosts / max(v for name, v in self.seconds.items() if name != "input")

    @property
    def cores_per_host(self) -> float:
        """CPU cores that this takes at `images_per_core`."""
        return self.images_per_host / self.images_per_core


def forecast(load: Load, chip: Chip, utilisation: float, images_per_core: float) -> Forecast:
    """Times of one step on `chip`; `utilisation` in (0, 1] is the share of the bf16 peak that computing reaches.

    The interconnect is taken as a whole: all ports of a chip receive at once, as in a collective along every axis of
    the torus. `images_per_core` images per second and CPU core are what the input pipeline prepares.
    """
    hosts = math.ceil(load.chips / chip.per_host)
    seconds = {
        "compute": load.hardware_flops / (load.chips * chip.peak * utilisation),
        "HBM": load.hbm / chip.hbm_bandwidth,
        "ICI": load.ici / chip.ici,
        "DCN": load.dcn / chip.dcn,
        "input": load.pairs / hosts / (chip.cores * images_per_core),
    }
    return Forecast(seconds, load, chip, images_per_core)
