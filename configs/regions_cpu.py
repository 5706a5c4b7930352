"""Real medical regions on two CPU cores: a small model on any folder of the region schema, here `../shared/regions`."""

from configs import common


def get_config():
    config = common.get_config()
    config.workdir = "runs/regions_cpu"

    config.data.corpus = "corpora/regions"
    config.data.build = ("--source=folder", "--input=../shared/regions")
    config.data.temperature = 0.5

    config.model.image.update(size=160, patch=20, width=128, depth=4, heads=4)
    config.model.text.update(context=32, vocab=2048, width=64, depth=2, heads=2)
    config.model.embed = 96
    config.model.unroll = 4
    config.model.prompt.context = 0.75

    config.input.batch_size = 32
    config.input.regions = 6
    config.input.mask_size = 64
    config.input.crop_scale = (0.5, 1.0)
    config.input.label_variants = 8
    config.input.label_context = 12
    config.input.cache_images = 2000

    config.optim.learning_rate = 1.2e-3
    config.optim.weight_decay = 0.1

    config.train.steps = 2000
    config.train.log_every = 50
    config.train.checkpoint_every = 500
    config.eval.split = "val"  # what settings are chosen on; `python -m medp_clip_jax.evaluate` reads test, once
    return config
