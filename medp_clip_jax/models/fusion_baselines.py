"""Other ways for a region prompt to enter, to compare with: on the last features, or as a channel of the pixels.

Each trains and answers by the same code as `fusion.Tokens`: the global embedding knows nothing of prompts, a region
without any is the global embedding, and regions do not see each other.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from medp_clip_jax.models.fusion import PromptEncoder, Tokens, canvas_window
from medp_clip_jax.models.layers import ACTIVATIONS, LayerNorm
from medp_clip_jax.models.vit import ImageFeatures, Images, VisionTransformer, normalise
from medp_clip_jax.prompts import RegionPrompts, coverage, has_prompt

Array = jax.Array
LAYERS = 2  # of the late fusion's decoder, as in SAM


class Late(nn.Module):
    """SAM-style late fusion: a prompt's token attends to the patches as the tower leaves them, in two layers.

    The token starts as [CLS] of the image plus the prompt's embedding. A mask, box or click is also laid over the
    patches, as SAM adds its dense prompt: a learned vector, times the share of each patch, joins its key and value.
    """

    config: Any
    tower: VisionTransformer

    def setup(self) -> None:
        c = self.config
        self.encoder = PromptEncoder(c)
        self.log_sigma = self.param("log_sigma", nn.initializers.constant(jnp.log(0.375)), ())
        self.start = nn.Dense(c.image.width, dtype=jnp.dtype(c.dtype))
        self.layers = [Look(c) for _ in range(LAYERS)]
        self.ln_post = LayerNorm(c.norm_eps)
        self.proj = self.param("proj", nn.initializers.normal(c.image.width**-0.5), (c.image.width, c.embed))

    def __call__(
        self, images: Images, prompts: RegionPrompts, keep: Array | None = None, keys: Array | None = None
    ) -> tuple[Array, Array]:
        """See `Tokens`; all patches stay."""
        features = self.tower(images)
        return features.embedding, self._regions(features, prompts, keys)

    def regions(self, features: ImageFeatures, prompts: RegionPrompts) -> Array:
        """See `Tokens`."""
        return self._regions(features, prompts, None)

    def _regions(self, features: ImageFeatures, prompts: RegionPrompts, keys: Array | None) -> Array:
        sigma, images = jnp.exp(self.log_sigma), Images(features.pixels, features.rectangle)
        grid = features.pixels.shape[1] // self.config.image.patch
        covered = rearrange(
            coverage(prompts, canvas_window(features.rectangle)[:, None], grid, sigma), "b k y x -> b k (y x)"
        )
        x = self.start(features.embedding.astype(self.config.dtype))[:, None] + self.encoder(
            images, prompts, sigma, keys
        )
        for layer in self.layers:
            x = layer(x, features.patches, covered, features.canvas)
        found = normalise(self.ln_post(x) @ self.proj.astype(x.dtype))
        return or_global(found, features.embedding, prompts)


class Look(nn.Module):
    """One layer: attention of region tokens to the patches under their prompt, then a perceptron."""

    config: Any

    @nn.compact
    def __call__(self, x: Array, patches: Array, covered: Array, canvas: Array) -> Array:
        """x [batch, regions, width]; patches [batch, patches, width]; `covered` [batch, regions, patches] in [0, 1];
        `canvas` bool [batch, patches] is hidden."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        heads, width = c.image.heads, c.image.width

        def split(y: Array) -> Array:
            return rearrange(y, "... (h d) -> ... h d", h=heads)

        query = split(nn.Dense(width, dtype=dtype, name="query")(LayerNorm(c.norm_eps, name="ln_1")(x)))
        patches = LayerNorm(c.norm_eps, name="ln_patches")(patches)
        key, value = (split(nn.Dense(width, dtype=dtype, name=name)(patches)) for name in ("key", "value"))
        mark_key, mark_value = (
            split(self.param(name, nn.initializers.normal(width**-0.5), (width,)).astype(dtype))
            for name in ("mark_key", "mark_value")
        )
        covered = covered.astype(dtype)
        marked = jnp.einsum("bkhd,hd->bkh", query, mark_key)
        logits = jnp.einsum("bkhd,bphd->bkhp", query, key) + marked[..., None] * covered[:, :, None]
        logits = logits.astype(jnp.float32) * (width // heads) ** -0.5
        weights = jax.nn.softmax(jnp.where(canvas[:, None, None], -1e9, logits), -1).astype(dtype)
        seen = jnp.einsum("bkhp,bphd->bkhd", weights, value)
        seen = seen + jnp.einsum("bkhp,bkp->bkh", weights, covered)[..., None] * mark_value
        x = x + nn.Dense(width, dtype=dtype, name="out")(rearrange(seen, "b k h d -> b k (h d)"))
        inner = ACTIVATIONS[c.activation](
            nn.Dense(4 * width, dtype=dtype, name="c_fc")(LayerNorm(c.norm_eps, name="ln_2")(x))
        )
        return x + nn.Dense(width, dtype=dtype, name="c_proj")(inner)


class Pool(nn.Module):
    """Mask pooling (RoIAlign, FG-CLIP): the mean of the last patches, weighted by the share that the prompt covers."""

    config: Any
    tower: VisionTransformer

    def setup(self) -> None:
        self.log_sigma = self.param("log_sigma", nn.initializers.constant(jnp.log(0.375)), ())

    def __call__(
        self, images: Images, prompts: RegionPrompts, keep: Array | None = None, keys: Array | None = None
    ) -> tuple[Array, Array]:
        """See `Tokens`; all patches stay."""
        features = self.tower(images)
        return features.embedding, self.regions(features, prompts)

    def regions(self, features: ImageFeatures, prompts: RegionPrompts) -> Array:
        """See `Tokens`."""
        grid = features.pixels.shape[1] // self.config.image.patch
        covered = coverage(prompts, canvas_window(features.rectangle)[:, None], grid, jnp.exp(self.log_sigma))
        covered = jnp.where(features.canvas[:, None], 0, rearrange(covered, "b k y x -> b k (y x)")) + 1e-6
        weights = (covered / covered.sum(-1, keepdims=True)).astype(features.patches.dtype)
        found = self.tower.leave(jnp.einsum("bkp,bpd->bkd", weights, features.patches))
        return or_global(found, features.embedding, prompts)


class Alpha(nn.Module):
    """Alpha-CLIP (arXiv 2312.03818): what the prompt covers is a fourth channel of the pixels, and every region is a
    pass of the whole tower. The channel's patch embedding starts at 0, so that regions start as the image."""

    config: Any
    tower: VisionTransformer

    def setup(self) -> None:
        image = self.config.image
        self.conv1_alpha = self.param("conv1_alpha", nn.initializers.zeros, (image.patch**2, image.width))
        self.log_sigma = self.param("log_sigma", nn.initializers.constant(jnp.log(0.375)), ())

    def __call__(
        self, images: Images, prompts: RegionPrompts, keep: Array | None = None, keys: Array | None = None
    ) -> tuple[Array, Array]:
        """See `Tokens`; all patches stay."""
        image = self.tower.embed(images)[0]
        return image, self._regions(images, image, prompts)

    def regions(self, features: ImageFeatures, prompts: RegionPrompts) -> Array:
        """See `Tokens`; only the pixels can be used again."""
        return self._regions(Images(features.pixels, features.rectangle), features.embedding, prompts)

    def _regions(self, images: Images, image: Array, prompts: RegionPrompts) -> Array:
        c = self.config
        size, count = images.pixels.shape[1], prompts.valid.shape[1]
        sigma = jnp.exp(self.log_sigma) * c.image.patch  # in pixels
        alpha = 2 * coverage(prompts, canvas_window(images.rectangle)[:, None], size, sigma) - 1
        alpha = rearrange(alpha, "b k (y p) (x q) -> (b k) (y x) (p q)", p=c.image.patch, q=c.image.patch)
        each = jax.tree.map(lambda x: repeat(x, "b ... -> (b k) ...", k=count), images)
        found = self.tower.embed(each, added=alpha.astype(c.dtype) @ self.conv1_alpha.astype(c.dtype))[0]
        return or_global(rearrange(found, "(b k) d -> b k d", k=count), image, prompts)


def or_global(found: Array, image: Array, prompts: RegionPrompts) -> Array:
    """Region embeddings [batch, regions, dim], with those of the images [batch, dim] where there is no prompt."""
    return jnp.where(has_prompt(prompts)[..., None], found, image[:, None])


FUSIONS = {"tokens": Tokens, "late": Late, "pool": Pool, "alpha": Alpha}
