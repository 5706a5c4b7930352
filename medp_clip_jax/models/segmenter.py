"""The mask decoder: prompts to masks, from features that the image tower has kept.

Its shape is that of SAM (arXiv 2304.02643): mask tokens and the patches attend to each other, the patches are enlarged,
and each mask token becomes the weights of a linear classifier of pixels. Five things differ. Prompts come as one token
of the region stream and as maps beside the patches, a stem of convolutions that all regions share brings back what lies
inside a patch, places are compared with those that are marked, a classifier answers for 2 x 2 pixels at once and a
second one reads the stem at the masks' own resolution, where edges and thin vessels are, and an answer begins with what
was given: a box, a mask or the last answer, and clicks decide their own pixels.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange, reduce

from medp_clip_jax.models.layers import LayerNorm, constrain
from medp_clip_jax.models.mask_inputs import Likeness, Stem, by_patch, click_traces, flag, places, prompt_maps
from medp_clip_jax.models.vit import ImageFeatures
from medp_clip_jax.prompts import RegionPrompts, mask_share

Array = jax.Array
START = 6.0  # logits of the last answer that a correction begins with, at most
CANDIDATES = 3  # masks for a single click, which may mean a part or the whole


@flax.struct.dataclass
class Decoded:
    """All that the decoder says; masks are square logits over the canvas, at `mask_layout.mask_side` pixels.

    There are 1 + `CANDIDATES` masks, of which the first is for prompts that leave no doubt, and 1 in a correction.
    """

    masks: Array  # [batch, regions, masks, side, side]
    iou: Array  # [batch, regions, masks], of each mask with the truth, as the decoder sees it, in [0, 1]
    present: Array  # [batch, regions]: logit that there is any object where the prompt points

    def to(self, previous: Array | None) -> "Decoded":
        """What of it is an answer: all, or in a correction of `previous` the first mask."""
        return self if previous is None else self.replace(masks=self.masks[:, :, :1], iou=self.iou[..., :1])


@flax.struct.dataclass
class Segmentation:
    """One mask per region, and what it is called."""

    masks: Array  # [batch, regions, size, size]: logits over the canvas, above 0 inside
    iou: Array  # [batch, regions]: expected IoU of the mask, in [0, 1]
    present: Array  # [batch, regions]: probability that there is an object at all
    logits: Array  # [batch, regions, side, side]: the masks as decoded
    candidates: Array  # [batch, regions, 3, side, side]: logits of the readings of a single click; none in a correction
    candidate_iou: Array  # [batch, regions, 3]
    token: Array  # [batch, regions, width]: what the tower said to the first prompt; further answers start from it
    embedding: Array | None  # [batch, regions, dim], L2-normalised: the region embedding, re-read from the mask


def ambiguous(prompts: RegionPrompts) -> Array:
    """Regions prompted by one click and nothing else, bool [batch, regions]."""
    clicks = (jnp.asarray(prompts.point_labels) >= 0).sum(-1)
    return (clicks == 1) & ~jnp.asarray(prompts.box_valid) & ~jnp.asarray(prompts.mask_valid)


def choose(decoded: Decoded, prompts: RegionPrompts) -> Array:
    """Which of the decoder's masks answers, int [batch, regions]: the best by its own word to a single click, else the
    first."""
    if decoded.iou.shape[-1] == 1:
        return jnp.zeros(decoded.iou.shape[:2], int)
    return jnp.where(ambiguous(prompts), 1 + decoded.iou[..., 1:].argmax(-1), 0)


def pick(x: Array, which: Array) -> Array:
    """One mask, or its score, of each region: [batch, regions, masks, ...] and int [batch, regions]."""
    return jnp.take_along_axis(x, which.reshape(*which.shape, *[1] * (x.ndim - 2)), 2)[:, :, 0]


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
        x = nn.relu(constrain(x, "batch", None, None, None, None))
        x = x + nn.relu(nn.Conv(self.width, (3, 3), dtype=dtype, name="conv")(x))
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
        self.likeness, self.marked = Likeness(c), self._dense(s.width)
        self.layers = [TwoWay(c) for _ in range(s.depth)]
        self.coarse, self.fine = Enlarge(c, s.detail), Enlarge(c, s.detail // 2)
        self.weigh, self.weights = self._dense(s.width), self._dense(4 * (s.detail // 2))
        self.edge, self.edges = self._dense(s.width), self._dense(s.detail // 2)
        self.judge, self.iou = self._dense(s.width), self._dense(1 + CANDIDATES)
        self.find, self.present = self._dense(s.width), self._dense(1)
        self.obeyed = self.param("obeyed", nn.initializers.constant(4.0), ())
        self.given = self.param("given", nn.initializers.constant(2.0), (2,))  # weights of a box and of a mask

    def look(self, features: ImageFeatures) -> dict[str, Array]:
        """What the decoder reads of images whatever the prompts, kept as `features.detail`."""
        sharp, fine, coarse = self.stem(features)
        patches = self.patches(self.ln_patches(features.patches))
        return {"sharp": sharp, "fine": fine, "coarse": coarse, "patches": patches}

    def __call__(
        self,
        features: ImageFeatures,
        regions: Array,
        prompts: RegionPrompts,
        previous: Array | None = None,
    ) -> Decoded:
        """Decodes prompted regions from kept features and the tokens [batch, regions, width] of the region stream.

        The tokens may have seen fewer prompts than there are; the maps show all. `previous` [batch, regions, side,
        side] are logits of an earlier answer about the same regions.
        """
        c, count = self.config, 1 + CANDIDATES
        asked = count if previous is None else 1
        dtype = jnp.dtype(c.dtype)
        detail = features.detail
        grid = features.pixels.shape[1] // c.image.patch
        traces, shapes = (
            constrain(x.astype(dtype), "batch", None, None, None, None)
            for x in prompt_maps(prompts, previous, features.rectangle, detail["fine"].shape[1])
        )
        rough = reduce(shapes, "b k (y p) (x q) c -> b k y x c", "mean", p=2, q=2)
        marked, like = self.likeness(traces, rough, detail["fine"])
        shown = jnp.concatenate([traces, rough, like], -1)
        first = self.region(self.ln_region(regions.astype(dtype)))[:, :, None]
        tokens = jnp.concatenate([self.own.astype(dtype) + first, first, self.marked(marked)], 2)
        place = self.place(places(grid).astype(dtype))
        patches = detail["patches"][:, None] + self.maps(by_patch(shown, grid))
        seen = ~features.canvas[:, None, None, None]
        for layer in self.layers:
            tokens, patches = layer(tokens, patches, place, seen)
            tokens, patches = (constrain(x, "batch", None, None, None) for x in (tokens, patches))

        x = rearrange(patches, "b k (y x) c -> b k y x c", y=grid)
        cells = detail["coarse"].shape[1]
        around = reduce(shown, "b k (y p) (x q) c -> b k y x c", "mean", y=cells, x=cells)
        pixels = self.coarse(x, detail["coarse"], around)
        sharp = rearrange(shapes, "b k (y p) (x q) c -> b k y x (p q c)", p=2, q=2)
        pixels = self.fine(pixels, detail["fine"], jnp.concatenate([traces, sharp, like], -1))
        weights = self.weights(nn.gelu(self.weigh(tokens[:, :, :asked])))
        weights = rearrange(weights, "b k t (s c) -> b k t s c", s=4)
        masks = jnp.einsum("bktsc,bkyxc->bktyxs", weights, pixels).astype(jnp.float32)
        masks = rearrange(masks, "b k t y x (p q) -> b k t (y p) (x q)", p=2)
        edges = self.edges(nn.gelu(self.edge(tokens[:, :, :asked])))
        masks = masks + jnp.einsum("bktc,byxc->bktyx", edges, detail["sharp"]).astype(jnp.float32)
        masks = masks + self._begun(prompts, features.rectangle, shapes, previous)[:, :, None]
        iou = nn.sigmoid(self.iou(nn.gelu(self.judge(tokens[:, :, count])))[..., :asked].astype(jnp.float32))
        present = self.present(nn.gelu(self.find(tokens[:, :, count + 1]))).astype(jnp.float32)[..., 0]
        return Decoded(constrain(masks, "batch", None, None, None, None), iou, present)

    def _begun(self, prompts: RegionPrompts, rectangle: Array, shapes: Array, previous: Array | None) -> Array:
        """What an answer begins with, logits [batch, regions, side, side]: clicks where they are, the box, and the last
        answer or else the mask."""
        side = shapes.shape[2]
        clicks = click_traces(prompts, rectangle, side, (0.0,))
        box, mask = jnp.moveaxis(shapes.astype(jnp.float32) * self.given, -1, 0)
        if previous is not None:
            said = jnp.any(previous != 0, (2, 3), keepdims=True)
            mask = jnp.where(said, jnp.clip(previous, -START, START), mask)
        return self.obeyed * (clicks[..., 0] - clicks[..., 1]) + box + mask

    def _dense(self, width: int) -> nn.Dense:
        return nn.Dense(width, dtype=jnp.dtype(self.config.dtype))


def on_canvas(logits: Array, size: int) -> Array:
    """Logits [batch, regions, side, side] enlarged to canvas pixels, [batch, regions, size, size]; linear."""
    return jax.image.resize(logits, (*logits.shape[:2], size, size), "linear")


def what_it_shows(logits: Array, prompts: RegionPrompts, rectangle: Array, resolution: int) -> RegionPrompts:
    """Predicted masks as mask prompts and nothing else; where a mask is empty, the prompts that led to it.

    The masks are the shares of each of resolution x resolution cells of the image that lie inside, from logits [batch,
    regions, side, side] over the canvas.
    """
    found = mask_share(prompts.replace(masks=(logits > 0).astype(jnp.float32)), rectangle[:, None], resolution)
    given = mask_share(prompts, jnp.array([[[0.0, 0.0, 1.0, 1.0]]]), resolution)
    filled = found.max((2, 3)) > 0
    return prompts.replace(
        point_labels=jnp.where(filled[..., None], -1, prompts.point_labels),
        box_valid=jnp.asarray(prompts.box_valid) & ~filled,
        masks=jnp.where(flag(filled), found, given),
        mask_valid=jnp.asarray(prompts.mask_valid) | filled,
    )
