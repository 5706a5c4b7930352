"""How other libraries name and lay out the tensors of our parameters: one table per layout, used in both directions.

A row is (our path, layout, their names). In a name `{}` stands for the block: such tensors are stacked. Layouts say how
theirs become ours: `same`; `T`, a matrix transposed; `conv`, [out, in, y, x] to [y, x, in, out]; `rank3`, leading axes
of 1 dropped; `scalar` and `one`, of shape [] and [1]; `join` and `joinT`, query, key and value put together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from medp_clip_jax.errors import InputError

Row = tuple[str, str, tuple[str, ...]]
NORM = (("scale", "same", "weight"), ("bias", "same", "bias"))
DENSE = (("kernel", "T", "weight"), ("bias", "same", "bias"))


def _rows(parts: Sequence[tuple[str, str, str]], ours: str, theirs: str) -> list[Row]:
    return [(f"{ours}/{mine}", layout, (f"{theirs}.{name}",)) for mine, layout, name in parts]


def _attention(ours: str, projections: tuple[str, ...], out: str, whole: bool = False) -> list[Row]:
    """`whole`: query, key and value are one tensor in the style of torch's MultiheadAttention."""
    kernels, biases = ("_weight", "_bias") if whole else (".weight", ".bias")
    return [
        (f"{ours}/in_proj_kernel", "joinT", tuple(f"{name}{kernels}" for name in projections)),
        (f"{ours}/in_proj_bias", "join", tuple(f"{name}{biases}" for name in projections)),
        *_rows(DENSE, f"{ours}/out_proj", out),
    ]


def _blocks(ours: str, theirs: str, names: dict[str, str | tuple[str, ...]], whole: bool = False) -> list[Row]:
    """The parts of a block; `names` has theirs for in, out, ln_1, ln_2, c_fc and c_proj."""
    projections = tuple(f"{theirs}.{name}" for name in names["in"])
    rows = _attention(f"{ours}/attn", projections, f"{theirs}.{names['out']}", whole)
    for name in ("ln_1", "ln_2"):
        rows += _rows(NORM, f"{ours}/{name}", f"{theirs}.{names[name]}")
    for name in ("c_fc", "c_proj"):
        rows += _rows(DENSE, f"{ours}/mlp/{name}", f"{theirs}.{names[name]}")
    return rows


OPENAI = dict(
    {"in": ("attn.in_proj",)}, out="attn.out_proj", ln_1="ln_1", ln_2="ln_2", c_fc="mlp.c_fc", c_proj="mlp.c_proj"
)
TIMM = dict({"in": ("attn.qkv",)}, out="attn.proj", ln_1="norm1", ln_2="norm2", c_fc="mlp.fc1", c_proj="mlp.fc2")
HUGGING_FACE = dict(
    {"in": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")},
    out="self_attn.out_proj",
    ln_1="layer_norm1",
    ln_2="layer_norm2",
    c_fc="mlp.fc1",
    c_proj="mlp.fc2",
)
BERT = dict(
    {"in": ("attention.self.query", "attention.self.key", "attention.self.value")},
    out="attention.output.dense",
    ln_1="attention.output.LayerNorm",
    ln_2="output.LayerNorm",
    c_fc="intermediate.dense",
    c_proj="output.dense",
)


def open_clip_image(prefix: str) -> list[Row]:
    """OpenAI's and open_clip's own ViT."""
    return [
        ("visual/conv1", "conv", (f"{prefix}conv1.weight",)),
        ("visual/class_embedding", "same", (f"{prefix}class_embedding",)),
        ("visual/positional_embedding", "same", (f"{prefix}positional_embedding",)),
        *_rows(NORM, "visual/ln_pre", f"{prefix}ln_pre"),
        *_blocks("visual/resblocks", f"{prefix}transformer.resblocks.{{}}", OPENAI, True),
        *_rows(NORM, "visual/ln_post", f"{prefix}ln_post"),
        ("visual/proj", "same", (f"{prefix}proj",)),
    ]


def open_clip_text(prefix: str) -> list[Row]:
    """OpenAI's and open_clip's own text transformer; with a bias in the projection it is a SigLIP's."""
    return [
        ("text/token_embedding", "same", (f"{prefix}token_embedding.weight",)),
        ("text/positional_embedding", "same", (f"{prefix}positional_embedding",)),
        *_blocks("text/resblocks", f"{prefix}transformer.resblocks.{{}}", OPENAI, True),
        *_rows(NORM, "text/ln_final", f"{prefix}ln_final"),
        ("text/text_projection", "same", (f"{prefix}text_projection",)),
    ]


def open_clip_siglip_text(prefix: str) -> list[Row]:
    """The same with a linear layer as projection."""
    return [
        *open_clip_text(prefix)[:-1],
        ("text/text_projection", "T", (f"{prefix}text_projection.weight",)),
        ("text/text_projection_bias", "same", (f"{prefix}text_projection.bias",)),
    ]


def timm_image(prefix: str) -> list[Row]:
    """timm's ViT in open_clip's wrapper; rows of the pooling head or of [CLS] apply as the tower has them."""
    trunk = f"{prefix}trunk."
    return [
        ("visual/conv1", "conv", (f"{trunk}patch_embed.proj.weight",)),
        ("visual/conv1_bias", "same", (f"{trunk}patch_embed.proj.bias",)),
        ("visual/class_embedding", "rank3", (f"{trunk}cls_token",)),
        ("visual/positional_embedding", "rank3", (f"{trunk}pos_embed",)),
        *_blocks("visual/resblocks", f"{trunk}blocks.{{}}", TIMM),
        *_rows(NORM, "visual/ln_post", f"{trunk}norm"),
        ("visual/attn_pool/probe", "rank3", (f"{trunk}attn_pool.latent",)),
        *_attention("visual/attn_pool/attn", (f"{trunk}attn_pool.q", f"{trunk}attn_pool.kv"), f"{trunk}attn_pool.proj"),
        *_rows(NORM, "visual/attn_pool/ln", f"{trunk}attn_pool.norm"),
        *_rows(DENSE, "visual/attn_pool/mlp/c_fc", f"{trunk}attn_pool.mlp.fc1"),
        *_rows(DENSE, "visual/attn_pool/mlp/c_proj", f"{trunk}attn_pool.mlp.fc2"),
        ("visual/proj", "T", (f"{prefix}head.proj.weight",)),
    ]


def hf_clip_image(prefix: str) -> list[Row]:
    """transformers' CLIPVisionModel; the misspelt name is theirs."""
    return [
        ("visual/conv1", "conv", (f"{prefix}embeddings.patch_embedding.weight",)),
        ("visual/class_embedding", "same", (f"{prefix}embeddings.class_embedding",)),
        ("visual/positional_embedding", "same", (f"{prefix}embeddings.position_embedding.weight",)),
        *_rows(NORM, "visual/ln_pre", f"{prefix}pre_layrnorm"),
        *_blocks("visual/resblocks", f"{prefix}encoder.layers.{{}}", HUGGING_FACE),
        *_rows(NORM, "visual/ln_post", f"{prefix}post_layernorm"),
        ("visual/proj", "T", ("visual_projection.weight",)),
    ]


def hf_siglip_image(prefix: str) -> list[Row]:
    """transformers' SiglipVisionModel."""
    head = f"{prefix}head"
    return [
        ("visual/conv1", "conv", (f"{prefix}embeddings.patch_embedding.weight",)),
        ("visual/conv1_bias", "same", (f"{prefix}embeddings.patch_embedding.bias",)),
        ("visual/positional_embedding", "same", (f"{prefix}embeddings.position_embedding.weight",)),
        *_blocks("visual/resblocks", f"{prefix}encoder.layers.{{}}", HUGGING_FACE),
        *_rows(NORM, "visual/ln_post", f"{prefix}post_layernorm"),
        ("visual/attn_pool/probe", "rank3", (f"{head}.probe",)),
        *_attention("visual/attn_pool/attn", (f"{head}.attention.in_proj",), f"{head}.attention.out_proj", True),
        *_rows(NORM, "visual/attn_pool/ln", f"{head}.layernorm"),
        *_rows(DENSE, "visual/attn_pool/mlp/c_fc", f"{head}.mlp.fc1"),
        *_rows(DENSE, "visual/attn_pool/mlp/c_proj", f"{head}.mlp.fc2"),
    ]


def hf_text(prefix: str) -> list[Row]:
    """What the text towers of transformers' CLIP and SigLIP share."""
    return [
        ("text/token_embedding", "same", (f"{prefix}embeddings.token_embedding.weight",)),
        ("text/positional_embedding", "same", (f"{prefix}embeddings.position_embedding.weight",)),
        *_blocks("text/resblocks", f"{prefix}encoder.layers.{{}}", HUGGING_FACE),
        *_rows(NORM, "text/ln_final", f"{prefix}final_layer_norm"),
    ]


def hf_clip_text(prefix: str) -> list[Row]:
    """transformers' CLIPTextModel."""
    return [*hf_text(prefix), ("text/text_projection", "T", ("text_projection.weight",))]


def hf_siglip_text(prefix: str) -> list[Row]:
    """transformers' SiglipTextModel."""
    head = [
        ("text/text_projection", "T", (f"{prefix}head.weight",)),
        ("text/text_projection_bias", "same", (f"{prefix}head.bias",)),
    ]
    return [*hf_text(prefix), *head]


def bert_text(prefix: str) -> list[Row]:
    """transformers' BertModel, alone or wrapped by open_clip (with `transformer.` in the prefix and a `proj`)."""
    wrapper = prefix.removesuffix("transformer.")
    return [
        ("text/token_embedding", "same", (f"{prefix}embeddings.word_embeddings.weight",)),
        ("text/positional_embedding", "same", (f"{prefix}embeddings.position_embeddings.weight",)),
        ("text/token_type_embedding", "same", (f"{prefix}embeddings.token_type_embeddings.weight",)),
        *_rows(NORM, "text/ln_pre", f"{prefix}embeddings.LayerNorm"),
        *_blocks("text/resblocks", f"{prefix}encoder.layer.{{}}", BERT),
        ("text/text_projection", "T", (f"{wrapper}proj.weight",)),
        ("text/text_projection_1", "T", (f"{wrapper}proj.0.weight",)),
        ("text/text_projection_2", "T", (f"{wrapper}proj.2.weight",)),
    ]


def scales(layout: str, bias: bool) -> list[Row]:
    """The factor of the cosine and, of SigLIPs, the sigmoid's bias."""
    rows = [("logit_scale", layout, ("logit_scale",))]
    return [*rows, ("logit_bias", layout, ("logit_bias",))] if bias else rows


FORMATS: dict[str, list[Row]] = {
    "open_clip": [*open_clip_image("visual."), *open_clip_text(""), *scales("scalar", False)],
    "open_clip_custom": [*open_clip_image("visual."), *open_clip_text("text."), *scales("scalar", False)],
    "open_clip_siglip": [*timm_image("visual."), *open_clip_siglip_text("text."), *scales("scalar", True)],
    "biomedclip": [*timm_image("visual."), *bert_text("text.transformer."), *scales("scalar", False)],
    "unimed_clip": [*open_clip_image("visual."), *bert_text("text_encoder.transformer."), *scales("scalar", False)],
    "hf_clip": [*hf_clip_image("vision_model."), *hf_clip_text("text_model."), *scales("scalar", False)],
    "hf_siglip": [*hf_siglip_image("vision_model."), *hf_siglip_text("text_model."), *scales("one", True)],
    "bert": bert_text(""),
    "bert_wrapped": bert_text("bert."),
}
# Two tensors of each format that no other format has together; the first format that fits is it.
MARKS: dict[str, tuple[str, str]] = {
    "open_clip": ("visual.conv1.weight", "token_embedding.weight"),
    "open_clip_custom": ("visual.conv1.weight", "text.token_embedding.weight"),
    "open_clip_siglip": ("visual.trunk.attn_pool.latent", "text.token_embedding.weight"),
    "biomedclip": ("visual.trunk.cls_token", "text.transformer.embeddings.word_embeddings.weight"),
    "unimed_clip": ("visual.conv1.weight", "text_encoder.transformer.embeddings.word_embeddings.weight"),
    "hf_clip": ("vision_model.embeddings.class_embedding", "text_model.embeddings.token_embedding.weight"),
    "hf_siglip": ("vision_model.head.probe", "text_model.embeddings.token_embedding.weight"),
    "bert": ("embeddings.word_embeddings.weight", "embeddings.token_type_embeddings.weight"),
    "bert_wrapped": ("bert.embeddings.word_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"),
}


def read(layout: str, tensors: list[np.ndarray]) -> np.ndarray:
    """Ours from theirs, of one block where there are several."""
    first = tensors[0]
    if layout in ("join", "joinT"):
        first = np.concatenate(tensors)
    if layout in ("T", "joinT"):
        return first.T
    if layout == "conv":
        return first.transpose(2, 3, 1, 0)
    if layout in ("rank3", "scalar", "one"):
        return first.reshape([side for side in first.shape if side != 1] if layout == "rank3" else ())
    return first


def write(layout: str, ours: np.ndarray, count: int) -> list[np.ndarray]:
    """Theirs, `count` tensors, from ours: the inverse of `read`."""
    if layout in ("T", "joinT"):
        ours = ours.T
    if layout in ("join", "joinT") and count > 1:
        width = len(ours) // 3  # query, key, value; or query, then key and value in one
        return np.split(ours, [width, 2 * width][: count - 1])
    if layout == "conv":
        ours = ours.transpose(3, 2, 0, 1)
    if layout == "rank3":
        ours = ours.reshape((1,) * (3 - ours.ndim) + ours.shape)
    return [ours.reshape(1) if layout == "one" else ours]


def rows_of(format_name: str, paths: Any) -> list[Row]:
    """A format's rows for the parameters that a model has, by path; InputError where it has no place for a tower's."""
    rows = [row for row in FORMATS[format_name] if row[0] in paths]
    covered = {row[0] for row in rows}
    towers = {path for path in paths if path.split("/")[0] in ("visual", "text")}
    if format_name.startswith("bert"):
        towers = {path for path in towers if path.startswith("text/")}
    missing = sorted(towers - covered)
    if missing:
        raise InputError(f"{format_name}: has no place for {missing[0]}; expected another architecture or format")
    return rows
