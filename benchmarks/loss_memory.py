"""Memory of each sharded loss with its gradient against the global batch: prints the table of docs/scaling.md.

python -m benchmarks.loss_memory

Compiles for 8 fake CPU devices and reads the compiler's memory analysis; nothing is executed, so any machine will do.
"""

import os
import sys

DEVICES = 8
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402 - reads both variables
import jax.numpy as jnp  # noqa: E402
from absl import flags  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

from medp_clip_jax import losses, sharded_losses  # noqa: E402
from medp_clip_jax.errors import run_cli  # noqa: E402

BATCHES = flags.DEFINE_multi_integer("batch", [1024 * 2**i for i in range(7)], "global batch; repeatable")
CHUNK = flags.DEFINE_integer("chunk", sharded_losses.CHUNK, "local rows of a matrix of logits at a time, 0 = all")
DIM, REGIONS, LABELS, TAU = 768, 16, 1000, 0.5  # ViT-L/14, regions per image, label bank, strength of the prior


def arguments(loss, batch, mesh):
    """Shapes, types and layouts of the arguments of `loss`, in order; tau is left out."""
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec(mesh.axis_names), PartitionSpec()))

    def rows(count, *shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((count, *shape), dtype, sharding=split)

    def same(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    pairs = {"images": rows(batch, DIM), "texts": rows(batch, DIM), "text_id": rows(batch, dtype=jnp.int32)}
    bank = {
        "regions": rows(batch * REGIONS, DIM),
        "labels": same(LABELS, DIM),
        "target": rows(batch * REGIONS, dtype=jnp.int32),
        "scale": same(),
        "excluded": same(LABELS, LABELS, dtype=jnp.bool_),
    }
    return {
        "image_text_softmax": pairs | {"scale": same()},
        "image_text_sigmoid": pairs | {"scale": same(), "bias": same()},
        "region_to_text": bank | {"log_prior": same(LABELS)},
        "text_to_region": bank,
    }[loss]


def temporaries(module, loss, batch, mesh, **options):
    """Bytes per device that value and gradient need besides arguments and results."""
    given = arguments(loss, batch, mesh)
    learned = [name for name in given if name not in ("text_id", "target", "excluded", "log_prior")]
    if loss == "region_to_text":
        options["tau"] = TAU

    def value(floats, rest):
        result = getattr(module, loss)(**floats, **rest, **options)
        return result[0] if loss == "region_to_text" else result

    floats = {name: given.pop(name) for name in learned}
    layout = {name: x.sharding for name, x in floats.items()}
    step = jax.jit(jax.value_and_grad(value), out_shardings=(None, layout))
    return step.lower(floats, given).compile().memory_analysis().temp_size_in_bytes


def main(_):
    mesh = jax.make_mesh((DEVICES, 1), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))
    print(f"MiB per device on {DEVICES} devices; dim {DIM}, {REGIONS} regions per image, {LABELS} labels, ", end="")
    print(f"chunks of {CHUNK.value} rows. `jax` {jax.__version__}.\n")
    print("| loss | global batch | local batch | sharded | KiB per local image | naive | naive / sharded |")
    print("|---|---|---|---|---|---|---|")
    with jax.set_mesh(mesh):
        for loss in ("image_text_softmax", "image_text_sigmoid", "region_to_text", "text_to_region"):
            for batch in BATCHES.value:
                sharded = temporaries(sharded_losses, loss, batch, mesh, chunk=CHUNK.value)
                naive = temporaries(losses, loss, batch, mesh)
                local = batch // DEVICES
                cells = f"{sharded / 2**20:,.1f} | {sharded / local / 2**10:,.1f} | {naive / 2**20:,.1f}"
                print(f"| `{loss}` | {batch:,} | {local:,} | {cells} | {naive / sharded:.1f} |")
                sys.stdout.flush()  # each row takes seconds


if __name__ == "__main__":
    run_cli(main)
