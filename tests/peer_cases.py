"""Outputs of every block of our towers, one block after the other, to be held against another library's."""

import jax
import jax.numpy as jnp
import numpy as np

from medp_clip_jax.models.bert import BertBlock
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.layers import Block
from medp_clip_jax.models.vit import HIDDEN


def visual_blocks(model: MedPCLIP, params, pixels) -> np.ndarray:
    """[depth, batch, tokens, width] of images [batch, size, size, 3]."""
    c, image = model.config, model.config.image
    x = model.apply({"params": params}, pixels, method=lambda m, x: m.visual._embed(m.visual.prepare(x), None))
    block = Block(image.width, image.heads, image.depth, image.mlp_ratio, c.activation, c.norm_eps, jnp.float32)
    return _walk(lambda p, x: block.apply({"params": p}, (x, None), None, None, None, None)[0][0], x, params["visual"])


def text_blocks(model: MedPCLIP, params, tokens) -> np.ndarray:
    """[depth, texts, length, width] of token ids [texts, length]."""
    c, text = model.config, model.config.text
    x = model.apply({"params": params}, tokens, method=lambda m, t: m.text.embed(t))
    if text.tower == "bert":
        bias = jnp.where(tokens != text.pad, 0.0, HIDDEN)[:, None, None]
        block = BertBlock(c)
        return _walk(lambda p, x: block.apply({"params": p}, x, bias)[0], x, params["text"])
    activation = text.activation or c.activation
    block = Block(
        text.width, text.heads, text.depth, text.mlp_ratio, activation, c.norm_eps, jnp.float32, text.pool == "end"
    )
    return _walk(lambda p, x: block.apply({"params": p}, (x, None), None, None, None, None)[0][0], x, params["text"])


def _walk(step, x, params) -> np.ndarray:
    step, found = jax.jit(step), []
    for i in range(len(params["resblocks"]["ln_1"]["scale"])):
        x = step(jax.tree.map(lambda leaf, i=i: leaf[i], params["resblocks"]), x)
        found.append(np.asarray(x))
    return np.stack(found)


def relative(ours, theirs) -> float:
    """Largest difference as a share of the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
