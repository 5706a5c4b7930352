"""The newcomer's first run: generated phantoms, a small model, minutes on two CPU cores."""

from configs import common


def get_config():
    config = common.get_config()
    config.workdir = "runs/smoke"

    config.data.corpus = "corpora/phantoms"
    config.data.build = ("--source=phantoms", "--train=4000", "--val=200", "--test=400", "--size=64")

    config.model.image.update(size=64, patch=8, width=96, depth=3, heads=3)
    config.model.text.update(context=32, vocab=1024, width=64, depth=2, heads=2)
    config.model.embed = 64
    config.model.prompt.context = 0.75  # what tells left from right lies around a region

    config.input.batch_size = 24
    config.input.regions = 8
    config.input.mask_size = 64
    config.input.crop_scale = (0.8, 1.0)
    config.input.label_variants = 8
    config.input.label_context = 12
    config.input.cache_images = 4000

    config.optim.learning_rate = 2e-3
    config.optim.weight_decay = 0.02

    # What only context tells apart: sides by heart and liver, lesions by their host.
    lesions = ("kidney_lesion", "liver_lesion", "lung_lesion")
    config.eval.twins = (("kidney_left", "kidney_right"), ("lung_left", "lung_right"), lesions)

    config.train.steps = 1600
    config.train.log_every = 25
    config.train.checkpoint_every = 400
    return config
