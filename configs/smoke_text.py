"""The smoke run with a sentence encoder as frozen text tower: `--config=configs/smoke_text.py:imports/minilm`.

The folder is one that `python -m medp_clip_jax.convert` wrote of a BERT-family encoder. Its sentences lie where their
meaning puts them, so the image tower learns to meet them, and labels that training never saw have a place as well.
"""

import pathlib

from configs import smoke


def get_config(init: str = "imports/minilm"):
    config = smoke.get_config()
    config.workdir = "runs/smoke_text"
    config.init = init

    described = pathlib.Path(init) / "config.json"
    if described.exists():
        from medp_clip_jax.config import load_config

        config.model.text = load_config(described).model.text
    else:  # MiniLM, so that the file can be read, and the folder named later
        config.model.text.update(tower="bert", vocab=30522, width=384, depth=6, heads=12, positions=512)
        config.model.text.update(pool="mean", projection="none")
    config.model.text.context = 32
    config.model.text.positions = config.model.text.positions or 512
    config.model.embed = config.model.text.width
    config.optim.frozen = ("text",)
    return config
