"""How a region prompt enters the image tower: tokens beside the image's that look through their coverage."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, reduce

from medp_clip_jax.models.layers import constrain
from medp_clip_jax.models.vit import (
    ImageFeatures,
    Images,
    RegionStream,
    VisionTransformer,
    normalise,
    normalised_pixels,
)
from medp_clip_jax.prompts import RegionPrompts, coverage, has_prompt, mask_boxes

Array = jax.Array
EPS = 0.02  # floor of the coverage under the logarithm


def windows(prompts: RegionPrompts, rectangle: Array, margin: float, click_window: float) -> Array:
    """What to look at closely, [batch, regions, 4] in image coordinates: box or mask plus `margin`, else around clicks.

    Around clicks the window has the side `click_window` of the longer image side, more where inside clicks lie
    further apart; a region without any of these gets the whole canvas.
    """
    extent = jnp.stack(
        [rectangle[:, 2] - rectangle[:, 0], rectangle[:, 3] - rectangle[:, 1]], -1
    )  # of the image, in canvas sides
    boxes = jnp.where(jnp.asarray(prompts.box_valid)[..., None], jnp.asarray(prompts.boxes), mask_boxes(prompts))
    size = boxes[..., 2:] - boxes[..., :2]
    boxes = boxes + jnp.concatenate([-size, size], -1) * margin

    inside = (jnp.asarray(prompts.point_labels) == 1)[..., None]
    points = jnp.asarray(prompts.points)
    low, high = jnp.where(inside, points, jnp.inf).min(2), jnp.where(inside, points, -jnp.inf).max(2)
    side = click_window * extent.max(-1, keepdims=True) / extent
    half = jnp.maximum(high - low, side[:, None]) / 2
    close = jnp.concatenate([(low + high) / 2 - half, (low + high) / 2 + half], -1)

    boxed = (jnp.asarray(prompts.box_valid) | jnp.asarray(prompts.mask_valid))[..., None]
    clicked = inside.any(2)
    return jnp.where(boxed, boxes, jnp.where(clicked, close, canvas_window(rectangle)[:, None]))


def canvas_window(rectangle: Array) -> Array:
    """The whole canvas in image coordinates, [batch, 4]."""
    low, high = rectangle[:, :2], rectangle[:, 2:]
    return jnp.concatenate([-low, 1 - low], -1) / jnp.tile(high - low, 2)


def resample(pixels: Array, rectangle: Array, window: Array, side: int) -> Array:
    """Windows of the canvas, [batch, regions, side, side, 3]; linear, antialiased, 0 (the mean) outside.

    `pixels` [batch, size, size, 3]; `window` [batch, regions, 4] in image coordinates.
    """
    size = pixels.shape[1]
    low, extent = jnp.tile(rectangle[:, :2], 2), jnp.tile(rectangle[:, 2:] - rectangle[:, :2], 2)
    on_canvas = (low[:, None] + window * extent[:, None]) * size  # in canvas pixels

    def one(image: Array, box: Array) -> Array:
        scale = side / (box[2:] - box[:2])[::-1]  # (y, x)
        return jax.image.scale_and_translate(image, (side, side, 3), (0, 1), scale, -box[:2][::-1] * scale, "linear")

    return jax.vmap(jax.vmap(one, (None, 0)))(pixels, on_canvas)


def fourier(x: Array, octaves: int) -> Array:
    """Sines and cosines of coordinates in [0, 1] at doubling frequencies: [..., n] -> [..., n * (2 * octaves + 1)]."""
    angles = (x[..., None] * (jnp.pi * 2.0 ** jnp.arange(octaves))).reshape(*x.shape[:-1], -1)
    return jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], -1)


def around(window: Array, rectangle: Array, side: float) -> Array:
    """Square windows with the centres of `window` [batch, regions, 4] and `side` times the longer image side."""
    extent = rectangle[:, 2:] - rectangle[:, :2]  # of the image, in canvas sides
    half = (side / 2 * extent.max(-1, keepdims=True) / extent)[:, None]
    centre = (window[..., :2] + window[..., 2:]) / 2
    return jnp.concatenate([centre - half, centre + half], -1)


class Glimpse(nn.Module):
    """A small look at the pixels and the prompt map of a window, whatever the patch size."""

    side: int
    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, images: Images, prompts: RegionPrompts, window: Array, sigma: Array) -> Array:
        """Features [batch, regions, hidden] of the windows [batch, regions, 4], in image coordinates."""
        view = resample(images.pixels, images.rectangle, window, self.side)
        inside = coverage(prompts, window, self.side, sigma)[..., None]
        x = rearrange(jnp.concatenate([view, inside], -1), "b k y x c -> (b k) y x c").astype(self.dtype)
        for channels, name in ((self.hidden // 4, "conv_1"), (self.hidden // 2, "conv_2")):
            x = nn.Conv(channels, (3, 3), 2, dtype=self.dtype, name=name)(constrain(x, "batch", None, None, None))
            x = nn.gelu(constrain(x, "batch", None, None, None))
        x = constrain(x.reshape(*window.shape[:2], -1), "batch", "tokens", "hidden")
        return constrain(nn.Dense(self.hidden, dtype=self.dtype, name="out")(x), "batch", "tokens", "hidden")


class PromptEncoder(nn.Module):
    """A region's prompts as one vector: the sum of its encoded box, mask and clicks, a glimpse and its surroundings."""

    config: Any  # the model section of the configuration

    @nn.compact
    def __call__(self, images: Images, prompts: RegionPrompts, sigma: Array, keys: Array | None = None) -> Array:
        """Prompt embeddings [batch, regions, width]: 0 without a prompt, and while the last layer is untrained.

        `keys` [batch], one random key per image, are what training drops glimpses by.
        """
        c, hidden = self.config, self.config.prompt.hidden
        dtype = jnp.dtype(c.dtype)
        points = jnp.asarray(prompts.points)
        labels = jnp.asarray(prompts.point_labels)
        shapes = jnp.concatenate([jnp.stack([prompts.boxes, mask_boxes(prompts)], 2), jnp.tile(points, 2)], 2)
        present = jnp.concatenate([jnp.stack([prompts.box_valid, prompts.mask_valid], 2), labels >= 0], 2)
        kinds = jnp.concatenate(
            [jnp.broadcast_to(jnp.array([2, 3]), (*labels.shape[:2], 2)), jnp.maximum(labels, 0)], 2
        )

        table = nn.Embed(4, hidden, name="kind").embedding.astype(dtype)  # outside click, inside click, box, mask
        kind = jnp.take(constrain(table, None, None), kinds, axis=0)  # a look-up in a split table is dear
        parts = nn.Dense(hidden, dtype=dtype, name="shape_1")(fourier(shapes, c.prompt.octaves).astype(dtype)) + kind
        parts = nn.gelu(constrain(parts, "batch", "tokens", None, "hidden"))
        parts = constrain(nn.Dense(hidden, dtype=dtype, name="shape_2")(parts), "batch", "tokens", None, "hidden")
        joint = jnp.where(present[..., None], parts, 0).sum(2)  # a sum: no order among the prompts of a region
        images = Images(normalised_pixels(images.pixels, c), images.rectangle)
        close = windows(prompts, images.rectangle, c.prompt.margin, c.prompt.click_window)
        if c.prompt.glimpse:
            seen = Glimpse(c.prompt.glimpse, hidden, dtype, name="glimpse")(images, prompts, close, sigma)
            joint = joint + self._drop(seen, keys)
        if c.prompt.context:
            wide = around(close, images.rectangle, c.prompt.context)
            joint = joint + Glimpse(c.prompt.glimpse, hidden, dtype, name="context")(images, prompts, wide, sigma)
        offset = nn.Dense(c.image.width, kernel_init=nn.initializers.zeros, dtype=dtype, name="out")(nn.gelu(joint))
        return jnp.where(has_prompt(prompts)[..., None], offset, 0)

    def _drop(self, x: Array, keys: Array | None) -> Array:
        """Leaves a random share of the training regions without their glimpse, so that context stays worth learning."""
        share = self.config.prompt.glimpse_drop
        if not share or keys is None:
            return x
        stays = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), 1 - share, x.shape[1:2]))(keys)
        return x * stays[..., None]


class Tokens(nn.Module):
    """Prompt-token fusion: a region token starts as [CLS] plus a prompt embedding and looks through its coverage.

    Where the tower has no [CLS], it starts as the probe of the pooling head, and only reads there.
    """

    config: Any
    tower: VisionTransformer

    def setup(self) -> None:
        image = self.config.image
        # Encoded anew in the backward pass: little work, and kept through all blocks it is much memory.
        again = self.config.remat != "none"
        self.encoder = (nn.remat(PromptEncoder) if again else PromptEncoder)(self.config)
        self.coverage = jax.checkpoint(coverage, static_argnums=2) if again else coverage
        # s = 10 * parameter: a plain scale moves too little under Adam to matter
        readings = image.depth if image.pool == "cls" else 1  # SigLIP's regions only read in the pooling head
        self.bias_scale = self.param("bias_scale", nn.initializers.constant(0.1), (readings, image.heads))
        if self.config.prompt.tokens > 1:  # what tells the tokens of a region apart
            self.apart = self.param("apart", nn.initializers.normal(0.02), (self.config.prompt.tokens, image.width))
        self.log_sigma = self.param("log_sigma", nn.initializers.constant(jnp.log(0.375)), ())  # of a click, in patches

    def __call__(
        self, images: Images, prompts: RegionPrompts, keep: Array | None = None, keys: Array | None = None
    ) -> tuple[Array, Array]:
        """Embeddings of images [batch, dim] and regions [batch, regions, dim], in one pass.

        `keep` [batch, kept] are the patches that patch dropout left, `keys` [batch] drop glimpses.
        """
        image, regions = self.tower.embed(images, self._stream(images, prompts, keep, keys), keep)
        return image, self._joined(regions)

    def regions(self, features: ImageFeatures, prompts: RegionPrompts) -> Array:
        """Region embeddings [batch, regions, dim], L2-normalised, from features that `encode_image` kept."""
        stream = self._stream(Images(features.pixels, features.rectangle), prompts)
        return self._joined(self.tower.read(features, stream))

    def tokens(self, features: ImageFeatures, prompts: RegionPrompts) -> tuple[Array, Array]:
        """Region tokens [batch, regions, width] as the last block leaves them, for the mask decoder, and embeddings."""
        stream = self._stream(Images(features.pixels, features.rectangle), prompts)
        tokens, embeddings = self.tower.walk(features, stream)
        return self._mean(tokens), self._joined(embeddings)

    def _joined(self, embeddings: Array) -> Array:
        """One embedding of each region from those of its tokens, [batch, regions * tokens, dim]."""
        return embeddings if self.config.prompt.tokens == 1 else normalise(self._mean(embeddings))

    def _mean(self, x: Array) -> Array:
        count = self.config.prompt.tokens
        return x if count == 1 else reduce(x, "b (k n) c -> b k c", "mean", n=count)

    def _stream(
        self, images: Images, prompts: RegionPrompts, keep: Array | None = None, keys: Array | None = None
    ) -> RegionStream:
        c = self.config
        sigma = jnp.exp(self.log_sigma)
        grid = images.pixels.shape[1] // c.image.patch
        covered = self.coverage(prompts, canvas_window(images.rectangle)[:, None], grid, sigma)
        covered = rearrange(covered, "b k y x -> b k (y x)")
        if keep is not None:  # a region all of whose patches are dropped is left with its glimpse
            covered = jnp.take_along_axis(covered, keep[:, None], 2)
        covered = covered / jnp.maximum(covered.max(-1, keepdims=True), 1e-6)
        log_coverage = jnp.log(covered + EPS) - jnp.log(1 + EPS)
        seeing = jnp.arange(len(self.bias_scale)) >= c.prompt.bias_from if c.prompt.bias else jnp.zeros(1, bool)
        scale = jnp.where(seeing[:, None], 10 * self.bias_scale, 0)
        offset = constrain(self.encoder(images, prompts, sigma, keys), "batch", "tokens", "width")
        if c.prompt.tokens > 1:
            apart = jnp.where(has_prompt(prompts)[..., None, None], self.apart.astype(offset.dtype), 0)
            offset = rearrange(offset[:, :, None] + apart, "b k n c -> b (k n) c")
            log_coverage = log_coverage.repeat(c.prompt.tokens, 1)
        return RegionStream(offset, constrain(log_coverage, "batch", None, None), scale)
