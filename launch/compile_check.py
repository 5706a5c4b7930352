"""Compiles a configuration's train step for chips that are not there, and says what it needs and how fast it can be.

python -m launch.compile_check --config=configs/vitl.py --topology=v5e:16x16 --slices=1
python -m launch.compile_check --config=configs/smoke.py --cpu_devices=8
"""

import math
import re
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh

from launch import hlo, tables
from launch.abstract_step import compile_step, state_shapes
from launch.bounds import Load, forecast
from launch.chips import GIB, Chip, cpu_devices, tpu_topology
from launch.hlo_traffic import hbm_bytes
from launch.suggest import smallest_change
from launch.tables import Memory
from medp_clip_jax import sharding
from medp_clip_jax.config import validate
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.flops import StepFlops, step_flops
from medp_clip_jax.train import CONFIG

TOPOLOGY = flags.DEFINE_string("topology", None, "TPU topology to compile for, such as v5e:16x16.")
SLICES = flags.DEFINE_integer("slices", 1, "Slices, joined by the data center network.", lower_bound=1)
CPU_DEVICES = flags.DEFINE_integer("cpu_devices", None, "Compile for this many fake CPU devices.", lower_bound=1)
LABELS = flags.DEFINE_integer("labels", 1000, "Labels in the bank, which otherwise the corpus decides.", lower_bound=1)
HBM = flags.DEFINE_float("hbm_gib", None, "Memory per device in GiB, instead of the chip's.", lower_bound=0.0)
UTILISATION = flags.DEFINE_float(
    "utilisation",
    0.5,
    "Share of the bf16 peak at which chips compute, recomputation included; MaxText publishes MFUs of 0.45 to 0.65 for "
    "language models on TPU.",
    lower_bound=0.01,
    upper_bound=1.0,
)
IMAGES_PER_CORE = flags.DEFINE_float(
    "images_per_core",
    100.0,
    "Training examples per second that one CPU core prepares. benchmarks/input_rate.py measures it: 151 on 224 px "
    "examples with 4.6 regions from small originals; larger originals and more regions cost more.",
    lower_bound=0.01,
)
LARGEST = flags.DEFINE_integer("largest", 0, "List so many of the largest collectives.", lower_bound=0)
HLO = flags.DEFINE_string("hlo", None, "Write the compiled program's text to this file.")
SUGGEST = flags.DEFINE_bool("suggest", True, "Where it does not fit, compile smaller steps until one does.")
# How the compilers of TPUs say that a step does not fit; temporaries alone, where they name no total.
_USED = re.compile(
    r"(?:Used |temporaries \()([\d.]+)([KMGT]?)(?:B? of |B?\) exceeds available HBM \()([\d.]+)([KMGT]?)", re.IGNORECASE
)
_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def main(argv: list[str]) -> None:
    """Exit code 0: it fits; 1: it does not; 2: something that was given cannot be used."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; overrides look like --config.model.remat=full")
    if CONFIG.value is None:
        raise InputError("no configuration; pass --config=configs/vitl.py or another file of configs/")
    if (TOPOLOGY.value is None) == (CPU_DEVICES.value is None):
        raise InputError("expected either --topology=v5e:16x16, say, or --cpu_devices=8")
    config = CONFIG.value
    validate(config)
    chip, devices = find_devices()
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check_batch(config, mesh)
    limit = HBM.value * GIB if HBM.value is not None else (chip.hbm if chip else None)

    where = tables.place(TOPOLOGY.value, SLICES.value, mesh.size, chip)
    parameters = sum(x.size for x in jax.tree.leaves(state_shapes(config, mesh)[2].params))
    flops = step_flops(config, LABELS.value, parameters)
    tables.show("Step", tables.setup_rows(config, mesh, where, LABELS.value, parameters))
    tables.show("FLOPs", tables.flop_rows(flops, config.input.batch_size))
    text, memory = compile_or_measure(config, mesh, limit)
    tables.show("Memory per device", tables.memory_rows(memory))
    if text:
        show_traffic(config, mesh, chip, text, flops)
    if not memory.fits:
        sys.exit(refuse(config, mesh, memory))
    print("\n" + (f"fits: {_of(memory)}" if limit else "compiles; --hbm_gib sets a limit to compare the memory with"))


def find_devices() -> tuple[Chip | None, list[Any]]:
    """The chip, None for the CPU, and the devices that the flags name."""
    jax.config.update("jax_platforms", "cpu")
    if TOPOLOGY.value:
        return tpu_topology(TOPOLOGY.value, SLICES.value)
    if CPU_DEVICES.value % SLICES.value:
        raise InputError(f"--slices={SLICES.value}: {CPU_DEVICES.value} devices do not divide among them")
    return None, cpu_devices(CPU_DEVICES.value)


def compile_or_measure(config: Any, mesh: Mesh, limit: float | None) -> tuple[str, Memory]:
    """The compiled program's text and memory; no text and what the compiler says where it is too large for the chip."""
    try:
        compiled, text = compile_step(config, mesh, LABELS.value)
    except jax.errors.JaxRuntimeError as error:
        used = _USED.search(str(error))
        if used is None:
            raise InputError(f"the step does not compile: {str(error).strip().splitlines()[0]}") from None
        return "", Memory(float(used[1]) * _UNIT[used[2]], float(used[3]) * _UNIT[used[4]])
    sizes = compiled.memory_analysis()
    arguments, temporaries = sizes.argument_size_in_bytes, sizes.temp_size_in_bytes
    outputs, program = sizes.output_size_in_bytes - sizes.alias_size_in_bytes, sizes.generated_code_size_in_bytes
    total = arguments + temporaries + outputs + program
    return text, Memory(total, limit, arguments, temporaries, outputs, program)


def show_traffic(config: Any, mesh: Mesh, chip: Chip | None, text: str, flops: StepFlops) -> None:
    """Prints the collectives and, for a known chip, what they and everything else take."""
    if HLO.value:
        Path(HLO.value).write_text(text)
    program = hlo.parse(text)
    # A TPU program for several slices is one slice's part; fake slices are equal shares of the data axis.
    count = 1 if chip else SLICES.value
    found = hlo.collectives(program, [device * count // mesh.size for device in range(mesh.size)])
    tables.show("Collectives, received per device and step", tables.collective_rows(found))
    if LARGEST.value:
        tables.show("Largest collectives", tables.largest_rows(found, LARGEST.value))
    if chip is None:
        return
    load = Load(
        pairs=config.input.batch_size,
        chips=mesh.size,
        model_flops=flops.model,
        hardware_flops=flops.hardware,
        hbm=hbm_bytes(program),
        ici=sum(each.total for each in found if not each.dcn),
        dcn=sum(each.total for each in found if each.dcn),
    )
    seen = forecast(load, chip, UTILISATION.value, IMAGES_PER_CORE.value)
    tables.show("Forecast, if everything overlaps", tables.forecast_rows(seen, UTILISATION.value))


def refuse(config: Any, mesh: Mesh, memory: Memory) -> int:
    """Says in a sentence that the step does not fit and what would; gives the exit code."""
    advice = "pass --suggest to look for the smallest change that does"
    if SUGGEST.value:
        held = _state_bytes(config, mesh)
        excess = (memory.total - held) / max(memory.limit - held, 1)

        def needs(changed: Any) -> float:
            return compile_or_measure(changed, mesh, memory.limit)[1].total

        advice = smallest_change(config, mesh.size, excess, needs, memory.limit)
    print(f"\ndoes not fit: {_of(memory)}; {advice}")
    return 1


def _of(memory: Memory) -> str:
    return f"{memory.total / GIB:.2f} GiB of {memory.limit / GIB:.2f} GiB per device"


def _state_bytes(config: Any, mesh: Mesh) -> float:
    leaves = jax.tree.leaves(state_shapes(config, mesh)[2])
    return sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in leaves)


if __name__ == "__main__":
    run_cli(main)
