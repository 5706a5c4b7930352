"""A sentence encoder as frozen text tower.

Its sentences lie where their meaning puts them, so that an image tower learns to meet them, and labels that training
never saw have a place as well.
"""

import pathlib

import ml_collections


def use(config: ml_collections.ConfigDict, init: str) -> None:
    """Starts from `init`, a folder that `python -m medp_clip_jax.convert` wrote of a BERT-family encoder, and keeps it.

    Where there is no such folder yet the fields are those of MiniLM, so that the configuration can be read.
    """
    described = pathlib.Path(init) / "config.json"
    if described.exists():
        from medp_clip_jax.config import load_config

        config.model.text = load_config(described).model.text
    else:
        config.model.text.update(tower="bert", vocab=30522, width=384, depth=6, heads=12, positions=512)
        config.model.text.update(pool="mean", projection="none")
    config.init = init
    config.model.text.context = 32
    config.model.text.positions = config.model.text.positions or 512
    config.model.embed = config.model.text.width
    config.optim.frozen = ("text",)
