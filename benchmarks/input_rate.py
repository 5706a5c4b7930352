"""Training examples per second that one CPU core prepares: what `launch.compile_check --images_per_core` asks for.

python -m benchmarks.input_rate --config=configs/vitl.py --config.data.corpus=corpora/regions

CPU time is counted, not time on the wall, so that other work on the machine matters little.
"""

import tempfile
import time

from absl import flags

from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.input import train_dataset
from medp_clip_jax.preparation import prepare
from medp_clip_jax.train import CONFIG

BATCHES = flags.DEFINE_integer("batches", 16, "Batches to measure, after one that warms up.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", 64, "Examples per batch.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Prepares batches in this thread alone and prints their rate."""
    if len(argv) > 1 or CONFIG.value is None:
        raise InputError("expected --config=configs/vitl.py, say, and overrides of it")
    config = CONFIG.value
    config.input.batch_size = BATCH.value
    with tempfile.TemporaryDirectory() as workdir:
        config.workdir = workdir
        run = prepare(config)
        batches = train_dataset(run.corpus, config, run.tokenizer, run.labels)
        regions = (batches[0]["label"] >= 0).sum()
        began = time.process_time()
        for step in range(1, BATCHES.value + 1):
            regions += (batches[step]["label"] >= 0).sum()
        seconds = time.process_time() - began
    examples = BATCHES.value * BATCH.value
    size, slots = config.model.image.size, config.input.regions
    print(
        f"{examples / seconds:.1f} examples/s per core: {size} px, {slots} region slots, of which "
        f"{regions / (examples + BATCH.value):.1f} filled; {examples} examples of {config.data.corpus}"
    )


if __name__ == "__main__":
    run_cli(main)
