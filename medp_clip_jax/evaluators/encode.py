"""Embeds a split once, so that every evaluator is plain numpy on the result.

Each image is read once; all its prompts of all kinds are asked of the kept features. `segmented` asks by the mask that
the model's own decoder makes of the box: one call segments and names. Reference rows need no prompt: `none` answers
every region with the global embedding of its image; `crop`, `blackout`, `blur` and `red_circle` encode a picture that
points at the region, made of the stored pixels at their full resolution, as one would without a promptable model.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from medp_clip_jax import prompt_kinds
from medp_clip_jax.augment import letterbox
from medp_clip_jax.eval_input import Change, EvalTable, eval_batches, eval_table
from medp_clip_jax.evaluators import prompt_record, region_views
from medp_clip_jax.models.clip import Images, MedPCLIP
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.records import decode_image, decode_mask
from medp_clip_jax.sharding import ambient_mesh, put_batch, replicated

SENTENCES = 256  # encoded at a time


@dataclasses.dataclass(frozen=True)
class Encoded:
    """L2-normalised embeddings of a split: `image` float32 [images, D] and, per kind, `regions` float32 [regions, D].

    `empty` float32 [images, D] is the region embedding of an empty prompt, None where it was not measured. `prompts`
    are what the regions were asked by, per kind that has prompts; in a job of several processes, those of this one.
    """

    table: EvalTable
    image: np.ndarray
    regions: dict[str, np.ndarray]
    empty: np.ndarray | None = None
    prompts: Mapping[str, prompt_record.Kept] = dataclasses.field(default_factory=dict)


def encode_corpus(model, params, corpus, split: str, config, kinds: Sequence[str]) -> Encoded:
    """Embeds all images and regions of `split` by prompts (mask, box, point, segmented) and references (none, crop).

    `model` is the public `Model` or the flax module: only its `config` is read. Raises InputError where `segmented` is
    asked of a model without a mask decoder.
    """
    table = eval_table(corpus, split, tuple(config.data.sources) or None)
    return encode_table(model, params, corpus, config, table, kinds)


def encode_table(
    model, params, corpus, config, table: EvalTable, kinds: Sequence[str], change: Change | None = None
) -> Encoded:
    """Like `encode_corpus`, of the images and regions of a table, by prompts that `change` has changed (see
    `eval_batches`)."""
    segmented = prompt_kinds.SEGMENTED in kinds
    prompted = tuple(kind for kind in prompt_kinds.EXACT if kind in kinds or (segmented and kind == "box"))
    width = config.model.embed
    image = np.zeros((len(table.images), width), np.float32)
    empty = np.zeros_like(image)
    answered = (*prompted, prompt_kinds.SEGMENTED) if segmented else prompted
    regions = {kind: np.zeros((len(table.label), width), np.float32) for kind in answered}
    asked: dict[str, prompt_record.Kept] = {kind: {} for kind in prompted}
    read, _, _ = _functions(model)
    for batch in eval_batches(
        corpus, table, config, prompted, _batch_size(config), jax.process_index(), jax.process_count(), change
    ):
        own = np.split(batch["region_row"], jax.process_count())[jax.process_index()]
        for kind, prompts in batch["prompts"].items():
            prompt_record.keep(asked[kind], prompts, own, len(table.label))
        inputs = _place((batch["image"], batch["rectangle"], batch["prompts"]))
        seen, nothing, answers = jax.device_get(read(params, *inputs, segmented=segmented))
        rows, region_rows = batch["image_row"], batch["region_row"]
        image[rows[rows >= 0]] = seen[rows >= 0]
        empty[rows[rows >= 0]] = nothing[rows >= 0]
        for kind in answered:
            regions[kind][region_rows[region_rows >= 0]] = answers[kind][region_rows >= 0]
    if "none" in kinds:
        regions["none"] = image[table.image_index]
    for kind in (kind for kind in prompt_kinds.SHOWN if kind in kinds):
        regions[kind] = encode_views(model, params, corpus, config, table, kind)
    if segmented:
        asked[prompt_kinds.SEGMENTED] = asked["box"]
    return Encoded(
        table,
        image,
        {kind: regions[kind] for kind in kinds},
        empty,
        {kind: asked[kind] for kind in kinds if kind in asked},
    )


@functools.lru_cache(maxsize=4)  # keyed by the architecture, so that the evaluations of one run compile once
def _compiled(config: ml_collections.FrozenConfigDict, mesh: jax.sharding.Mesh | None):
    """(read, encode_image, encode_text) of a model: functions of params and arrays, compiled per shape.

    On a mesh their results are on every device, so that every process can read them.
    """
    apply = MedPCLIP(config).apply
    jit = functools.partial(jax.jit, out_shardings=replicated(mesh)) if mesh else jax.jit

    @jit
    def encode_image(params, pixels, rectangle):
        return apply({"params": params}, Images(pixels, rectangle), method="encode_image").embedding

    @jit
    def encode_text(params, tokens):
        return apply({"params": params}, tokens, method="encode_text")

    @functools.partial(jit, static_argnames="segmented")
    def read(params, pixels, rectangle, prompts, *, segmented):
        variables = {"params": params}
        features = apply(variables, Images(pixels, rectangle), method="encode_image")
        kinds = list(prompts)
        first = prompts[kinds[0]] if kinds else RegionPrompts.none(len(pixels))
        # All kinds and one empty prompt are regions of one question: regions do not see each other.
        together = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *prompts.values(), _emptied(first))
        answers = apply(variables, features, together, method="encode_regions")
        each = first.valid.shape[1]
        by_kind = {kind: answers[:, i * each : (i + 1) * each] for i, kind in enumerate(kinds)}
        if segmented:
            by_kind[prompt_kinds.SEGMENTED] = apply(variables, features, prompts["box"], method="segment").embedding
        return features.embedding, answers[:, -1], by_kind

    return read, encode_image, encode_text


def _emptied(prompts: RegionPrompts) -> RegionPrompts:
    """The first region of each image without its prompt: its flags are taken away, its values stay."""
    first = jax.tree.map(lambda x: jnp.asarray(x)[:, :1], prompts)
    unset = jnp.zeros_like(first.valid)
    return first.replace(
        point_labels=jnp.full_like(first.point_labels, -1), box_valid=unset, mask_valid=unset, valid=~unset
    )


def _functions(model):
    return _compiled(ml_collections.FrozenConfigDict(model.config), ambient_mesh())


def _batch_size(config) -> int:
    """`config.eval.batch_size`, raised to a multiple of the devices."""
    devices = mesh.size if (mesh := ambient_mesh()) else 1
    return -(-config.eval.batch_size // devices) * devices


def _place(batch):
    """This process's part of a batch on the devices of the ambient mesh."""
    mesh = ambient_mesh()
    return put_batch(batch, mesh) if mesh else batch


def encode_views(model, params, corpus, config, table: EvalTable, kind: str) -> np.ndarray:
    """Global embeddings float32 [regions, D] of a picture of each region, see `region_views.show`."""
    canvas, size, count = config.model.image.size, _batch_size(config), len(table.label)
    part = size // jax.process_count()
    result = np.zeros((count, config.model.embed), np.float32)
    _, encode, _ = _functions(model)
    readers = {name: corpus.source(name, table.split) for name, _ in table.records}
    shown, example, image = -1, None, None
    for start in range(0, count, size):
        pixels = np.zeros((part, canvas, canvas, 3), np.uint8)
        rectangle = np.tile(np.float32([0, 0, 1, 1]), (part, 1))
        first = start + part * jax.process_index()
        for slot, row in enumerate(range(first, min(first + part, count))):
            if table.image_index[row] != shown:  # the regions of one image follow each other
                shown = table.image_index[row]
                name, record = table.records[shown]
                example = readers[name][record]  # once: a changed corpus makes it anew each time
                image = decode_image(example.image)
            mask = None
            if kind in ("blackout", "blur") and table.has_mask[row]:
                mask = decode_mask(example.regions[table.region_index[row]].rle, example.height, example.width)
            picture, view = region_views.show(kind, image, table.box[row], mask, config.model.prompt.margin)
            pixels[slot], rectangle[slot] = letterbox(picture, canvas, view)
        seen = jax.device_get(encode(params, *_place((pixels, rectangle))))
        result[start : start + size] = seen[: count - start]
    return result


def encode_labels(model, params, tokenizer, ontology: Ontology, ids: Sequence[str], context: int) -> np.ndarray:
    """One embedding per label, float32 [labels, D]: all its sentences are encoded, normalised, averaged and normalised.

    Sentences are cut to `context` tokens, as in training.
    """
    sentences = [ontology.sentences(label) for label in ids]
    texts = [sentence for group in sentences for sentence in group]
    embedded = encode_texts(model, params, tokenizer, texts, context)
    means, start = [], 0
    for group in sentences:
        means.append(embedded[start : start + len(group)].mean(0))
        start += len(group)
    means = np.stack(means) if means else np.zeros((0, embedded.shape[-1]), np.float32)
    return (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def encode_texts(model, params, tokenizer, texts: Sequence[str], context: int) -> np.ndarray:
    """L2-normalised text embeddings float32 [texts, D]; static shapes: the last batch is padded with its first text."""
    _, _, encode = _functions(model)
    result = []
    for start in range(0, len(texts), SENTENCES):
        some = list(texts[start : start + SENTENCES])
        size = SENTENCES if len(texts) > SENTENCES else len(texts)
        tokens = tokenizer(some + [some[0]] * (size - len(some)), context)
        result.append(np.asarray(jax.device_get(encode(params, tokens)), np.float32)[: len(some)])
    return np.concatenate(result) if result else np.zeros((0, 1), np.float32)
