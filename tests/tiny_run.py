"""A run directory as training leaves it, with a model that is tiny and untrained."""

import json
import pathlib

import jax
import jax.numpy as jnp

import medp_clip_jax as medp
from configs import common
from medp_clip_jax import checkpoint
from medp_clip_jax.config import save_config
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.step import TrainState
from medp_clip_jax.tokenizer import train_tokenizer

LABELS = ("kidney_left", "kidney_right", "liver", "spleen")


def config():
    """A model of a few thousand parameters on a 32 px canvas."""
    made = common.get_config()
    made.model.image.update(size=32, patch=8, width=32, depth=2, heads=2)
    made.model.text.update(context=16, vocab=300, width=32, depth=2, heads=2)
    made.model.update(embed=16)
    made.model.prompt.update(hidden=16)
    made.input.label_context = 16
    return made


def ontology() -> Ontology:
    names = {node_id: node_id.replace("_", " ") for node_id in LABELS}
    return Ontology(
        Node(node_id, name, laterality=side if (side := node_id.rpartition("_")[2]) in ("left", "right") else "")
        for node_id, name in names.items()
    )


def parameters(model: medp.Model, seed: int = 0):
    """Parameters away from their special starting values, so that prompts have an effect."""
    shapes, tree = jax.tree.flatten(model.parameter_shapes())
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    leaves = [0.3 * jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, shapes, strict=True)]
    return tree.unflatten(leaves) | {"logit_scale": jnp.asarray(3.0)}


def write_run(directory: pathlib.Path, steps: tuple[int, ...] = (3,)) -> pathlib.Path:
    """Writes the run; the parameters of checkpoint `step` come from the seed `step`."""
    made = config()
    made.workdir = str(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_config(made, directory / "config.json")
    nodes = ontology()
    nodes.save(directory / "ontology.json")
    train_tokenizer([text for node in nodes for text in nodes.sentences(node)], 300).save(directory / "tokenizer.json")
    (directory / "labels.json").write_text(json.dumps({"labels": list(LABELS)}))
    model = medp.Model(made.model)
    checkpointer = checkpoint.make_checkpointer(directory, 3, "loss")
    for step in steps:
        state = TrainState(jnp.asarray(step, jnp.int32), parameters(model, step), {})
        checkpoint.save(checkpointer, state, {}, "loss")
    checkpointer.close()
    return directory
