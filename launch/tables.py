"""The tables that `compile_check` prints."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from jax.sharding import Mesh

from launch.bounds import Forecast
from launch.chips import GIB, Chip
from launch.hlo import Collective
from medp_clip_jax.flops import StepFlops

Rows = Sequence[tuple[str, str]]
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device; of a step that the compiler refused, only the total and the limit that it names."""

    total: float
    limit: float | None
    arguments: float = 0.0
    temporaries: float = 0.0
    outputs: float = 0.0  # those that do not take the place of an argument
    program: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether the total stays within the limit, if there is one."""
        return self.limit is None or self.total <= self.limit


def show(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Prints a title and rows in two columns."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def setup_rows(config: Any, mesh: Mesh, where: str, labels: int, parameters: int) -> Rows:
    """What is compiled, and for what."""
    model, data = config.model, config.input
    image = f"{model.image.size} px, patch {model.image.patch}, width {model.image.width}, depth {model.image.depth}"
    return [
        ("devices", f"{where}: mesh {', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}"),
        ("model", f"{image}; {model.dtype}, remat {model.remat}, patch drop {model.image.patch_drop:g}"),
        ("parameters", f"{parameters / 1e6:,.1f} M"),
        ("batch", f"{data.batch_size:,} pairs x {data.regions} regions in {config.train.accumulate} microbatches"),
        ("labels", f"{labels:,}"),
    ]


def memory_rows(memory: Memory) -> Rows:
    """Bytes per device against the limit."""
    limit = "" if memory.limit is None else f" of {memory.limit / GIB:.2f} GiB"
    total = ("total", f"{memory.total / GIB:.2f} GiB{limit}")
    if not memory.arguments:
        return [total]
    parts = ("arguments", "temporaries", "outputs", "program")
    return [*((name, f"{getattr(memory, name) / GIB:.2f} GiB") for name in parts), total]


def flop_rows(flops: StepFlops, batch: int) -> Rows:
    """Analytic FLOPs per step, and per pair the parts of the forward pass."""
    parts = ", ".join(f"{name} {scaled(value / batch)}" for name, value in flops.forward.items() if value)
    return [
        ("model", f"{scaled(flops.model)}FLOP per step, {scaled(flops.model / batch)}FLOP per pair"),
        ("hardware", f"{scaled(flops.hardware)}FLOP per step, recomputation and optimiser included"),
        ("forward", f"FLOP per pair: {parts}"),
    ]


def scaled(value: float) -> str:
    """Four digits and a prefix, such as `175.3 G`."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:,.{max(0, 3 - len(str(int(value / factor))))}f} {prefix}"
    return f"{value / 1e3:.1f} k"


def collective_rows(found: Iterable[Collective]) -> Rows:
    """Collectives by kind and link: executions and received bytes per device and step."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    moved: dict[tuple[str, str], float] = defaultdict(float)
    for each in found:
        key = (each.kind, "DCN" if each.dcn else "ICI")
        counts[key] += each.count
        moved[key] += each.total
    rows = [
        (f"{kind}, {link}", f"{counts[kind, link]:,} x, {moved[kind, link] / MIB:,.1f} MiB")
        for kind, link in sorted(counts)
    ]
    for link in ("ICI", "DCN"):
        rows.append((f"all, {link}", f"{sum(v for (_, where), v in moved.items() if where == link) / MIB:,.1f} MiB"))
    return rows


def largest_rows(found: Iterable[Collective], count: int) -> Rows:
    """The collectives that move most, with the jax operation each comes from."""
    largest = sorted(found, key=lambda each: -each.total)[:count]
    return [
        (f"{each.kind}, {'DCN' if each.dcn else 'ICI'}", f"{each.count} x {each.moved / MIB:,.2f} MiB, {each.source}")
        for each in largest
    ]


def forecast_rows(seen: Forecast, utilisation: float) -> Rows:
    """Time per resource, the bound and the rates at it."""
    notes = {
        "compute": f" at {utilisation:.0%} of {seen.chip.peak / 1e12:,.0f} TFLOP/s",
        "HBM": f" for {seen.load.hbm / GIB:,.1f} GiB",
        "ICI": f" at {seen.chip.ici / 1e9:,.0f} GB/s",
        "DCN": f" at {seen.chip.dcn / 1e9:,.2f} GB/s",
        "input": f" with {seen.chip.cores} cores per host at {seen.images_per_core:g} images/s each",
    }
    times = [(name, f"{value:.3f} s{notes[name]}") for name, value in seen.seconds.items()]
    return [
        *times,
        ("bound", seen.bound),
        ("step", f"{seen.step:.3f} s, {seen.pairs_per_second:,.0f} pairs/s, MFU {seen.mfu:.1%}"),
        ("hosts", f"{seen.hosts} with {seen.chip.per_host} chips each"),
        ("input needed", f"{seen.images_per_host:,.0f} images/s per host: {seen.cores_per_host:.1f} CPU cores"),
    ]


def place(topology: str | None, slices: int, devices: int, chip: Chip | None) -> str:
    """The devices in words."""
    if chip is None:
        return f"{devices} fake CPU devices"
    return f"{slices} x {topology}, {devices} chips"
