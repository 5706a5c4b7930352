"""The text tower: CLIP's causal transformer, pooled at the end-of-text token."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medp_clip_jax.models.layers import LayerNorm, all_but_last, constrain, stack
from medp_clip_jax.models.vit import HIDDEN, normalise

Array = jax.Array


class TextTransformer(nn.Module):
    """CLIP's text encoder with parameters named as in CLIP."""

    config: Any  # the model section of the configuration

    def setup(self) -> None:
        c, text = self.config, self.config.text
        self.token_embedding = self.param("token_embedding", nn.initializers.normal(0.02), (text.vocab, text.width))
        self.positional_embedding = self.param(
            "positional_embedding", nn.initializers.normal(0.01), (text.context, text.width)
        )
        self.resblocks = stack(text.width, text.heads, text.depth, c, text.mlp_ratio, causal=True)
        self.ln_final = LayerNorm(c.norm_eps)
        self.text_projection = self.param(
            "text_projection", nn.initializers.normal(text.width**-0.5), (text.width, c.embed)
        )

    def __call__(self, tokens: Array) -> Array:
        """Token ids [texts, length <= context] -> embeddings [texts, dim], L2-normalised."""
        return self.encode(tokens, self.embed(tokens))

    def embed(self, tokens: Array) -> Array:
        """What the blocks read, [texts, length, width]."""
        length = tokens.shape[1]
        if length > self.config.text.context:
            raise ValueError(
                f"tokens: expected at most {self.config.text.context} per text, got {length}; tokenise to that length"
            )
        dtype = jnp.dtype(self.config.dtype)
        table = constrain(self.token_embedding.astype(dtype), None, None)  # a look-up in a split table is dear
        x = jnp.take(table, tokens, axis=0) + self.positional_embedding[:length].astype(dtype)
        return constrain(x, "batch", "tokens", "width")

    def encode(self, tokens: Array, x: Array) -> Array:
        """Embeddings of `tokens` from what `embed` made of them.

        The end-of-text token has the highest id, so pooling is at the argmax; what follows it is padding that causal
        attention never sees.
        """
        (x, _), last = all_but_last(self.resblocks, self.config, (x, None), None, None, None)
        end = tokens.argmax(-1)[:, None]
        later = jnp.where(jnp.arange(tokens.shape[1]) > end, HIDDEN, 0.0).astype(x.dtype)[:, None, None]
        end = last(x, jnp.take_along_axis(x, end[..., None], axis=1), None, later)[:, 0]
        return normalise(self.ln_final(end) @ self.text_projection.astype(x.dtype))
