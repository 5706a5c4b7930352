"""A configuration file whose train step compiles in seconds, for `--config`."""

from configs import common


def get_config():
    config = common.get_config()
    config.workdir = "unused"
    config.model.image.update(size=32, patch=16, width=32, depth=2, heads=2)
    config.model.text.update(context=8, vocab=300, width=32, depth=2, heads=2)
    config.model.embed = 16
    config.model.prompt.update(hidden=16, glimpse=8)
    config.input.update(batch_size=16, regions=2, points=2, mask_size=8, label_variants=2, label_context=6)
    config.mesh.update(data=2, fsdp=-1)
    return config
