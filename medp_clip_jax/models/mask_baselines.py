"""Mask decoders to compare with, trained and asked by the same code: a U-Net with click channels, and SAM's decoder."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from medp_clip_jax.mask_layout import mask_side
from medp_clip_jax.models.fusion import fourier
from medp_clip_jax.models.layers import LayerNorm
from medp_clip_jax.models.mask_inputs import OCTAVES, places, prompt_maps
from medp_clip_jax.models.segmenter import CANDIDATES, Decoded, Segmenter, TwoWay
from medp_clip_jax.models.vit import ImageFeatures, normalised_pixels
from medp_clip_jax.prompts import RegionPrompts

Array = jax.Array
MASKS = 1 + CANDIDATES
LEVELS = 4  # halvings of the U-Net


class ClickUNet(nn.Module):
    """A U-Net over pixels and prompt maps, anew for every region and click, as RITM's (arXiv 2102.06583).

    It has no tower: image features are not read. Channels of the finest level are `segmenter.detail`; as in the mask
    decoder, a classifier answers for 2 x 2 pixels.
    """

    config: Any  # the model section of the configuration

    def look(self, features: ImageFeatures) -> dict[str, Array]:
        """Nothing is shared by the prompts of an image but its pixels."""
        return {}

    @nn.compact
    def __call__(
        self,
        features: ImageFeatures,
        regions: Array,
        prompts: RegionPrompts,
        previous: Array | None = None,
    ) -> Decoded:
        """See `Segmenter`; `regions` are not used."""
        c, s, dtype = self.config, self.config.segmenter, jnp.dtype(self.config.dtype)
        side = mask_side(c, features.pixels.shape[1])
        pixels = normalised_pixels(features.pixels, c).astype(dtype)
        traces, shapes = prompt_maps(prompts, previous, features.rectangle, side // 2)
        step = 2 * pixels.shape[1] // side
        pixels = rearrange(pixels, "b (y p) (x q) c -> b y x (p q c)", p=step, q=step)
        shapes = rearrange(shapes, "b k (y p) (x q) c -> b k y x (p q c)", p=2, q=2)
        maps = jnp.concatenate([traces, shapes], -1).astype(dtype)
        x = nn.Dense(s.detail, dtype=dtype, name="pixels")(pixels)[:, None]
        x = rearrange(x + nn.Dense(s.detail, dtype=dtype, name="maps")(maps), "b k y x c -> (b k) y x c")

        def block(x: Array, channels: int, name: str, stride: int = 1) -> Array:
            for number in (1, 2):
                x = nn.Conv(channels, (3, 3), stride if number == 1 else 1, dtype=dtype, name=f"{name}_{number}")(x)
                x = nn.gelu(nn.GroupNorm(min(8, channels), dtype=dtype, name=f"{name}_norm_{number}")(x))
            return x

        skips = [block(x, s.detail, "down_0")]
        for level in range(1, LEVELS + 1):
            skips.append(block(skips[-1], s.detail * min(2**level, 8), f"down_{level}", 2))
        x = skips.pop()
        seen = rearrange(x.mean((1, 2)), "(b k) c -> b k c", b=len(pixels))
        for level, skip in reversed(list(enumerate(skips))):
            x = jax.image.resize(x, (*skip.shape[:3], x.shape[-1]), "linear")
            x = block(jnp.concatenate([x, skip], -1), skip.shape[-1], f"up_{level}")
        masks = nn.Dense(4 * MASKS, dtype=dtype, name="masks")(x).astype(jnp.float32)
        masks = rearrange(masks, "(b k) y x (p q t) -> b k t (y p) (x q)", b=len(pixels), p=2, q=2)
        scores = nn.Dense(MASKS + 1, dtype=dtype, name="scores")(seen).astype(jnp.float32)
        return Decoded(masks, nn.sigmoid(scores[..., :MASKS]), scores[..., MASKS]).to(previous)


class SamDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder (arXiv 2304.02643) on the tower's last patches, and on nothing else.

    Clicks and box corners are tokens, a mask or the last answer is added to the patches, and masks come at four times
    the resolution of the patches. The region stream and the pixels are not read.
    """

    config: Any  # the model section of the configuration

    def setup(self) -> None:
        c, s = self.config, self.config.segmenter
        self.neck, self.ln_neck = self._dense(s.width), LayerNorm(c.norm_eps)
        self.own = self.param("own", nn.initializers.normal(1.0), (MASKS + 2, s.width))  # masks, IoU, presence
        self.place = self._dense(s.width)
        self.kind = self.param("kind", nn.initializers.normal(1.0), (5, s.width))  # outside, inside, corners, none
        self.mask_1, self.mask_2 = self._dense(s.width // 4), self._dense(s.width)
        self.layers = [TwoWay(c) for _ in range(s.depth)]
        self.up_1, self.up_2 = (nn.ConvTranspose(s.width // n, (2, 2), (2, 2), dtype=self._dtype()) for n in (4, 8))
        self.ln_up = LayerNorm(c.norm_eps)
        self.weigh, self.weights = self._dense(s.width), self._dense(s.width // 8)
        self.judge, self.iou = self._dense(s.width), self._dense(MASKS)
        self.find, self.present = self._dense(s.width), self._dense(1)

    def look(self, features: ImageFeatures) -> dict[str, Array]:
        """The patches as the decoder reads them, [batch, patches, width]."""
        return {"patches": self.ln_neck(self.neck(features.patches))}

    def __call__(
        self,
        features: ImageFeatures,
        regions: Array,
        prompts: RegionPrompts,
        previous: Array | None = None,
    ) -> Decoded:
        """See `Segmenter`; `regions` are not used."""
        c, dtype = self.config, self._dtype()
        size = features.pixels.shape[1]
        grid, side = size // c.image.patch, mask_side(c, size)
        shown = prompt_maps(prompts, previous, features.rectangle, side // 2)[1][..., 1:]  # the mask or the last answer
        shown = jax.image.resize(shown, (*shown.shape[:2], 4 * grid, 4 * grid, 1), "linear")
        cells = rearrange(shown, "b k (y p) (x q) c -> b k (y x) (p q c)", p=4, q=4)
        patches = features.detail["patches"][:, None] + self.mask_2(nn.gelu(self.mask_1(cells.astype(dtype))))

        given = self._prompts(prompts, features.rectangle)
        own = jnp.broadcast_to(self.own.astype(dtype), (*given.shape[:2], *self.own.shape))
        tokens = jnp.concatenate([own, given], 2)
        place = self.place(places(grid).astype(dtype))
        seen = ~features.canvas[:, None, None, None]
        for layer in self.layers:
            tokens, patches = layer(tokens, patches, place, seen)

        x = rearrange(patches, "b k (y x) c -> (b k) y x c", y=grid)
        x = nn.gelu(self.up_2(nn.gelu(self.ln_up(self.up_1(x)))))
        x = rearrange(x, "(b k) y x c -> b k y x c", b=patches.shape[0])
        weights = self.weights(nn.gelu(self.weigh(tokens[:, :, :MASKS])))
        masks = jnp.einsum("bktc,bkyxc->bktyx", weights, x).astype(jnp.float32)
        masks = jax.image.resize(masks, (*masks.shape[:3], side, side), "linear")
        iou = nn.sigmoid(self.iou(nn.gelu(self.judge(tokens[:, :, MASKS]))).astype(jnp.float32))
        present = self.present(nn.gelu(self.find(tokens[:, :, MASKS + 1]))).astype(jnp.float32)[..., 0]
        return Decoded(masks, iou, present).to(previous)

    def _prompts(self, prompts: RegionPrompts, rectangle: Array) -> Array:
        """Tokens [batch, regions, points + 2, width] of clicks and corners; absent ones are of a kind of their own."""
        low, extent = rectangle[:, None, None, :2], (rectangle[:, 2:] - rectangle[:, :2])[:, None, None]
        corners = rearrange(jnp.asarray(prompts.boxes), "b k (n c) -> b k n c", n=2)
        where = low + jnp.concatenate([jnp.asarray(prompts.points), corners], 2) * extent
        labels = jnp.asarray(prompts.point_labels)
        boxed = jnp.where(jnp.asarray(prompts.box_valid)[..., None], jnp.array([2, 3]), 4)
        kinds = jnp.concatenate([jnp.where(labels < 0, 4, labels), boxed], 2)
        placed = self.place(fourier(where, OCTAVES).astype(self._dtype()))
        return jnp.where((kinds < 4)[..., None], placed, 0) + jnp.take(self.kind.astype(self._dtype()), kinds, axis=0)

    def _dtype(self) -> Any:
        return jnp.dtype(self.config.dtype)

    def _dense(self, width: int) -> nn.Dense:
        return nn.Dense(width, dtype=self._dtype())


DECODERS = {"tokens": Segmenter, "unet": ClickUNet, "sam": SamDecoder}
