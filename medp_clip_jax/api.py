"""The model as others use it: load a run, read images, ask about regions, compare with texts."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from medp_clip_jax.checkpoint import load_params
from medp_clip_jax.config import load_config
from medp_clip_jax.errors import InputError
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.segmenter import Segmentation
from medp_clip_jax.models.vit import ImageFeatures, Images
from medp_clip_jax.processor import Processor
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import init_params
from medp_clip_jax.tokenizer import load_tokenizer

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Model:
    """The functions of one architecture; `config` is the model section of a configuration.

    Parameters are a plain nested dict that every method takes as its first argument: the model itself holds no state.
    The methods are compiled per shape, and can be used inside `jax.jit`, `jax.grad` and the like.
    """

    config: ml_collections.FrozenConfigDict

    def __post_init__(self) -> None:
        # Frozen, so that models are equal when their configurations are, and what one has compiled serves the other.
        object.__setattr__(self, "config", ml_collections.FrozenConfigDict(self.config))

    @functools.cached_property
    def module(self) -> MedPCLIP:
        """The Flax module behind the methods, for training and for other entry points."""
        return MedPCLIP(self.config)

    @functools.partial(jax.jit, static_argnums=0)
    def encode_image(self, params: Any, images: Images | Array) -> ImageFeatures:
        """Reads images once: `Images`, or pixels [batch, size, size, 3], uint8 or float in [0, 1], filling the canvas.

        `.embedding` [batch, dim] is the global view, L2-normalised; `.patches` [batch, patches, width] and the keys and
        values of every block are kept for `encode_regions`. Raises ValueError if the patch size does not divide `size`.
        """
        return self._apply("encode_image", params, images)

    @functools.partial(jax.jit, static_argnums=0)
    def encode_regions(self, params: Any, features: ImageFeatures, prompts: RegionPrompts) -> Array:
        """Embeddings of prompted regions, [batch, regions, dim], L2-normalised, in the space of images and texts.

        Costs a few tokens per region, no image pass. A region without any prompt gets the global embedding.
        """
        return self._apply("encode_regions", params, features, prompts)

    @functools.partial(jax.jit, static_argnums=0)
    def segment(
        self, params: Any, features: ImageFeatures, prompts: RegionPrompts, previous: Array | None = None
    ) -> Segmentation:
        """Masks of prompted regions: logits [batch, regions, size, size] over the canvas, expected IoU, presence, and
        the region embedding re-read from each mask, so that one call segments and names.

        `previous` are the `.logits` of an earlier answer about the same regions, which further clicks correct. Raises
        InputError where the model has no mask decoder (`config.model.segmenter`).
        """
        return self._apply("segment", params, features, prompts, previous)

    @functools.partial(jax.jit, static_argnums=0)
    def encode_text(self, params: Any, tokens: Array) -> Array:
        """Embeddings [texts, dim], L2-normalised, of token ids [texts, length] from `processor.tokens`."""
        return self._apply("encode_text", params, tokens)

    def _apply(self, method: str, params: Any, *inputs: Any) -> Any:
        return self.module.apply({"params": params}, *inputs, method=method)

    def parameter_shapes(self) -> Any:
        """Shapes and dtypes of the parameters, without computing any: the template a checkpoint is read into."""
        return jax.eval_shape(functools.partial(init_params, self.module, 0))


def load(run: str | os.PathLike, step: int | None = None) -> tuple[Model, Any, Processor]:
    """Loads what a training run wrote: (model, params, processor), the parameters float32 on the first device.

    `run` is the run's directory (config.json, tokenizer.json, checkpoints/); `step` picks a checkpoint (the newest).

    Raises:
      InputError: no such directory, a file is absent or damaged, or the checkpoint is of another architecture.
    """
    directory = Path(run)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected the workdir of a training run")
    config = load_config(directory / "config.json")
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    model = Model(config.model)
    if tokenizer.vocab_size != config.model.text.vocab:
        raise InputError(
            f"{directory}/tokenizer.json: {tokenizer.vocab_size} tokens, but config.json says "
            f"{config.model.text.vocab}; restore both files of one run"
        )
    # Explicitly placed: without it Orbax would look for the devices the run was trained on.
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), model.parameter_shapes())
    params = load_params(directory, template, step)
    return model, params, Processor(config.model.image.size, tokenizer, config.model.text.context)


def classify(regions: Array | np.ndarray, text: Array | np.ndarray, params: Any) -> Array:
    """Probabilities over texts, [..., texts]: softmax of the cosines of embeddings [..., dim] and [texts, dim], both
    L2-normalised, times the learned scale in `params`."""
    scale = jnp.exp(params["logit_scale"])
    return jax.nn.softmax(scale * jnp.asarray(regions, jnp.float32) @ jnp.asarray(text, jnp.float32).T)
