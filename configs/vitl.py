"""MedP-CLIP ViT-L/14: pretraining on a large region corpus, on TPU pods or GPU clusters."""

from configs import common


def get_config():
    config = common.get_config()
    config.workdir = "runs/vitl"
    config.data.corpus = "corpora/pretraining"  # made by `python -m data.build`; any storage path that TFDS reads
    config.data.temperature = 0.5

    config.model = common.variant("L/14")
    config.model.text.vocab = 49408
    config.model.dtype = "bfloat16"
    config.model.remat = "full"  # what "dots" keeps of 24 blocks exceeds the 16 GiB of a v5e
    config.model.prompt.hidden = 512

    config.input.batch_size = 32_768
    config.input.regions = 16
    config.input.mask_size = 64
    config.input.label_context = 24
    config.input.threads = 16

    config.optim.learning_rate = 5e-4
    config.optim.warmup = 0.02
    config.optim.weight_decay = 0.2

    config.mesh.update(data=1, fsdp=-1)

    config.train.steps = 40_000  # 1.3 billion images: 200 passes over 6.4 million
    config.train.log_every = 20
    config.train.checkpoint_every = 1000
    config.train.eval_every = 5000
    return config
