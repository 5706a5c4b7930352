"""The smoke run with a sentence encoder as frozen text tower: `--config=configs/smoke_text.py:imports/minilm`."""

from configs import common, smoke


def get_config(init: str = "imports/minilm"):
    config = smoke.get_config()
    config.workdir = "runs/smoke_text"
    common.use_sentence_encoder(config, init)
    return config
