"""Writes down how the step is partitioned: `python -m tests.sharding_goldens` renews the files in tests/goldens/.

Run it after a change that is meant to alter the layout, and read the difference before committing it.
"""

import collections
import json
import pathlib
import sys

import jax
from jax.sharding import AbstractMesh, AxisType

from configs import vitl

GOLDENS = pathlib.Path(__file__).parent / "goldens"
MESHES = ((4, 2), (8, 1), (2, 4))


def parameter_layout(config, devices: int) -> dict[str, str]:
    """Path of each parameter -> its shape and what each axis is split over, on a mesh of `devices`."""
    from launch.abstract_step import state_shapes

    size = (config.mesh.data, devices // config.mesh.data)
    mesh = AbstractMesh(size, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    params = state_shapes(config, mesh)[2].params
    rows = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec = tuple(leaf.sharding.spec) + (None,) * (leaf.ndim - len(leaf.sharding.spec))
        split = [axis if isinstance(axis, str) or axis is None else "+".join(axis) for axis in spec]
        sides = [f"{side}/{axis}" if axis else str(side) for side, axis in zip(leaf.shape, split, strict=True)]
        rows["/".join(key.key for key in path)] = " x ".join(sides) or "scalar"
    return rows


def tiny_config(data: int, fsdp: int):
    """Every loss and a scan, without what compiles long and moves nothing between devices, such as the glimpse."""
    from tests.tiny_step import get_config

    config = get_config()
    config.model.prompt.glimpse = 0
    config.mesh.update(data=data, fsdp=fsdp)
    return config


def step_collectives(data: int, fsdp: int) -> dict[str, str]:
    """Kind of each collective of the tiny step and how many devices it joins -> executions and bytes per device."""
    from launch import hlo
    from launch.abstract_step import compile_step
    from medp_clip_jax.sharding import make_mesh

    config = tiny_config(data, fsdp)
    _, text = compile_step(config, make_mesh(config.mesh), labels=12)
    counts, moved = collections.Counter(), collections.Counter()
    for each in hlo.collectives(hlo.parse(text), [0] * (data * fsdp)):
        counts[f"{each.kind} of {each.group}"] += each.count
        moved[f"{each.kind} of {each.group}"] += each.total
    return {name: f"{counts[name]} times, {moved[name] / 1024:.1f} KiB" for name in sorted(counts)}


def main() -> None:
    """Renews both files, or with `--print=DATA,FSDP` prints what one mesh gives now."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    wanted = [argument.removeprefix("--print=") for argument in sys.argv if argument.startswith("--print=")]
    if wanted:
        print(json.dumps(step_collectives(*map(int, wanted[0].split(",")))))
        return
    found = {f"{data},{fsdp}": step_collectives(data, fsdp) for data, fsdp in MESHES}
    (GOLDENS / "step_collectives.json").write_text(json.dumps(found, indent=1) + "\n")
    layout = json.dumps(parameter_layout(vitl.get_config(), 256), indent=1)
    (GOLDENS / "vitl_parameters.json").write_text(layout + "\n")


if __name__ == "__main__":
    main()
