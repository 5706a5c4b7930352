"""Makes a release of a training run: one folder of plain files that others can load, run and pass on.

    python -m medp_clip_jax.export RUN_DIR --output=releases/mine

`medp.load("releases/mine")` reads it, as do `predict` and `evaluate` in place of a run. The folder holds the weights as
safetensors, the tokenizer, the preprocessing, a model card to be checked and completed, programs that run with nothing
but jax (`--noprograms` leaves them out), and checksums. It appears whole or not at all.
"""

import pathlib
import shutil
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from absl import flags

from medp_clip_jax import api, model_card, programs, release
from medp_clip_jax.config import load_config
from medp_clip_jax.errors import InputError, run_cli

FLAGS = flags.FLAGS


def export_run(
    run: pathlib.Path,
    output: pathlib.Path,
    *,
    step: int | None = None,
    dtype: str = "float32",
    shard: int = release.SHARD,
    with_programs: bool = True,
) -> None:
    """Writes the release of a run's checkpoint (the newest, or of one `step`) into the new folder `output`.

    `dtype` is float32 or bfloat16; weights of more than `shard` bytes become several files.

    Raises:
      InputError: the run cannot be read, its parameters are not finite, or `output` exists or cannot be written.
    """
    if output.exists():  # before the run is read
        raise InputError(f"{output}: exists already; name a new folder")
    model, params, processor = api.load(run, step)
    config = load_config(run / "config.json")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))

    def fill(folder: pathlib.Path) -> None:
        release.write_release(folder, config, params, processor, dtype=dtype, shard=shard)
        for name in release.OPTIONAL:
            if (run / name).is_file():
                shutil.copyfile(run / name, folder / name)
        if with_programs:
            programs.write_programs(folder, model, _as_stored(params, dtype))
        release.write_sums(folder)
        card = model_card.model_card(output.name, run, config, count, dtype)
        (folder / release.CARD).write_text(card, "utf-8")

    release.write_whole(output, fill)


def _as_stored(params, dtype: str):
    """Shapes of the parameters with the dtypes in which `release.write_release` stores them."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype if x.ndim else "float32")), params)


def main(argv: Sequence[str]) -> None:
    """Reads the flags, writes the folder, says where."""
    if len(argv) != 2:
        raise InputError(f"expected one run directory, got {len(argv) - 1}: {' '.join(argv[1:])} (see --help)")
    if not FLAGS.output:
        raise InputError("expected --output=DIR, a folder that does not exist yet")
    output = pathlib.Path(FLAGS.output)
    export_run(
        pathlib.Path(argv[1]),
        output,
        step=FLAGS.step,
        dtype=FLAGS.dtype,
        shard=int(FLAGS.shard_gb * 10**9),
        with_programs=FLAGS.programs,
    )
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {size / 1e6:.1f} MB; complete its {release.CARD} before you pass it on")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Folder of the release; must not exist.")
    flags.DEFINE_integer("step", None, "Checkpoint of the run; the newest if not given.")
    flags.DEFINE_enum("dtype", "float32", ("float32", "bfloat16"), "Of the stored weights.")
    flags.DEFINE_float("shard_gb", 5.0, "Largest size of a weight file in GB.", lower_bound=1e-6)
    flags.DEFINE_bool("programs", True, "Whether to add programs for jax.export.")
    run_cli(main)
