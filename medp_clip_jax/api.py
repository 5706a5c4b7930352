"""The model as others use it: load a run or a release, read images, ask about regions, compare with texts."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from medp_clip_jax import release
from medp_clip_jax.checkpoint import load_params
from medp_clip_jax.config import load_config, validate
from medp_clip_jax.errors import InputError
from medp_clip_jax.hub import locate
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
    def embed(
        self, params: Any, images: Images | Array, prompts: RegionPrompts | None = None
    ) -> tuple[Array, Array | None]:
        """Embeddings of images [batch, dim] and of their regions [batch, regions, dim] in one pass that keeps nothing.

        Those of `encode_image` and `encode_regions`, for less, where nothing else will be asked about the images.
        Regions are None without prompts. Raises what `encode_image` does.
        """
        return self._apply("embed", params, images, prompts)

    @functools.partial(jax.jit, static_argnums=(0, 5))
    def segment(
        self,
        params: Any,
        features: ImageFeatures,
        prompts: RegionPrompts,
        previous: Segmentation | None = None,
        named: bool = True,
    ) -> Segmentation:
        """Masks of prompted regions: logits [batch, regions, size, size] over the canvas, expected IoU, presence, and
        the region embedding re-read from each mask, so that one call segments and names.

        `previous` is an earlier answer about the same regions, which prompts with further clicks correct. Without
        `named` there is no embedding yet (see `encode_masks`), and a correction costs the decoder alone. Raises
        InputError where the model has no mask decoder (`config.model.segmenter`).
        """
        return self._apply("segment", params, features, prompts, previous, named)

    @functools.partial(jax.jit, static_argnums=0)
    def encode_masks(self, params: Any, features: ImageFeatures, prompts: RegionPrompts, logits: Array) -> Array:
        """Embeddings [batch, regions, dim], L2-normalised, of what masks show: the `.logits` of an answer of `segment`
        without `named`, and the prompts that led to it."""
        return self._apply("encode_masks", params, features, prompts, logits)

    @functools.partial(jax.jit, static_argnums=0)
    def encode_text(self, params: Any, tokens: Array) -> Array:
        """Embeddings [texts, dim], L2-normalised, of token ids [texts, length] from `processor.tokens`."""
        return self._apply("encode_text", params, tokens)

    def _apply(self, method: str, params: Any, *inputs: Any) -> Any:
        return self.module.apply({"params": params}, *inputs, method=method)

    def parameter_shapes(self) -> Any:
        """Shapes and dtypes of the parameters, without computing any: the template a checkpoint is read into."""
        return jax.eval_shape(functools.partial(init_params, self.module, 0))


def load(
    source: str | os.PathLike, step: int | None = None, *, revision: str | None = None, dtype: Any = None
) -> tuple[Model, Any, Processor]:
    """Loads a trained model: (model, params, processor), the parameters on the first device.

    Args:
      source: the directory of a run, the folder of a release, the name of one that this package brings, or the name
        `owner/model` of a release on the Hugging Face Hub, which is fetched once and then read from the cache; offline
        mode (`HF_HUB_OFFLINE=1`) is honoured.
      step: which checkpoint of a run (the newest).
      revision: of a name on the Hub: a commit, tag or branch.
      dtype: float type of the parameters; as stored if None, which is float32 but in releases made with bfloat16.

    Raises:
      InputError: there is no such model, a file is absent, damaged or not the one its checksum describes, values are
        not finite, or the weights or tokenizer are of another architecture than config.json.
    """
    directory = locate(source if isinstance(source, str) else Path(source), revision)
    released = release.is_release(directory)
    if released and step is not None:
        raise InputError(f"{directory}: a release, which holds one set of weights; leave the step {step} out")
    sums = release.read_sums(directory) if released else None
    if sums is not None:
        release.verify(directory, sums)
    config = load_config(directory / "config.json")
    if sums is not None:
        _check(config, directory)
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    model = Model(config.model)
    tokenizer.check_table(config.model.text.vocab, f"{directory}/tokenizer.json")
    mode = release.read_mode(directory)
    processor = Processor(config.model.image.size, tokenizer, config.model.text.context, mode)
    shapes = model.parameter_shapes()
    if released:
        return model, release.read_release(directory, shapes, sums, dtype), processor
    # Explicitly placed: without it Orbax would look for the devices the run was trained on.
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=device), shapes)
    return model, load_params(directory, template, step), processor


def _check(config: ml_collections.ConfigDict, directory: Path) -> None:
    """Raises InputError for a release of a model that this version would compute otherwise, or not at all."""
    config.workdir = str(directory)  # which no release has, and every configuration needs
    try:
        validate(config)
    except InputError as error:
        raise InputError(f"{directory}/config.json: {error}; a newer version of medp-clip-jax may know it") from error


def classify(regions: Array | np.ndarray, text: Array | np.ndarray, params: Any) -> Array:
    """Probabilities over texts, [..., texts]: softmax of the cosines of embeddings [..., dim] and [texts, dim], both
    L2-normalised, times the learned scale in `params`."""
    scale = jnp.exp(params["logit_scale"])
    return jax.nn.softmax(scale * jnp.asarray(regions, jnp.float32) @ jnp.asarray(text, jnp.float32).T)
