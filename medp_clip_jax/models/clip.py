"""MedP-CLIP: two towers, one space, and regions of the image beside the image itself."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medp_clip_jax.errors import InputError
from medp_clip_jax.models import segmenter
from medp_clip_jax.models.bert import Bert
from medp_clip_jax.models.fusion_baselines import FUSIONS
from medp_clip_jax.models.mask_baselines import DECODERS
from medp_clip_jax.models.text import TextTransformer
from medp_clip_jax.models.vit import ImageFeatures, Images, VisionTransformer, surviving_patches
from medp_clip_jax.prompts import RegionPrompts

Array = jax.Array
TEXT_TOWERS = {"clip": TextTransformer, "bert": Bert}


class MedPCLIP(nn.Module):
    """The whole model; `config` is the model section of the configuration."""

    config: Any

    def setup(self) -> None:
        self.visual = VisionTransformer(self.config)
        self.text = TEXT_TOWERS[self.config.text.tower](self.config)
        self.fusion = FUSIONS[self.config.fusion](self.config, self.visual)
        if self.config.segmenter.width:
            self.segmenter = DECODERS[self.config.segmenter.kind](self.config)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(jnp.log(1 / 0.07)), ())
        self.logit_bias = self.param("logit_bias", nn.initializers.constant(-10.0), ())  # of the sigmoid loss

    def __call__(
        self, images: Images | Array, prompts: RegionPrompts | None, tokens: Array, keys: Array | None = None
    ) -> tuple[Array, Array | None, Array]:
        """One training pass: embeddings of images [batch, dim], regions [batch, regions, dim], texts [texts, dim].

        With `keys` [batch], one random key per image, patches and glimpses are dropped as the configuration says.
        """
        if self.is_initializing() and self.config.segmenter.width:
            features, asked = self.encode_image(images), RegionPrompts.none(tokens.shape[0])
            self.decode(features, asked, self.read(features, asked)[0])  # makes the parameters
        image, regions = self.embed(images, prompts, keys)
        # One tower after the other: the gradient then frees what the text tower kept before it needs the image's peak.
        image, regions, x = jax.lax.optimization_barrier((image, regions, self.text.embed(tokens)))
        return image, regions, self.text.encode(tokens, x)

    def encode_image(self, images: Images | Array) -> ImageFeatures:
        """Reads images once, [batch, size, size, 3] or `Images`, and keeps what questions about regions need."""
        features = self.visual(self.visual.prepare(images))
        return self.look(features) if self.config.segmenter.width else features

    def embed(
        self, images: Images | Array, prompts: RegionPrompts | None = None, keys: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Embeddings of images [batch, dim] and of regions [batch, regions, dim], L2-normalised, in one pass.

        For images that nothing else will be asked about: nothing is kept, which is cheaper than `encode_image` and
        `encode_regions`, and the same. Without prompts there are no regions: None. `keys` are those of a call.
        """
        images, keep = self.visual.prepare(images), None
        if keys is not None and self.config.image.patch_drop:
            grid = images.pixels.shape[1] // self.config.image.patch
            keep = surviving_patches(keys, images.rectangle, grid, self.config.image.patch_drop)
        if prompts is None:
            return self.visual.embed(images, None, keep)
        return self.fusion(images, prompts, keep, keys)

    def encode_regions(self, features: ImageFeatures, prompts: RegionPrompts) -> Array:
        """Embeddings of prompted regions, [batch, regions, dim], L2-normalised, in the space of images and texts."""
        return self.fusion.regions(features, prompts)

    def keep(
        self, images: Images | Array, prompts: RegionPrompts | None, tokens: Array
    ) -> tuple[ImageFeatures, Array | None, Array]:
        """A training pass as a call is, that keeps the image's features for the mask decoder; drops nothing."""
        features = self.encode_image(images)
        regions = None if prompts is None else self.encode_regions(features, prompts)
        return features, regions, self.encode_text(tokens)

    def look(self, features: ImageFeatures) -> ImageFeatures:
        """Features with the mask decoder's view of the images, which all questions about their regions share."""
        return features.replace(detail=self.segmenter.look(features))

    def read(self, features: ImageFeatures, prompts: RegionPrompts) -> tuple[Array, Array]:
        """Region tokens [batch, regions, width] as the last block leaves them, for `decode`, and region embeddings."""
        return self.fusion.tokens(features, prompts)

    def decode(
        self, features: ImageFeatures, prompts: RegionPrompts, tokens: Array, previous: Array | None = None
    ) -> segmenter.Decoded:
        """All masks that the decoder offers for prompted regions; `tokens` are those of `read` for their first prompts,
        `previous` the logits [batch, regions, side, side] of the last answer."""
        return self.segmenter(features, tokens, prompts, previous)

    def segment(
        self,
        features: ImageFeatures,
        prompts: RegionPrompts,
        previous: segmenter.Segmentation | None = None,
        named: bool = True,
    ) -> segmenter.Segmentation:
        """One mask per prompted region and the embedding of what it shows, `segmenter.Segmentation`.

        `previous` is the last answer about the same regions, which the prompts then correct: all of them, the earlier
        ones included. The decoder alone answers, and the tower is asked for the name only, which costs more; without
        `named` the embedding is None. Raises InputError where the model has no mask decoder.
        """
        if not self.config.segmenter.width:
            raise InputError("this model has no mask decoder: train one, with config.model.segmenter and loss.segment")
        tokens = previous.token if previous else self.read(features, prompts)[0]
        found = self.decode(features, prompts, tokens, previous.logits if previous else None)
        which = segmenter.choose(found, prompts)
        logits, size = segmenter.pick(found.masks, which), features.pixels.shape[1]
        return segmenter.Segmentation(
            masks=segmenter.on_canvas(logits, size),
            iou=segmenter.pick(found.iou, which),
            present=nn.sigmoid(found.present),
            logits=logits,
            candidates=found.masks[:, :, 1:],
            candidate_iou=found.iou[:, :, 1:],
            token=tokens,
            embedding=self.encode_masks(features, prompts, logits) if named else None,
        )

    def encode_masks(self, features: ImageFeatures, prompts: RegionPrompts, logits: Array) -> Array:
        """Embeddings [batch, regions, dim], L2-normalised, of what masks show; `logits` and `prompts` are those of an
        answer of `segment`. A region whose mask is empty is read by its prompts."""
        resolution = min(64, logits.shape[-1])
        return self.encode_regions(features, segmenter.what_it_shows(logits, prompts, features.rectangle, resolution))

    def encode_text(self, tokens: Array) -> Array:
        """Embeddings of token ids [texts, length], [texts, dim], L2-normalised."""
        return self.text(tokens)

    def scale(self) -> Array:
        """Factor of the cosine in every softmax; training keeps it at 100 or below, as CLIP does."""
        return jnp.exp(self.logit_scale)
