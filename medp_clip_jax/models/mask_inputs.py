"""What the mask decoder reads beside the patches: detail of the pixels, maps of the prompts, what looks like them."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce

from medp_clip_jax.models.fusion import canvas_window, fourier
from medp_clip_jax.models.layers import LayerNorm, constrain
from medp_clip_jax.models.vit import ImageFeatures, normalised_pixels
from medp_clip_jax.prompts import RegionPrompts, box_share, mask_share

Array = jax.Array
REACH = (0.0, 0.05, 0.2)  # widths of a click's trace on the prompt maps, in canvas sides; the first is a cell
OCTAVES = 6  # of the positions of patches
LIKENESS = 16  # channels by which places are compared


class Stem(nn.Module):
    """Detail of the pixels that all regions share: features at half the stride, at the stride and at twice the stride,
    which know the patches around them. What is done here is done once per image."""

    config: Any

    @nn.compact
    def __call__(self, features: ImageFeatures) -> tuple[Array, Array, Array]:
        """([batch, side, side, detail / 2], [batch, fine, fine, detail], [batch, coarse, coarse, 2 * detail]) with
        fine = size / stride = 2 * coarse, and side = 2 * fine, that of the masks."""
        c, s = self.config, self.config.segmenter
        dtype = jnp.dtype(c.dtype)
        x = normalised_pixels(features.pixels, c).astype(dtype)

        def conv(x: Array, channels: int, stride: int, name: str) -> Array:
            x = nn.Conv(channels, (3, 3), stride, dtype=dtype, name=name)(x)
            return nn.relu(constrain(x, "batch", None, None, None))

        def refined(x: Array, name: str, norm: bool = True) -> Array:
            inner = LayerNorm(c.norm_eps, name=f"ln_{name}")(x) if norm else x
            inner = conv(inner, x.shape[-1], 1, f"{name}_1")
            return x + nn.Conv(x.shape[-1], (3, 3), dtype=dtype, name=f"{name}_2")(inner)

        def spread(x: Array, like: Array, name: str) -> Array:
            x = nn.Dense(like.shape[-1], dtype=dtype, name=name)(x)
            return like + jax.image.resize(x, like.shape, "linear")

        step = 2
        while step < s.stride:
            x = conv(x, s.detail // 2, 2, f"down_{step}")
            step *= 2
        sharp = conv(x, s.detail // 2, 1, "edges")
        fine = refined(conv(x, s.detail, 2, "down"), "fine")
        coarse = conv(fine, 2 * s.detail, 2, "coarse")
        grid = features.pixels.shape[1] // c.image.patch
        patches = rearrange(LayerNorm(c.norm_eps, name="ln_patches")(features.patches), "b (y x) c -> b y x c", y=grid)
        coarse = refined(spread(patches, coarse, "patches"), "around")
        fine = refined(spread(coarse, fine, "wide"), "again")
        sharp = refined(spread(fine, sharp, "near"), "edge", norm=False)  # costly where there are so many pixels
        fine, coarse = (LayerNorm(c.norm_eps, name=f"ln_out_{n}")(x) for n, x in (("fine", fine), ("coarse", coarse)))
        return sharp, fine, coarse


def prompt_maps(prompts: RegionPrompts, previous: Array | None, rectangle: Array, cells: int) -> tuple[Array, Array]:
    """Where on the canvas the prompts point: traces of clicks [batch, regions, cells, cells, 6], and shapes [batch,
    regions, 2 * cells, 2 * cells, 2].

    Traces are three of inside clicks and three of outside clicks, each the largest Gaussian of any click; shapes are
    the box and the mask, 1 inside, -1 outside and 0 where there is none. `previous` logits [batch, regions, 2 * cells,
    2 * cells] take the mask's place; 0 says nothing.
    """
    window = canvas_window(rectangle)[:, None]
    box = jnp.where(flag(prompts.box_valid), 2 * box_share(prompts, window, 2 * cells) - 1, 0)
    mask = jnp.where(flag(prompts.mask_valid), 2 * mask_share(prompts, window, 2 * cells) - 1, 0)
    if previous is not None:
        mask = jnp.where(jnp.any(previous != 0, (2, 3), keepdims=True), jnp.tanh(previous / 4), mask)
    return click_traces(prompts, rectangle, cells, REACH), jnp.stack([box, mask], -1)


def click_traces(prompts: RegionPrompts, rectangle: Array, cells: int, reach: Sequence[float]) -> Array:
    """The largest Gaussian of any inside click, then of any outside click, for each width in `reach` (in canvas sides;
    0 is a cell): [batch, regions, cells, cells, 2 * widths]."""
    low, extent = rectangle[:, None, None, :2], (rectangle[:, 2:] - rectangle[:, :2])[:, None, None]
    points = low + jnp.asarray(prompts.points) * extent  # on the canvas
    centres = (jnp.arange(cells) + 0.5) / cells
    dx, dy = (jnp.square(centres - points[..., axis, None]) for axis in (0, 1))  # [batch, regions, points, cells]
    labels = jnp.asarray(prompts.point_labels)[..., None]
    traces = []
    for label in (1, 0):
        for width in (one or 1 / cells for one in reach):
            x, y = (jnp.exp(-d / (2 * width**2)) for d in (dx, jnp.where(labels == label, dy, jnp.inf)))
            traces.append((y[..., :, None] * x[..., None, :]).max(2))
    return jnp.stack(traces, -1)


def flag(valid: Array) -> Array:
    """bool [batch, regions] as something that maps can be selected by."""
    return jnp.asarray(valid)[..., None, None]


class Likeness(nn.Module):
    """What the prompted places look like, and where else the image looks so: a comparison of fine features."""

    config: Any

    @nn.compact
    def __call__(self, traces: Array, shapes: Array, fine: Array) -> tuple[Array, Array]:
        """Features of what is marked, [batch, regions, marks, channels], and how like it every place is, in [0, 1]:
        [batch, regions, y, x, marks], 0 for a mark without any place.

        `traces` and `shapes` are those of `prompt_maps`, both at the grid of `fine` [batch, y, x, channels]. Marks are
        the traces, what lies in the box, and what lies in and out of the mask.
        """
        dtype = fine.dtype
        marks = jnp.maximum(jnp.concatenate([traces, shapes, -shapes[..., 1:]], -1), 0)
        area = marks.sum((2, 3))[..., None]
        fine = nn.Dense(LIKENESS, dtype=dtype, name="features")(fine)
        marked = jnp.einsum("bkyxm,byxc->bkmc", marks, fine) / (area + 1e-6).astype(dtype)
        cross = jnp.einsum("bkmc,byxc->bkyxm", marked, fine)
        square = jnp.square(fine).sum(-1)[:, None, ..., None] + jnp.square(marked).sum(-1)[:, :, None, None]
        like = jnp.exp(-jnp.maximum(square - 2 * cross, 0) / LIKENESS)
        there = area > 1e-3
        return jnp.where(there, marked, 0), jnp.where(there[:, :, None, None, :, 0], like, 0)


def by_patch(maps: Array, grid: int) -> Array:
    """Means of maps [batch, regions, cells, cells, channels] over the patches, [batch, regions, patches, channels].

    A patch may end in the middle of a cell, as those of 14 pixels do.
    """
    cells = maps.shape[2]
    if cells % grid == 0:
        return reduce(maps, "b k (y p) (x q) c -> b k (y x) c", "mean", y=grid, x=grid)
    edges, low = np.arange(grid + 1)[:, None] * cells / grid, np.arange(cells)
    shared = np.minimum(edges[1:], low + 1) - np.maximum(edges[:-1], low)  # of each patch and each cell
    share = jnp.asarray(np.maximum(shared, 0) * grid / cells, maps.dtype)
    return rearrange(jnp.einsum("yi,xj,bkijc->bkyxc", share, share, maps), "b k y x c -> b k (y x) c")


def places(grid: int) -> Array:
    """Fourier features of the centres of patches, [patches, features]."""
    centres = (jnp.arange(grid) + 0.5) / grid
    x, y = jnp.meshgrid(centres, centres)
    return fourier(jnp.stack([x.ravel(), y.ravel()], -1), OCTAVES)
