"""MedP-CLIP ViT-B/16: pretraining on one node of eight GPUs or a small TPU slice."""

from configs import common


def get_config():
    config = common.get_config()
    config.workdir = "runs/vitb"
    config.data.corpus = "corpora/pretraining"
    config.data.temperature = 0.5

    config.model = common.variant("B/16")
    config.model.text.vocab = 49408
    config.model.dtype = "bfloat16"
    config.model.remat = "dots"
    config.model.prompt.hidden = 384

    config.input.batch_size = 4096
    config.input.regions = 16
    config.input.mask_size = 64
    config.input.label_context = 24
    config.input.threads = 16

    config.optim.learning_rate = 5e-4
    config.optim.warmup = 0.02
    config.optim.weight_decay = 0.2

    config.mesh.update(data=1, fsdp=-1)

    config.train.steps = 100_000
    config.train.checkpoint_every = 1000
    config.train.eval_every = 5000
    return config
