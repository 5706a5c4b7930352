"""Our side of `benchmarks.input_throughput`: the training input as `medp_clip_jax.train` reads it.

Arguments are one JSON object; then each line on stdin asks for a round, and each line on stdout answers with its
seconds and CPU seconds.
"""

import json
import sys
import time
import types
from importlib.metadata import version

from absl import flags

from benchmarks.input_clock import cpu_seconds
from configs import common
from medp_clip_jax.corpus import open_corpus
from medp_clip_jax.input import iterate, train_dataset
from medp_clip_jax.tokenizer import load_tokenizer


def main() -> None:
    case = json.loads(sys.argv[1])
    flags.FLAGS.mark_as_parsed()  # grain's worker processes read flags
    config = common.get_config()
    config.seed, config.train.steps = case["seed"], case["examples"] // case["batch"]
    config.model.image.size, config.model.text.context = case["size"], case["context"]
    config.input.update(batch_size=case["batch"], regions=case["regions"], points=case["points"])
    config.input.update(mask_size=case["mask_size"], threads=case["threads"], workers=case["workers"])
    corpus, tokenizer = open_corpus(case["corpus"]), load_tokenizer(f"{case['folder']}/tokenizer.json")
    batches = iterate(train_dataset(corpus, config, tokenizer, types.SimpleNamespace(ids=corpus.labels)), config)
    next(batches)
    about = ", ".join(f"{name} {version(name)}" for name in ("grain", "Pillow", "numpy", "tokenizers"))
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        # What was prepared while this side had to wait is not counted.
        for _ in range(2 * (case["threads"] + case["workers"])):
            next(batches)
        began, cpu = time.perf_counter(), cpu_seconds()
        regions = 0
        for _ in range(case["batches"]):
            regions += int((next(batches)["label"] >= 0).sum())
        answer = {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu, "regions": regions}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
