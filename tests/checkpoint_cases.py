"""Tiny checkpoints in the formats of other libraries, with the settings and tokenizers that come beside them."""

import functools
import json
import pathlib

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import models, normalizers, pre_tokenizers

from configs import common
from medp_clip_jax import convert
from medp_clip_jax.initial import parameter_shapes
from medp_clip_jax.tokenizer import END, START

FORMATS = (
    "open_clip",
    "open_clip_custom",
    "open_clip_siglip",
    "biomedclip",
    "unimed_clip",
    "hf_clip",
    "hf_siglip",
    "bert",
)
SIGLIPS = ("open_clip_siglip", "hf_siglip")
BERTS = ("biomedclip", "unimed_clip", "bert")
VOCAB = {"clip": 514, "bert": 300, "siglip": 300}


def config_of(name: str):
    """The configuration that an import of the format's checkpoint has to find."""
    config = common.get_config()
    model = config.model
    model.image.update(size=32, patch=16, width=64, depth=2, heads=1)
    model.text.update(context=12, vocab=VOCAB["clip"], width=64, depth=2, heads=1)
    model.embed = 16
    if name in SIGLIPS or name == "biomedclip":
        model.image.update(pre_norm=False, patch_bias=True)
        model.norm_eps = 1e-6
        model.activation = "gelu"
    if name in SIGLIPS:
        model.image.update(pool="map", projection=False)
        model.text.update(pool="last", projection="bias", pad=1, vocab=VOCAB["siglip"], activation="gelu_tanh")
        model.activation = "gelu_tanh" if name == "hf_siglip" else "gelu"
        model.embed = 64
        model.update(mean=(0.5,) * 3, std=(0.5,) * 3)
        config.loss.image_text_kind = "sigmoid"
    if name in BERTS:
        model.text.update(tower="bert", pool="cls", projection="mlp", vocab=VOCAB["bert"], positions=20)
    if name == "bert":
        model.text.update(pool="mean", projection="none")
        model.embed = 64
    return config


@functools.cache
def parameters(name: str) -> dict[str, np.ndarray]:
    """Random parameters by path, of the towers that the format has."""
    rng = np.random.default_rng(5)
    shapes = parameter_shapes(config_of(name))
    tower = {path: leaf.shape for path, leaf in shapes.items() if path.startswith(("visual/", "text/"))}
    if name == "bert":
        return {path: _draw(rng, shape) for path, shape in tower.items() if path.startswith("text/")}
    drawn = {path: _draw(rng, shape) for path, shape in tower.items()} | {"logit_scale": np.float32(2.5).reshape(())}
    return drawn | ({"logit_bias": np.float32(-9.5).reshape(())} if name in SIGLIPS else {})


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (0.2 * rng.standard_normal(shape)).astype(np.float32)


def tensors(name: str) -> dict[str, np.ndarray]:
    return convert.export_tensors(config_of(name), parameters(name), name)


def write_source(folder: pathlib.Path, name: str, change=lambda found: found, tokenizer: bool = True) -> pathlib.Path:
    """A folder as the format's library leaves it, its tensors put through `change`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = "model.safetensors" if name.startswith(("hf", "bert")) else "open_clip_model.safetensors"
    found = change({key: np.ascontiguousarray(x).reshape(x.shape) for key, x in tensors(name).items()})
    save_file(found, str(folder / file))
    settings = _settings(name)
    (folder / ("open_clip_config.json" if "model_cfg" in settings else "config.json")).write_text(json.dumps(settings))
    if name == "bert":
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    if tokenizer:
        kind = "bert" if name in BERTS else "siglip" if name in SIGLIPS else "clip"
        tokenizer_of(kind).save(str(folder / "tokenizer.json"))
    return folder


def _settings(name: str) -> dict:
    one = {"num_attention_heads": 1}
    if name == "hf_clip":
        return {"model_type": "clip", "vision_config": one, "text_config": one}
    if name == "hf_siglip":
        return {"model_type": "siglip", "vision_config": one, "text_config": one}
    if name == "bert":
        return {"model_type": "bert", **one}
    vision = {"width": 64, "layers": 2, "patch_size": 16, "image_size": 32, "head_width": 64}
    text = {"context_length": 12, "width": 64, "heads": 1, "layers": 2}
    made = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    if name in ("biomedclip", "open_clip_siglip"):
        pool = {"biomedclip": "", "open_clip_siglip": "map"}[name]
        made |= {"quick_gelu": False, "vision_cfg": {"timm_model_name": "vit_base_patch16_224", "timm_pool": pool}}
    if name == "open_clip_siglip":
        norm = {"norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}}
        made["text_cfg"] = {**text, "pool_type": "last", "no_causal_mask": True, "proj_bias": True, **norm}
    if name in BERTS:
        made["text_cfg"] = {"hf_model_name": "bert", "hf_proj_type": "mlp", "context_length": 12}
    return {"model_cfg": made}


def tokenizer_of(kind: str) -> tokenizers.Tokenizer:
    """A tokenizer of a few letters in the layout of CLIP, BERT or SigLIP."""
    if kind == "clip":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = [*letters, *(letter + "</w>" for letter in letters), START, END]
        model = models.BPE({word: i for i, word in enumerate(words)}, [], unk_token=END, end_of_word_suffix="</w>")
        special = [START, END]
    elif kind == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        words = [*special, *"abcdefghijklmnopqrstuvwxyz", *("##" + letter for letter in "abcdefg")]
        model = models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    else:
        words = ["<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz ▁"]
        model, special = models.Unigram([(word, -1.0) for word in words], 0, False), ["</s>"]
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(special)
    return backend
