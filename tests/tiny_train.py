"""A configuration small enough to train whole runs in tests. It imports nothing that defines command-line flags."""

import pathlib

from configs import common

STEPS = 24


def tiny_config(corpus: pathlib.Path, workdir: pathlib.Path):
    config = common.get_config()
    config.workdir = str(workdir)
    config.data.corpus = str(corpus)
    config.data.build = ("--source=phantoms", "--train=48", "--val=8", "--test=8", "--size=48")
    config.model.image.update(size=48, patch=16, width=32, depth=2, heads=2)
    config.model.text.update(context=16, vocab=300, width=32, depth=1, heads=2)
    config.model.embed = 16
    config.model.prompt.hidden = 16
    config.input.update(batch_size=8, regions=3, label_context=8, label_variants=2, mask_size=16)
    config.eval.update(batch_size=8, regions=4, kinds=("mask", "none"), gallery=2)
    config.train.update(steps=STEPS, log_every=1, checkpoint_every=5, eval_every=10, best_metric="region/mask/micro")
    return config
