"""From a checkpoint's shapes and the settings beside it to the model section of our configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from configs import common
from medp_clip_jax.convert_tables import FORMATS, MARKS
from medp_clip_jax.errors import InputError
from medp_clip_jax.models import bert
from medp_clip_jax.weights import Weights, square

ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}  # transformers' names
HEADS = {1152: 16, 1280: 16, 1408: 16, 1536: 16, 1664: 16}  # by width, where a head is not 64 wide: H, g, bigG, so400m
# timm's SigLIP towers with the approximate GELU, as its model definitions have it; the others have the exact one.
TIMM_TANH = (
    "vit_base_patch32_siglip_256",
    "vit_large_patch16_siglip_512",
    "vit_so400m_patch16_siglip",
    "vit_giantopt_patch16_siglip",
)
SIGLIP_MEAN = (0.5, 0.5, 0.5)
KNOWN = {  # fields of open_clip's configurations whose meaning is followed here
    "": "embed_dim vision_cfg text_cfg quick_gelu custom_text init_logit_scale init_logit_bias",
    "vision_cfg": "image_size layers width head_width mlp_ratio patch_size patch_dropout timm_model_name timm_pool "
    "timm_model_pretrained timm_proj pool_type norm_kwargs act_kwargs",
    "text_cfg": "context_length vocab_size width heads layers mlp_ratio hf_model_name hf_tokenizer_name hf_proj_type "
    "hf_pooler_type hf_model_pretrained tokenizer_kwargs proj_bias pool_type no_causal_mask norm_kwargs act_kwargs",
}


def find_format(weights: Weights) -> str:
    """Name of the format whose marks the tensors bear; InputError for the weights of something else."""
    for name, marks in MARKS.items():
        if all(mark in weights for mark in marks):
            return name
    known = "an open_clip or OpenAI ViT, a CLIPModel, SiglipModel or BertModel of transformers, BiomedCLIP, UniMed-CLIP"
    raise InputError(f"{weights.origin}: tensors such as {next(iter(weights))} are not those of {known}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, {} where there is no file; InputError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); restore the file") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def settings(weights: Weights, name: str, source: Path, activation: str = "") -> ml_collections.ConfigDict:
    """A configuration whose model section describes the checkpoint; other sections are the defaults.

    Sizes come from the shapes, the rest from `config.json` (transformers) or `open_clip_config.json` beside them, and
    for a bare file from `activation` and the usual 64 channels per head.

    Raises:
      InputError: a setting is missing, has a value that our towers do not have, or contradicts the shapes.
    """
    config = common.get_config()
    model = config.model
    folder = source if source.is_dir() else source.parent
    _sizes(model, weights, name)
    theirs, open_clip = read_json(folder / "config.json"), read_json(folder / "open_clip_config.json")
    if source.is_file():
        theirs = open_clip = {}
    try:
        if name.startswith("bert"):
            _bert(model, folder, theirs)
        elif name.startswith("hf_"):
            _hugging_face(model, folder, theirs, name)
        else:
            _open_clip(model, open_clip, name, activation, source)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: settings of another kind than those of {name} ({error!r})") from None
    config.input.label_context = min(config.input.label_context, model.text.context)
    if name.endswith("siglip"):
        config.loss.image_text_kind = "sigmoid"
    for tower in (model.image, model.text):
        if tower.width % tower.heads:
            raise InputError(f"{source}: a width of {tower.width} does not divide into {tower.heads} heads")
    return config


def _sizes(model: Any, weights: Weights, name: str) -> None:
    """What the shapes say of both towers."""
    rows = {row[0]: row[2] for row in FORMATS[name]}

    def shape(path: str, rank: int = 2) -> tuple[int, ...]:
        found = weights.get(rows[path][0].format(0), ())
        if len(found) != rank:
            raise InputError(
                f"{weights.origin}: {rows[path][0].format(0)} has shape {list(found) or 'none'}, expected {rank} axes"
            )
        return found

    def has(path: str) -> bool:
        return path in rows and rows[path][0] in weights

    def tower(part: Any, ours: str) -> None:
        first = rows[f"{ours}/resblocks/ln_1/scale"][0]
        part.depth = next(i for i in range(len(weights) + 1) if first.format(i) not in weights)
        hidden = shape(f"{ours}/resblocks/mlp/c_fc/kernel")[0]
        exact = hidden % part.width == 0
        part.mlp_ratio = hidden / part.width if exact else (hidden + 0.5) / part.width  # the model rounds down
        part.heads = HEADS.get(part.width, max(part.width // 64, 1))

    text = model.text
    text.vocab, text.width = shape("text/token_embedding")
    text.positions = text.context = shape("text/positional_embedding")[0]
    tower(text, "text")
    kinds = {"bias": "text/text_projection_bias", "mlp": "text/text_projection_1", "linear": "text/text_projection"}
    text.projection = next((kind for kind, path in kinds.items() if has(path)), "none")
    if name.startswith("bert"):
        text.tower, text.pool, model.embed = "bert", "mean", text.width
        return
    if name.endswith("clip") and has("text/token_type_embedding"):
        text.tower, text.pool = "bert", "cls"

    image = model.image
    image.width, channels, image.patch, other = shape("visual/conv1", 4)
    if channels != 3 or other != image.patch:
        raise InputError(f"{weights.origin}: patches of {image.patch} x {other} x {channels}, expected square RGB ones")
    tower(image, "visual")
    image.pool = "cls" if has("visual/class_embedding") else "map"
    image.pre_norm, image.patch_bias = has("visual/ln_pre/scale"), has("visual/conv1_bias")
    image.projection = has("visual/proj")
    count = weights[rows["visual/positional_embedding"][0]][-2] - (image.pool == "cls")
    image.size = image.patch * square(count, f"{weights.origin}")
    model.embed = image.width if not image.projection else _joint(model, weights, rows)


def _joint(model: Any, weights: Weights, rows: Mapping[str, Any]) -> int:
    """Width of the joint space: the side of the image projection that is not the tower's width."""
    sides = list(weights[rows["visual/proj"][0]])
    if model.image.width in sides:
        sides.remove(model.image.width)
    return sides[0]


def _hugging_face(model: Any, folder: Path, theirs: Mapping[str, Any], name: str) -> None:
    kind = name.removeprefix("hf_")
    if theirs.get("model_type") != kind:
        got = theirs.get("model_type", "no config.json")
        raise InputError(f"{folder}: expected the config.json of a {kind} model beside its weights, got {got}")
    siglip = kind == "siglip"
    vision, text = theirs.get("vision_config") or {}, theirs.get("text_config") or {}
    # transformers leaves out what has its default; these are the defaults.
    default = "gelu_pytorch_tanh" if siglip else "quick_gelu"
    eps = 1e-6 if siglip else 1e-5
    model.activation = _activation(vision.get("hidden_act", default), folder)
    model.text.activation = _activation(text.get("hidden_act", default), folder)
    model.image.heads = vision.get("num_attention_heads", 12)
    model.text.heads = text.get("num_attention_heads", 12 if siglip else 8)
    _same_eps(model, vision.get("layer_norm_eps", eps), text.get("layer_norm_eps", eps), folder)
    model.text.pool = "last" if siglip else "end"
    model.text.pad = text.get("pad_token_id", 1) if siglip else 0
    seen = read_json(folder / "preprocessor_config.json")
    if siglip:
        model.mean = model.std = SIGLIP_MEAN
    _pixels(model, seen.get("image_mean"), seen.get("image_std"))


def _bert(model: Any, folder: Path, theirs: Mapping[str, Any]) -> None:
    if theirs.get("model_type") != "bert":
        got = theirs.get("model_type", "no config.json")
        raise InputError(f"{folder}: expected the config.json of a bert model beside its weights, got {got}")
    asked = {
        "hidden_act": (bert.ACTIVATION, "gelu"),
        "layer_norm_eps": (bert.EPS, 1e-12),
        "pad_token_id": (0, 0),
        "position_embedding_type": ("absolute", "absolute"),
        "is_decoder": (False, False),
    }
    for field, (ours, default) in asked.items():
        if theirs.get(field, default) != ours:
            raise InputError(f"{folder}: {field} is {theirs[field]!r}; the BERT tower has {ours!r}")
    model.text.heads = theirs.get("num_attention_heads", 12)
    length = read_json(folder / "sentence_bert_config.json").get("max_seq_length") or 256
    model.text.context = min(int(length), model.text.positions)
    pooling = read_json(folder / "1_Pooling" / "config.json")
    if pooling.get("pooling_mode_cls_token"):
        model.text.pool = "cls"
    elif pooling and not pooling.get("pooling_mode_mean_tokens"):
        raise InputError(
            f"{folder}: 1_Pooling/config.json pools neither [CLS] nor the mean; the BERT tower does only these"
        )


def _open_clip(model: Any, theirs: Mapping[str, Any], name: str, activation: str, source: Path) -> None:
    bare = not theirs
    given = theirs.get("model_cfg", {})
    vision, text = given.get("vision_cfg", {}), given.get("text_cfg", {})
    for part, section in (("", given), ("vision_cfg", vision), ("text_cfg", text)):
        for field, value in section.items():
            if field not in KNOWN[part].split() and value:
                raise InputError(f"{source}: {part} {field}={value!r} of open_clip is an architecture not known here")
    timm = "visual.trunk" in FORMATS[name][0][2][0]
    if bare and not timm and not activation:
        raise InputError(
            f"{source}: a bare file does not say its activation; pass --activation=quick_gelu (OpenAI's weights, "
            "MetaCLIP, DFN, UniMed-CLIP) or gelu (LAION's), or give a folder with open_clip_config.json"
        )
    plain = "quick_gelu" if given.get("quick_gelu") else "gelu"
    if timm:
        trunk = vision.get("timm_model_name", "")
        model.activation, eps = "gelu_tanh" if trunk.startswith(TIMM_TANH) else "gelu", 1e-6
        if vision.get("timm_pool", "") not in ("", "token", "map"):
            raise InputError(
                f"{source}: timm_pool={vision['timm_pool']!r}; expected [CLS] ('') or the pooling head (map)"
            )
    else:
        model.activation, eps = activation or plain, _eps(vision, 1e-5)
        if not bare:
            model.image.heads = model.image.width // vision.get("head_width", 64)
        if vision.get("pool_type", "tok") != "tok":
            raise InputError(f"{source}: pool_type={vision['pool_type']!r} of the image tower; expected 'tok'")
    if model.text.tower == "bert":
        model.text.context = min(text.get("context_length", 256), model.text.positions)
        if not bare and text.get("hf_pooler_type", "cls_last_hidden_state_pooler") != "cls_last_hidden_state_pooler":
            raise InputError(
                f"{source}: hf_pooler_type={text['hf_pooler_type']!r}; expected the last hidden state's [CLS]"
            )
        model.norm_eps = eps
    else:
        _open_clip_text(model, text, eps, source, activation or plain, name)
    siglip = name == "open_clip_siglip"
    seen = theirs.get("preprocess_cfg", {})
    if siglip:
        model.mean = model.std = SIGLIP_MEAN
    _pixels(model, seen.get("mean"), seen.get("std"))


def _open_clip_text(model: Any, text: Mapping[str, Any], eps: float, source: Path, plain: str, name: str) -> None:
    siglip = name == "open_clip_siglip"
    model.text.heads = text.get("heads", model.text.heads)
    pool = text.get("pool_type", "last" if siglip else "argmax")
    causal = not text.get("no_causal_mask", siglip)
    if (pool, causal) not in (("argmax", True), ("last", False)):
        raise InputError(f"{source}: a text tower with pool_type={pool!r} and {causal=}; expected CLIP's or SigLIP's")
    model.text.pool = "last" if pool == "last" else "end"
    if siglip:
        model.text.pad = 0 if model.text.vocab > 100_000 else 1  # of SigLIP 2's and of SigLIP's vocabulary
        plain = "gelu"
    tanh = text.get("act_kwargs", {}).get("approximate") == "tanh"
    model.text.activation = "gelu_tanh" if tanh else plain
    _same_eps(model, eps, _eps(text, 1e-6 if siglip and not text else 1e-5), source)


def _eps(section: Mapping[str, Any], default: float) -> float:
    return section.get("norm_kwargs", {}).get("eps", default)


def _same_eps(model: Any, image: float, text: float, source: Path) -> None:
    if image != text:
        raise InputError(
            f"{source}: layer norms with {image} in the image and {text} in the text tower; expected one value"
        )
    model.norm_eps = float(image)


def _activation(name: str, source: Path) -> str:
    if name not in ACTIVATIONS:
        raise InputError(f"{source}: activation {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _pixels(model: Any, mean: Any, std: Any) -> None:
    for field, value in (("mean", mean), ("std", std)):
        if value:
            model[field] = tuple(float(x) for x in value)
