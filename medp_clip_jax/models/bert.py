"""BERT as a text tower (arXiv 1810.04805), so that a biomedical language model gives label sentences their meaning.

Post-LN blocks with CLIP's parameter names; a sentence is its [CLS] token or the mean of its tokens. Segments do not
exist here: every token is of the first one.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medp_clip_jax.models.layers import REMAT, Attention, LayerNorm, Mlp, constrain
from medp_clip_jax.models.text import TextTower
from medp_clip_jax.models.vit import HIDDEN

Array = jax.Array
EPS = 1e-12  # of all layer norms; with exact GELU, what BERT, PubMedBERT and MiniLM have in common
ACTIVATION = "gelu"


class BertBlock(nn.Module):
    """One post-LN block; `config` is the model section of the configuration."""

    config: Any

    def setup(self) -> None:
        text, dtype = self.config.text, jnp.dtype(self.config.dtype)
        self.attn = Attention(text.width, text.heads, text.depth, dtype)
        self.ln_1 = LayerNorm(EPS)
        self.mlp = Mlp(int(text.width * text.mlp_ratio), text.depth, ACTIVATION, dtype)
        self.ln_2 = LayerNorm(EPS)

    def __call__(self, x: Array, bias: Array) -> tuple[Array, None]:
        """x [texts, length, width] after the block; `bias` [texts, 1, 1, length] hides the padding."""
        x = self.ln_1(x + self.attn(x, bias)[0])
        return constrain(self.ln_2(x + self.mlp(x)), "batch", "tokens", "width"), None


class Bert(TextTower):
    """BERT's encoder with the parameter names of CLIP's text tower, and two more: `token_type_embedding`, `ln_pre`."""

    def setup(self) -> None:
        c, text = self.config, self.config.text
        self._make_tables()
        self.token_type_embedding = self.param("token_type_embedding", nn.initializers.normal(0.02), (2, text.width))
        self.ln_pre = LayerNorm(EPS)
        block = BertBlock if c.remat == "none" else nn.remat(BertBlock, policy=REMAT[c.remat], prevent_cse=False)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=text.depth,
            unroll=c.unroll,
        )
        self.resblocks = scanned(c)
        self._make_projection()

    def embed(self, tokens: Array) -> Array:
        """What the blocks read, [texts, length, width]."""
        x = self._look_up(tokens)
        return constrain(self.ln_pre(x + self.token_type_embedding[0].astype(x.dtype)), "batch", "tokens", "width")

    def encode(self, tokens: Array, x: Array) -> Array:
        """Embeddings of `tokens` from what `embed` made of them; padding, id `text.pad`, is neither seen nor pooled."""
        real = jnp.asarray(tokens) != self.config.text.pad
        bias = jnp.where(real, 0.0, HIDDEN).astype(x.dtype)[:, None, None]
        x, _ = self.resblocks(x, bias)
        if self.config.text.pool == "cls":
            return self._leave(x[:, 0])
        weight = real.astype(jnp.float32)[..., None]
        mean = (x.astype(jnp.float32) * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
        return self._leave(mean.astype(x.dtype))
