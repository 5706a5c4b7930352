"""The text towers' common end, and CLIP's text transformer: causal and pooled at the end-of-text token, or SigLIP's."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medp_clip_jax.models.layers import LayerNorm, all_but_last, constrain, stack
from medp_clip_jax.models.vit import HIDDEN, normalise

Array = jax.Array


class TextTower(nn.Module):
    """What all text towers share: token embeddings in, the projection to the joint space out."""

    config: Any  # the model section of the configuration

    def __call__(self, tokens: Array) -> Array:
        """Token ids [texts, length <= context] -> embeddings [texts, dim], L2-normalised."""
        return self.encode(tokens, self.embed(tokens))

    def embed(self, tokens: Array) -> Array:
        """What the blocks read, [texts, length, width]."""
        raise NotImplementedError

    def encode(self, tokens: Array, x: Array) -> Array:
        """Embeddings of `tokens` from what `embed` made of them."""
        raise NotImplementedError

    def _make_tables(self) -> None:
        text = self.config.text
        self.token_embedding = self.param("token_embedding", nn.initializers.normal(0.02), (text.vocab, text.width))
        self.positional_embedding = self.param(
            "positional_embedding", nn.initializers.normal(0.01), (text.positions or text.context, text.width)
        )

    def _look_up(self, tokens: Array) -> Array:
        length = tokens.shape[1]
        if length > self.config.text.context:
            raise ValueError(
                f"tokens: expected at most {self.config.text.context} per text, got {length}; tokenise to that length"
            )
        dtype = jnp.dtype(self.config.dtype)
        table = constrain(self.token_embedding.astype(dtype), None, None)  # a look-up in a split table is dear
        return jnp.take(table, tokens, axis=0) + self.positional_embedding[:length].astype(dtype)

    def _make_projection(self) -> None:
        """`text.projection`: linear as in CLIP, bias as in SigLIP, mlp as in BiomedCLIP, or none."""
        width, embed, kind = self.config.text.width, self.config.embed, self.config.text.projection
        hidden = (width + embed) // 2
        shapes = {
            "linear": {"text_projection": (width, embed)},
            "bias": {"text_projection": (width, embed), "text_projection_bias": (embed,)},
            "mlp": {"text_projection_1": (width, hidden), "text_projection_2": (hidden, embed)},
            "none": {},
        }[kind]
        for name, shape in shapes.items():
            init = nn.initializers.normal(shape[0] ** -0.5) if len(shape) == 2 else nn.initializers.zeros
            setattr(self, name, self.param(name, init, shape))

    def _leave(self, x: Array) -> Array:
        kind = self.config.text.projection
        if kind == "mlp":
            inner = nn.gelu(x @ self.text_projection_1.astype(x.dtype), approximate=False)
            x = inner @ self.text_projection_2.astype(x.dtype)
        elif kind != "none":
            x = x @ self.text_projection.astype(x.dtype)
        if kind == "bias":
            x = x + self.text_projection_bias.astype(x.dtype)
        return normalise(x)


class TextTransformer(TextTower):
    """CLIP's text encoder with parameters named as in CLIP; with `text.pool` "last" it is SigLIP's.

    SigLIP's attends both ways, is pooled at the last token, and was trained on texts of the full context with their
    padding in sight: shorter ones are therefore padded to it.
    """

    def setup(self) -> None:
        c, text = self.config, self.config.text
        self._make_tables()
        self.resblocks = stack(
            text.width, text.heads, text.depth, c, text.mlp_ratio, text.pool == "end", text.activation
        )
        self.ln_final = LayerNorm(c.norm_eps)
        self._make_projection()

    def embed(self, tokens: Array) -> Array:
        """What the blocks read, [texts, length, width]; of a SigLIP [texts, context, width]."""
        text = self.config.text
        if text.pool == "last":
            missing = max(text.context - tokens.shape[1], 0)
            tokens = jnp.pad(jnp.asarray(tokens), ((0, 0), (0, missing)), constant_values=text.pad)
        return constrain(self._look_up(tokens), "batch", "tokens", "width")

    def encode(self, tokens: Array, x: Array) -> Array:
        """Embeddings of `tokens` from what `embed` made of them.

        In CLIP the end-of-text token has the highest id, so pooling is at the argmax; what follows it is padding that
        causal attention never sees.
        """
        (x, _), last = all_but_last(self.resblocks, self.config, (x, None), None, None, None)
        if self.config.text.pool == "last":
            end, later = x[:, -1:], None
        else:
            place = tokens.argmax(-1)[:, None]
            later = jnp.where(jnp.arange(tokens.shape[1]) > place, HIDDEN, 0.0).astype(x.dtype)[:, None, None]
            end = jnp.take_along_axis(x, place[..., None], axis=1)
        return self._leave(self.ln_final(last(x, end, None, later)[:, 0]))
