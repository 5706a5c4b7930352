"""MedP-CLIP ViT-S/16: pretraining on a single accelerator."""

from configs import common


def get_config():
    config = common.get_config()
    config.workdir = "runs/vits"
    config.data.corpus = "corpora/pretraining"
    config.data.temperature = 0.5

    config.model = common.variant("S/16")
    config.model.text.vocab = 16384
    config.model.dtype = "bfloat16"
    config.model.prompt.hidden = 256

    config.input.batch_size = 1024
    config.input.regions = 16
    config.input.mask_size = 64
    config.input.label_context = 24
    config.input.threads = 8

    config.optim.learning_rate = 1e-3
    config.optim.warmup = 0.02
    config.optim.weight_decay = 0.1

    config.train.steps = 100_000
    config.train.checkpoint_every = 1000
    config.train.eval_every = 5000
    return config
