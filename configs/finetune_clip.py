"""Makes any CLIP promptable, and keeps what it could do: `--config=configs/finetune_clip.py:imports/clip`.

The folder is one that `python -m medp_clip_jax.convert` wrote; the model is the one that it describes.
"""

import pathlib

from configs import common


def get_config(init: str = "imports/clip"):
    config = common.get_config()
    config.workdir = "runs/finetune_clip"
    config.data.corpus = "corpora/pretraining"
    config.data.temperature = 0.5

    described = pathlib.Path(init) / "config.json"
    if described.exists():
        from medp_clip_jax.config import load_config

        config.model = load_config(described).model
    else:  # so that the file can be read, and the folder named later
        config.model = common.variant("B/16")
        config.model.text.vocab = 49408
    config.init = init
    config.model.dtype = "bfloat16"
    config.model.remat = "dots"

    config.input.batch_size = 1024
    config.input.regions = 16
    config.input.mask_size = 64
    config.input.threads = 16

    if config.model.image.pool == "map":  # SigLIP
        config.loss.image_text_kind = "sigmoid"
    config.loss.distill = 1.0

    # What is new learns at the full rate, the towers at a twentieth.
    config.optim.learning_rate = 2e-4
    config.optim.module_rates = {"visual": 0.05, "text": 0.05}
    config.optim.weight_decay = 0.1

    config.mesh.update(data=1, fsdp=-1)

    config.train.steps = 10_000
    config.train.checkpoint_every = 500
    config.train.eval_every = 1000
    return config
