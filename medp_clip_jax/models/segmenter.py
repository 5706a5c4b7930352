"""The mask decoder: prompts to masks, from features that the image tower has kept.

Its shape is that of SAM (arXiv 2304.02643): mask tokens and the patches attend to each other, the patches are enlarged,
and each mask token becomes the weights of a linear classifier of pixels. Three things differ. Prompts come as one token
of the region stream and as maps beside the patches, a stem of convolutions that all regions share brings back what lies
inside a patch, and a classifier answers for 2 x 2 pixels at once, so that masks are twice as fine as the stem.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange, reduce

from medp_clip_jax.models.fusion import canvas_window, fourier
from medp_clip_jax.models.layers import LayerNorm, constrain
from medp_clip_jax.models.vit import ImageFeatures, normalised_pixels
from medp_clip_jax.prompts import RegionPrompts, box_share, mask_share
from medp_clip_jax.targets import mask_side

Array = jax.Array
CANDIDATES = 3  # masks for a single click, which may mean a part or the whole
REACH = (0.0, 0.05, 0.2)  # widths of a click's trace on the prompt maps, in canvas sides; the first is two pixels
OCTAVES = 6  # of the positions of patches


@flax.struct.dataclass
class Decoded:
    """All that the decoder says; masks are square logits over the canvas, at `targets.mask_side` pixels."""

    masks: Array  # [batch, regions, 1 + candidates, side, side]; the first is for prompts that leave no doubt
    iou: Array  # [batch, regions, 1 + candidates], of each mask with the truth, as the decoder sees it, in [0, 1]
    present: Array  # [batch, regions]: logit that there is any object where the prompt points


@flax.struct.dataclass
class Detail:
    """What the decoder reads of an image whatever the prompts, from `Segmenter.look`."""

    fine: Array  # [batch, fine, fine, detail]
    coarse: Array  # [batch, coarse, coarse, 2 * detail]
    patches: Array  # [batch, patches, width]


@flax.struct.dataclass
class Segmentation:
    """One mask per region, and what it is called."""

    masks: Array  # [batch, regions, size, size]: logits over the canvas, above 0 inside
    iou: Array  # [batch, regions]: expected IoU of the mask, in [0, 1]
    present: Array  # [batch, regions]: probability that there is an object at all
    logits: Array  # [batch, regions, side, side]: the masks as decoded, what the next call takes as `previous`
    candidates: Array  # [batch, regions, 3, side, side]: logits of the three readings of a single click
    candidate_iou: Array  # [batch, regions, 3]
    embedding: Array  # [batch, regions, dim], L2-normalised: the region embedding, re-read from the mask


def ambiguous(prompts: RegionPrompts) -> Array:
    """Regions prompted by one click and nothing else, bool [batch, regions]."""
    clicks = (jnp.asarray(prompts.point_labels) >= 0).sum(-1)
    return (clicks == 1) & ~jnp.asarray(prompts.box_valid) & ~jnp.asarray(prompts.mask_valid)


def choose(decoded: Decoded, prompts: RegionPrompts) -> Array:
    """Which of the decoder's masks answers, int [batch, regions]: the best by its own word after a single click, else
    the first."""
    return jnp.where(ambiguous(prompts), 1 + decoded.iou[..., 1:].argmax(-1), 0)


def pick(x: Array, which: Array) -> Array:
    """One mask, or its score, of each region: [batch, regions, masks, ...] and int [batch, regions]."""
    return jnp.take_along_axis(x, which.reshape(*which.shape, *[1] * (x.ndim - 2)), 2)[:, :, 0]


def prompt_maps(prompts: RegionPrompts, previous: Array | None, rectangle: Array, cells: int) -> Array:
    """Where on the canvas the prompts point, [batch, regions, cells, cells, 8].

    Three traces of inside clicks and three of outside clicks, each the largest Gaussian of any click; the box and the
    mask as 1 inside, -1 outside and 0 where there is none. `previous` logits [batch, regions, cells, cells] take the
    mask's place; 0 says nothing.
    """
    window = canvas_window(rectangle)[:, None]
    low, extent = rectangle[:, None, None, :2], (rectangle[:, 2:] - rectangle[:, :2])[:, None, None]
    points = low + jnp.asarray(prompts.points) * extent  # on the canvas
    centres = (jnp.arange(cells) + 0.5) / cells
    dx, dy = (jnp.square(centres - points[..., axis, None]) for axis in (0, 1))
    distance = dy[..., :, None] + dx[..., None, :]  # squared, [batch, regions, points, cells, cells]
    labels = jnp.asarray(prompts.point_labels)[..., None, None]
    widths = [reach or 2 / cells for reach in REACH]
    traces = []
    for label in (1, 0):
        nearest = jnp.where(labels == label, distance, jnp.inf).min(2)
        traces += [jnp.exp(-nearest / (2 * width**2)) for width in widths]
    box = jnp.where(_flag(prompts.box_valid), 2 * box_share(prompts, window, cells) - 1, 0)
    mask = jnp.where(_flag(prompts.mask_valid), 2 * mask_share(prompts, window, cells) - 1, 0)
    if previous is not None:
        mask = jnp.where(jnp.any(previous != 0, (2, 3), keepdims=True), jnp.tanh(previous / 4), mask)
    return jnp.stack([*traces, box, mask], -1)


def _flag(valid: Array) -> Array:
    return jnp.asarray(valid)[..., None, None]


class Stem(nn.Module):
    """Detail of the pixels that all regions share: features at the stride and at twice the stride."""

    config: Any

    @nn.compact
    def __call__(self, features: ImageFeatures) -> tuple[Array, Array]:
        """([batch, fine, fine, detail], [batch, coarse, coarse, 2 * detail]) with fine = size / stride = 2 * coarse."""
        c, s = self.config, self.config.segmenter
        dtype = jnp.dtype(c.dtype)
        x = normalised_pixels(features.pixels, c).astype(dtype)

        def conv(x: Array, channels: int, stride: int, name: str) -> Array:
            x = nn.Conv(channels, (3, 3), stride, dtype=dtype, name=name)(x)
            return nn.gelu(constrain(x, "batch", None, None, None))

        step = 2
        while step < s.stride:
            x = conv(x, s.detail // 2, 2, f"down_{step}")
            step *= 2
        x = conv(x, s.detail, 2, "down")
        fine = LayerNorm(c.norm_eps, name="ln_fine")(x + conv(x, s.detail, 1, "fine"))
        x = conv(fine, 2 * s.detail, 2, "coarse")
        return fine, LayerNorm(c.norm_eps, name="ln_coarse")(x + conv(x, 2 * s.detail, 1, "around"))


class TwoWay(nn.Module):
    """A layer of SAM's two-way attention: among tokens, tokens to patches, a perceptron, patches to tokens."""

    config: Any

    @nn.compact
    def __call__(self, tokens: Array, patches: Array, place: Array, seen: Array) -> tuple[Array, Array]:
        """Tokens [batch, regions, tokens, width], patches [batch, regions, patches, width] with their positions
        `place` [patches, width]; `seen` [batch, 1, 1, 1, patches] is false on the canvas."""
        c, s = self.config, self.config.segmenter
        dtype = jnp.dtype(c.dtype)

        def attend(query: Array, keys: Array, values: Array, name: str, width: int, mask: Array | None) -> Array:
            attention = nn.MultiHeadDotProductAttention(s.heads, dtype, qkv_features=width, name=name)
            return attention(query, keys, values, mask=mask)

        def norm(name: str) -> LayerNorm:
            return LayerNorm(c.norm_eps, name=name)

        tokens = norm("ln_self")(tokens + attend(tokens, tokens, tokens, "self", s.width, None))
        looked = attend(tokens, patches + place, patches, "look", s.width // 2, seen)
        tokens = norm("ln_look")(tokens + looked)
        inner = nn.gelu(nn.Dense(2 * s.width, dtype=dtype, name="inner")(tokens))
        tokens = norm("ln_mlp")(tokens + nn.Dense(s.width, dtype=dtype, name="outer")(inner))
        told = attend(patches + place, tokens, tokens, "tell", s.width // 2, None)
        return tokens, norm("ln_tell")(patches + told)


class Enlarge(nn.Module):
    """A step to finer features of each region, with the detail that all regions share and the prompts' traces."""

    config: Any
    width: int

    @nn.compact
    def __call__(self, x: Array, detail: Array, maps: Array) -> Array:
        """x [batch, regions, y, x, channels] at the grid of `detail` [batch, rows, columns, channels] and `maps`."""
        dtype, cells = jnp.dtype(self.config.dtype), detail.shape[1]

        def dense(x: Array, name: str) -> Array:
            return nn.Dense(self.width, dtype=dtype, name=name)(x)

        x = dense(x, "into")
        x = jax.image.resize(x, (*x.shape[:2], cells, cells, self.width), "linear")
        x = x + dense(detail, "detail")[:, None] + dense(maps, "maps")
        x = nn.gelu(constrain(x, "batch", None, None, None, None))
        x = x + nn.gelu(nn.Conv(self.width, (3, 3), dtype=dtype, name="conv")(x))
        return constrain(x, "batch", None, None, None, None)


class Segmenter(nn.Module):
    """Masks, their expected IoU and the presence of an object, for any number of regions that do not see each other."""

    config: Any  # the model section of the configuration

    def setup(self) -> None:
        c, s = self.config, self.config.segmenter
        self.stem = Stem(c)
        self.ln_patches, self.patches = LayerNorm(c.norm_eps), self._dense(s.width)
        self.ln_region, self.region = LayerNorm(c.norm_eps), self._dense(s.width)
        self.own = self.param("own", nn.initializers.normal(1.0), (1 + CANDIDATES + 2, s.width))  # masks, IoU, presence
        self.place, self.maps = self._dense(s.width), self._dense(s.width)
        self.layers = [TwoWay(c) for _ in range(s.depth)]
        self.coarse, self.fine = Enlarge(c, s.detail), Enlarge(c, s.detail // 2)
        self.weigh, self.weights = self._dense(s.width), self._dense(4 * (s.detail // 2))
        self.judge, self.iou = self._dense(s.width), self._dense(1 + CANDIDATES)
        self.find, self.present = self._dense(s.width), self._dense(1)

    def look(self, features: ImageFeatures) -> Detail:
        """What all prompts share: the image's part of the decoder."""
        fine, coarse = self.stem(features)
        return Detail(fine, coarse, self.patches(self.ln_patches(features.patches)))

    def __call__(
        self,
        features: ImageFeatures,
        regions: Array,
        prompts: RegionPrompts,
        previous: Array | None = None,
        detail: Detail | None = None,
    ) -> Decoded:
        """Decodes prompted regions from kept features and the tokens [batch, regions, width] of the region stream.

        `previous` [batch, regions, side, side] are logits of an earlier answer about the same regions; `detail` is what
        `look` gives, to be reused.
        """
        c, count = self.config, 1 + CANDIDATES
        dtype = jnp.dtype(c.dtype)
        detail = detail or self.look(features)
        grid, cells = features.pixels.shape[1] // c.image.patch, mask_side(c, features.pixels.shape[1])
        maps = prompt_maps(prompts, previous, features.rectangle, cells).astype(dtype)
        maps = constrain(maps, "batch", None, None, None, None)

        first = self.region(self.ln_region(regions.astype(dtype)))[:, :, None]
        tokens = jnp.concatenate([self.own.astype(dtype) + first, first], 2)
        place = self.place(places(grid).astype(dtype))
        pooled = reduce(maps, "b k (y p) (x q) c -> b k (y x) c", "mean", y=grid, x=grid)
        patches = detail.patches[:, None] + self.maps(pooled)
        seen = ~features.canvas[:, None, None, None]
        for layer in self.layers:
            tokens, patches = layer(tokens, patches, place, seen)
            tokens, patches = (constrain(x, "batch", None, None, None) for x in (tokens, patches))

        x = rearrange(patches, "b k (y x) c -> b k y x c", y=grid)
        cells = detail.coarse.shape[1]
        pixels = self.coarse(x, detail.coarse, reduce(maps, "b k (y p) (x q) c -> b k y x c", "mean", y=cells, x=cells))
        pixels = self.fine(pixels, detail.fine, rearrange(maps, "b k (y p) (x q) c -> b k y x (p q c)", p=2, q=2))
        weights = self.weights(nn.gelu(self.weigh(tokens[:, :, :count])))
        weights = rearrange(weights, "b k t (s c) -> b k t s c", s=4)
        masks = jnp.einsum("bktsc,bkyxc->bktyxs", weights, pixels).astype(jnp.float32)
        masks = rearrange(masks, "b k t y x (p q) -> b k t (y p) (x q)", p=2)
        iou = nn.sigmoid(self.iou(nn.gelu(self.judge(tokens[:, :, count]))).astype(jnp.float32))
        present = self.present(nn.gelu(self.find(tokens[:, :, count + 1]))).astype(jnp.float32)[..., 0]
        return Decoded(constrain(masks, "batch", None, None, None, None), iou, present)

    def _dense(self, width: int) -> nn.Dense:
        return nn.Dense(width, dtype=jnp.dtype(self.config.dtype))


def places(grid: int) -> Array:
    """Fourier features of the centres of patches, [patches, features]."""
    centres = (jnp.arange(grid) + 0.5) / grid
    x, y = jnp.meshgrid(centres, centres)
    return fourier(jnp.stack([x.ravel(), y.ravel()], -1), OCTAVES)


def on_canvas(logits: Array, size: int) -> Array:
    """Logits [batch, regions, side, side] enlarged to canvas pixels, [batch, regions, size, size]; linear."""
    return jax.image.resize(logits, (*logits.shape[:2], size, size), "linear")


def as_mask_prompt(logits: Array, rectangle: Array, resolution: int) -> RegionPrompts:
    """Predicted masks as mask prompts and nothing else: the share of each of resolution x resolution cells of the image
    that lies inside, from logits [batch, regions, side, side] over the canvas. An empty mask is no prompt."""
    inside = (logits > 0).astype(jnp.float32)
    batch, regions = logits.shape[:2]
    # Broadcast, as the sizes of an exported program are symbols.
    prompts = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, regions, *x.shape[2:])), RegionPrompts.none(1))
    canvas = prompts.replace(masks=inside)
    masks = mask_share(canvas, rectangle[:, None], resolution)
    filled = masks.max((2, 3)) > 0
    return prompts.replace(masks=masks, mask_valid=filled)
