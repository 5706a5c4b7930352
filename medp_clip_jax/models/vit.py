"""The image tower: CLIP's vision transformer, read once by the image and any number of times by regions."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from medp_clip_jax.models.layers import AttentionPool, KeysValues, LayerNorm, all_but_last, constrain, stack

Array = jax.Array
HIDDEN = -1e9  # logit of a key that nobody may see; finite, so that bf16 softmax stays clean


@flax.struct.dataclass
class Images:
    """Images on a square canvas: pixels [batch, size, size, 3] and where each image lies on it.

    Pixels are RGB, uint8 in [0, 255] or float in [0, 1]; `rectangle` [batch, 4] is (x0, y0, x1, y1) in [0, 1] of the
    canvas.
    """

    pixels: Array | np.ndarray
    rectangle: Array | np.ndarray


@flax.struct.dataclass
class ImageFeatures:
    """What later questions about an image need, so that the image is read only once."""

    embedding: Array  # [batch, dim], L2-normalised: the global view
    patches: Array  # [batch, patches, width], the last block's output
    # Keys and values that regions read: of every block, [depth, batch, 1 + patches, heads, head_dim], or of the pooling
    # head, [1, batch, patches, heads, head_dim].
    kept: KeysValues
    pixels: Array  # [batch, size, size, 3], as they came
    rectangle: Array  # [batch, 4]: the image on the canvas
    canvas: Array  # bool [batch, patches]: patches without any image, hidden from attention
    detail: Any = None  # what the mask decoder, where there is one, reads of the image whatever the prompts


@flax.struct.dataclass
class RegionStream:
    """What makes a region token differ from [CLS] or the pooling head's probe: its start, and what it may see."""

    offset: Array  # [batch, regions, width], added to the [CLS] token or the probe
    coverage: Array  # [batch, regions, patches], logarithm of the scaled coverage
    scale: Array  # [readings, heads], learned factor of the coverage bias; a reading per block, or one by the head


def normalise(x: Array) -> Array:
    """L2-normalises the last axis in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


def normalised_pixels(pixels: Array, config: Any) -> Array:
    """Pixels [batch, size, size, 3], uint8 or float in [0, 1], with the model section's mean and deviation: float32."""
    scale = 1 / 255 if pixels.dtype == jnp.uint8 else 1.0
    return (pixels.astype(jnp.float32) * scale - jnp.array(config.mean)) / jnp.array(config.std)


class VisionTransformer(nn.Module):
    """CLIP's ViT with parameters named as in CLIP (`conv1`, `class_embedding`, ..., `proj`).

    With `image.pool` "map" it is SigLIP's: no [CLS], and a pooling head (`attn_pool`) that image and regions probe.
    """

    config: Any  # the model section of the configuration

    def setup(self) -> None:
        c, image = self.config, self.config.image
        std = image.width**-0.5
        self.conv1 = self.param(
            "conv1", nn.initializers.lecun_normal(in_axis=(0, 1, 2)), (image.patch, image.patch, 3, image.width)
        )
        if image.patch_bias:
            self.conv1_bias = self.param("conv1_bias", nn.initializers.zeros, (image.width,))
        if image.pool == "cls":
            self.class_embedding = self.param("class_embedding", nn.initializers.normal(std), (image.width,))
        else:
            dtype = jnp.dtype(c.dtype)
            self.attn_pool = AttentionPool(image.width, image.heads, image.mlp_ratio, c.activation, c.norm_eps, dtype)
        tokens = (image.size // image.patch) ** 2 + self._lead
        self.positional_embedding = self.param(
            "positional_embedding", nn.initializers.normal(std), (tokens, image.width)
        )
        if image.pre_norm:
            self.ln_pre = LayerNorm(c.norm_eps)
        self.resblocks = stack(image.width, image.heads, image.depth, c, image.mlp_ratio)
        self.ln_post = LayerNorm(c.norm_eps)
        if image.projection:
            self.proj = self.param("proj", nn.initializers.normal(std), (image.width, c.embed))

    def prepare(self, images: Images | Array) -> Images:
        """Images with pixels as they came, a quarter of their normalised size; a bare array fills its canvas.

        Raises:
          ValueError: the canvas is not square or not a multiple of the patch size.
        """
        if not isinstance(images, Images):
            images = Images(images, jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0, 1.0]), (images.shape[0], 4)))
        height, width, channels = images.pixels.shape[1:]
        patch = self.config.image.patch
        if height != width or height % patch or channels != 3:
            raise ValueError(
                f"images: expected [batch, size, size, 3] with size a multiple of {patch}, "
                f"got {images.pixels.shape}; use the processor"
            )
        return Images(jnp.asarray(images.pixels), jnp.asarray(images.rectangle, jnp.float32))

    def __call__(self, images: Images) -> ImageFeatures:
        """Reads prepared images and keeps what later questions need."""
        canvas = canvas_patches(images.rectangle, self._grid(images))
        (x, _), kept = self.resblocks((self._embed(images, None), None), None, *self._bias(None, canvas))
        if self._lead:
            return ImageFeatures(self.leave(x[:, 0]), x[:, 1:], kept, images.pixels, images.rectangle, canvas)
        kept = self.attn_pool.lend(self.ln_post(x))
        embedding = self._probe(kept, None, canvas)[:, 0]
        kept = jax.tree.map(lambda part: part[None], kept)
        return ImageFeatures(embedding, x, kept, images.pixels, images.rectangle, canvas)

    def embed(
        self,
        images: Images,
        stream: RegionStream | None = None,
        keep: Array | None = None,
        added: Array | None = None,
    ) -> tuple[Array, Array | None]:
        """Embeddings of prepared images [batch, dim] and, in the same pass, of regions [batch, regions, dim] or None.

        Nothing is kept for later questions. `keep` [batch, kept] names the patches that patch dropout leaves;
        everything else then does not exist. `added` [batch, patches, width] joins what the patches start as.
        """
        canvas = canvas_patches(images.rectangle, self._grid(images))
        if keep is not None:
            canvas = jnp.take_along_axis(canvas, keep, 1)
        x = self._embed(images, keep, added)
        if not self._lead:
            (x, _), _ = self.resblocks((x, None), None, *self._bias(None, canvas))
            readers = self._probe(self.attn_pool.lend(self.ln_post(x)), stream, canvas)
            return readers[:, 0], None if stream is None else readers[:, 1:]
        regions = None if stream is None else self._start(x.shape[0], stream)
        scale, coverage, hidden = self._bias(stream, canvas)
        (x, regions), last = all_but_last(self.resblocks, self.config, (x, regions), scale, coverage, hidden)
        readers = x[:, :1]
        if stream is not None:  # [CLS] is a region whose coverage is 1 everywhere
            readers = jnp.concatenate([readers, regions], 1)
            coverage = jnp.pad(coverage, ((0, 0), (1, 0), (0, 0)))
        readers = self.leave(last(x, readers, coverage, hidden))
        return readers[:, 0], None if stream is None else readers[:, 1:]

    def read(self, features: ImageFeatures, stream: RegionStream) -> Array:
        """Region embeddings [batch, regions, dim], L2-normalised, from kept features."""
        return self.walk(features, stream)[1]

    def walk(self, features: ImageFeatures, stream: RegionStream) -> tuple[Array, Array]:
        """Region tokens [batch, regions, width] as the last block leaves them, and their embeddings.

        Where there is no [CLS] no token walks the blocks, and embeddings take their place.
        """
        if not self._lead:
            kept = jax.tree.map(lambda part: part[0], features.kept)
            embeddings = self._probe(kept, stream, features.canvas)[:, 1:]
            return embeddings, embeddings
        regions = self._start(features.embedding.shape[0], stream)
        (_, regions), _ = self.resblocks((None, regions), features.kept, *self._bias(stream, features.canvas))
        return regions, self.leave(regions)

    @property
    def _lead(self) -> int:
        """How many tokens stand before the patches."""
        return int(self.config.image.pool == "cls")

    def _probe(self, kept: KeysValues, stream: RegionStream | None, canvas: Array) -> Array:
        """What the pooling head reads for image and regions: embeddings [batch, 1 + regions, dim]."""
        scale, coverage, hidden = self._bias(stream, canvas)
        offset = jnp.zeros((canvas.shape[0], 1, self.config.image.width), jnp.dtype(self.config.dtype))
        if stream is not None:  # the image is a region without prompts whose coverage is 1 everywhere
            offset = jnp.concatenate([offset, stream.offset.astype(offset.dtype)], 1)
            scale, coverage = scale[0], jnp.pad(coverage, ((0, 0), (1, 0), (0, 0)))
        return self._project(self.attn_pool(offset, kept, scale, coverage, hidden))

    def _grid(self, images: Images) -> int:
        return images.pixels.shape[1] // self.config.image.patch

    def _embed(self, images: Images, keep: Array | None, added: Array | None = None) -> Array:
        """What the first block sees: [CLS] and patches, [batch, tokens, width]."""
        grid = self._grid(images)
        dtype = jnp.dtype(self.config.dtype)
        pixels = normalised_pixels(images.pixels, self.config).astype(dtype)
        patches = rearrange(pixels, "b (y p) (x q) c -> b (y x) (p q c)", y=grid, x=grid)
        positions = self._positions(grid).astype(dtype)[None]
        lead = jnp.broadcast_to(positions[:, : self._lead], (patches.shape[0], self._lead, positions.shape[-1]))
        rest = positions[:, self._lead :]
        if keep is not None:
            patches = jnp.take_along_axis(patches, keep[..., None], 1)
            rest = jnp.take_along_axis(rest, keep[..., None], 1)
        x = patches @ self.conv1.reshape(-1, self.config.image.width).astype(dtype)
        if self.config.image.patch_bias:
            x = x + self.conv1_bias.astype(dtype)
        x = x + rest if added is None else x + rest + added
        if self._lead:
            x = jnp.concatenate([self.class_embedding.astype(dtype) + lead, x], 1)
        return constrain(self._enter(x), "batch", "tokens", "width")

    def _positions(self, grid: int) -> Array:
        """Positions for a grid x grid canvas, bicubically interpolated where it is not the trained one."""
        trained = self.config.image.size // self.config.image.patch
        if grid == trained:
            return self.positional_embedding
        cls, rest = self.positional_embedding[: self._lead], self.positional_embedding[self._lead :]
        rest = jax.image.resize(rest.reshape(trained, trained, -1), (grid, grid, rest.shape[-1]), "cubic")
        return jnp.concatenate([cls, rest.reshape(grid * grid, -1)])

    def _start(self, batch: int, stream: RegionStream) -> Array:
        """Region tokens start as the [CLS] token plus their prompt embedding."""
        cls = self._enter(
            (self.class_embedding.astype(self.config.dtype) + self.positional_embedding[0].astype(self.config.dtype))[
                None, None
            ]
        )
        return jnp.broadcast_to(cls, (batch, 1, cls.shape[-1])) + stream.offset.astype(cls.dtype)

    def _bias(self, stream: RegionStream | None, canvas: Array) -> tuple[Array | None, Array | None, Array]:
        """(scale, coverage, bias) of the blocks: what the streams see of the patches."""
        hidden = jnp.pad(jnp.where(canvas, HIDDEN, 0.0), ((0, 0), (self._lead, 0)))[:, None, None, :]
        hidden = hidden.astype(self.config.dtype)
        if stream is None:
            return None, None, hidden
        return stream.scale, jnp.pad(stream.coverage, ((0, 0), (0, 0), (self._lead, 0))), hidden  # 0 on the [CLS] key

    def _enter(self, x: Array) -> Array:
        return self.ln_pre(x) if self.config.image.pre_norm else x

    def leave(self, tokens: Array) -> Array:
        """Embeddings [..., dim], L2-normalised, of tokens [..., width] as the last block leaves them."""
        return self._project(self.ln_post(tokens))

    def _project(self, x: Array) -> Array:
        return normalise(x @ self.proj.astype(x.dtype) if self.config.image.projection else x)


def surviving_patches(keys: Array, rectangle: Array, grid: int, drop: float) -> Array:
    """Patches that patch dropout (FLIP, arXiv 2212.00794) leaves of each image: int32 [batch, kept], ascending.

    `keys` [batch] is one random key per image, so that neither the prompts nor the other images of the batch matter.
    Patches of the canvas go first: they would be hidden anyway.
    """
    kept = max(1, round((1 - drop) * grid * grid))
    rank = jax.vmap(lambda key: jax.random.uniform(key, (grid * grid,)))(keys)
    rank = jnp.where(canvas_patches(rectangle, grid), -1.0, rank)
    return jnp.sort(jax.lax.top_k(rank, kept)[1], -1)


def canvas_patches(rectangle: Array, grid: int) -> Array:
    """Patches that no part of the image touches, bool [batch, grid * grid]."""
    edges = jnp.linspace(0, 1, grid + 1)
    slack = 1e-6  # an edge on a patch border must not count as a touch

    def outside(low: Array, high: Array) -> Array:
        return (edges[1:] <= low[:, None] + slack) | (edges[:-1] >= high[:, None] - slack)

    columns, rows = outside(rectangle[:, 0], rectangle[:, 2]), outside(rectangle[:, 1], rectangle[:, 3])
    return (rows[:, :, None] | columns[:, None, :]).reshape(rectangle.shape[0], -1)
