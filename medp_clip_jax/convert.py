"""Weights of other libraries to ours and back.

    python -m medp_clip_jax.convert --source=FOLDER_OR_FILE.safetensors --output=imports/clip
    python -m medp_clip_jax.convert --source=imports/clip --to=hf_clip --output=clip.safetensors

The first writes a release (see `release`), from which training starts (`config.init`) and which `medp.load` reads; of a
text encoder alone it holds only the text tower. Formats are recognised by their tensors, see `convert_tables.FORMATS`.
PyTorch's own files are converted first, by `medp_clip_jax.convert_pytorch`.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from medp_clip_jax import canvas, release
from medp_clip_jax import convert_tables as tables
from medp_clip_jax.config import load_config
from medp_clip_jax.convert_settings import find_format, settings
from medp_clip_jax.convert_tokenizer import find_tokenizer
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.initial import complete, nested, parameter_shapes, resize_positions
from medp_clip_jax.processor import Processor
from medp_clip_jax.tokenizer import Tokenizer
from medp_clip_jax.weights import DTYPES, Weights, open_weights, write_weights

FLAGS = flags.FLAGS
# Tensors that say nothing: constants, sizes, and heads that no embedding passes through.
IGNORED = re.compile(
    r"(^|\.)position_ids$|^(input_resolution|context_length|vocab_size)$|(^|\.)attn_mask$"
    r"|^(bert\.|text\.transformer\.|text_encoder\.transformer\.)?pooler\.dense\.(weight|bias)$|^cls\.(predictions|seq_)"
)


@dataclasses.dataclass(frozen=True)
class Imported:
    """A checkpoint as ours: `config` with its model section, `params` by path, and what became of its tensors."""

    format: str
    config: ml_collections.ConfigDict
    params: dict[str, np.ndarray]
    tokenizer: Tokenizer | None
    used: tuple[str, ...]  # their names
    ignored: tuple[str, ...]
    resized: tuple[str, ...]

    def report(self) -> str:
        """What was used, ignored and resized; nothing is ever missing or unexpected in an import that succeeded."""
        lines = [f"{self.format}: {len(self.used)} tensors used, 0 missing, 0 unexpected"]
        lines += [f"  ignored: {name} (constant, or no part of an embedding)" for name in self.ignored]
        lines += [f"  resized: {line}" for line in self.resized]
        return "\n".join(lines)


def import_checkpoint(source: str | Path, tokenizer: str = "", activation: str = "", size: int = 0) -> Imported:
    """Reads a safetensors file, or a folder of transformers or open_clip, as parameters and a configuration of ours.

    `size` is another image size in pixels: positions are then interpolated. Arguments as the command's flags.

    Raises:
      InputError: the format or a setting is not known, or a tensor is missing, unexpected, of another shape or not
        finite; the message says which.
    """
    source = Path(source)
    weights = open_weights(source)
    name = find_format(weights)
    config = settings(weights, name, source, activation)
    shapes = {path: tuple(leaf.shape) for path, leaf in parameter_shapes(config).items()}
    rows = tables.rows_of(name, shapes)
    found = find_tokenizer(source, tokenizer)
    if found is not None:
        found.check_table(config.model.text.vocab, str(tokenizer or source))
    needed = _theirs(rows, config.model)
    ignored = _check_names(weights, needed)
    params = {}
    for ours, layout, names in rows:
        params[ours] = _read(weights, ours, layout, names, shapes[ours])
    resized = []
    if size and size != config.model.image.size:
        resized = _resize(config, params, size)
    _trim(config)
    return Imported(name, config, params, found, tuple(needed), ignored, tuple(resized))


def _theirs(rows: list[tables.Row], model: Any) -> list[str]:
    """All their names that the rows need, the blocks numbered."""
    return [
        name.format(i)
        for ours, _, names in rows
        for i in range(model.image.depth if ours.startswith("visual") else model.text.depth)
        for name in names
        if i == 0 or "{}" in name
    ]


def _check_names(weights: Weights, needed: list[str]) -> tuple[str, ...]:
    missing = [name for name in needed if name not in weights]
    known = set(needed)
    rest = [name for name in weights if name not in known]
    ignored = tuple(name for name in rest if IGNORED.search(name))
    unexpected = [name for name in rest if name not in ignored]
    for kind, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            raise InputError(
                f"{weights.origin}: {len(names)} tensors {kind} ({some}); expected the architecture that "
                f"{next(iter(known))} and its settings describe, nothing else"
            )
    return ignored


def _read(weights: Weights, ours: str, layout: str, names: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    stacked = "{}" in names[0]
    whole = np.empty(shape, np.float32)
    for i in range(shape[0] if stacked else 1):
        theirs = [name.format(i) for name in names]
        try:
            value = tables.read(layout, [weights.read(name) for name in theirs])
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            value = np.empty((0,))  # shapes that do not even fit one another
        if value.shape != (shape[1:] if stacked else shape):
            got = ", ".join(f"{name} {list(weights[name])}" for name in theirs)
            raise InputError(f"{weights.origin}: {got} does not fit {ours} {list(shape)}; expected one architecture")
        whole[i if stacked else ...] = value
    return whole


def _resize(config: ml_collections.ConfigDict, params: dict[str, np.ndarray], size: int) -> list[str]:
    image, path = config.model.image, "visual/positional_embedding"
    if path not in params or size % image.patch:
        raise InputError(f"--size: {size} is no multiple of the {image.patch} px patches of an image tower; choose one")
    before = params[path].shape
    params[path] = resize_positions(params[path], size // image.patch, int(image.pool == "cls"))
    image.size = size
    return [f"{path} {list(before)} -> {list(params[path].shape)}"]


def _trim(config: ml_collections.ConfigDict) -> None:
    if config.model.text.positions == config.model.text.context:
        config.model.text.positions = 0


def export_tensors(config: ml_collections.ConfigDict, params: dict[str, np.ndarray], to: str) -> dict[str, np.ndarray]:
    """The towers' parameters, by path, under the names and in the layout of a format, to the bit as they came.

    What prompts add has no place there and is left out. Raises InputError where the format has other towers.
    """
    if to not in tables.FORMATS:
        raise InputError(f"--to: expected one of {', '.join(tables.FORMATS)}, got {to!r}")
    tensors = {}
    for ours, layout, names in tables.rows_of(to, params):
        stacked = "{}" in names[0]
        for i in range(len(params[ours]) if stacked else 1):
            value = params[ours][i] if stacked else params[ours]
            parts = tables.write(layout, value, len(names))
            tensors |= {name.format(i): part for name, part in zip(names, parts, strict=True)}
    return tensors


def read_params(folder: Path) -> tuple[ml_collections.ConfigDict, dict[str, np.ndarray]]:
    """Configuration and parameters, by path, of a release."""
    weights = open_weights(folder)
    params = {path: weights.read(path) for path in weights}
    return load_config(folder / "config.json"), params


def write(imported: Imported, output: Path, mode: str = "medical", dtype: str = "float32") -> None:
    """Writes a release with fresh parameters for what prompts add, whole or not at all; of one tower only that tower.

    Raises:
      InputError: there is something at `output` already, it cannot be written, or there is no tokenizer.
    """
    config, params = imported.config, imported.params
    if imported.tokenizer is None:
        raise InputError(
            f"{output}: there is no tokenizer beside the weights; give the model's own with --tokenizer, a "
            "tokenizer.json, OpenAI's bpe_simple_vocab_16e6.txt.gz or BERT's vocab.txt"
        )
    processor = Processor(config.model.image.size, imported.tokenizer, config.model.text.context, mode)
    if any(path.startswith("visual/") for path in params):
        params = complete(config, params)

    def fill(part: Path) -> None:
        release.write_release(part, config, nested(params), processor, dtype=dtype)
        release.write_sums(part)

    release.write_whole(output, fill)


def main(argv: list[str]) -> None:
    """Converts as the flags say."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; see --help")
    for name in ("source", "output"):
        if not FLAGS[name].value:
            raise InputError(f"--{name}: expected a path, got nothing; see --help")
    source, output = Path(FLAGS.source), Path(FLAGS.output)
    if FLAGS.to:
        tensors = export_tensors(*read_params(source), FLAGS.to)
        output = output / "model.safetensors" if output.is_dir() or not output.suffix else output
        write_weights(output, tensors, FLAGS.dtype)
        print(f"{output}: {len(tensors)} tensors as {FLAGS.to}")
        return
    if FLAGS.dtype == "float16":
        raise InputError("--dtype: a release is float32 or bfloat16, got float16")
    imported = import_checkpoint(source, FLAGS.tokenizer, FLAGS.activation, FLAGS.size)
    write(imported, output, FLAGS.mode, FLAGS.dtype)
    config = "smoke_text" if imported.format.startswith("bert") else "finetune_clip"
    print(f"{imported.report()}\nwritten: {output}; train from it with --config=configs/{config}.py:{output}")


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "Folder of transformers, open_clip or ours, or a .safetensors file.")
    flags.DEFINE_string("output", None, "Folder to write; with --to a .safetensors file.")
    flags.DEFINE_string("to", "", f"Write a folder of ours in a format: {', '.join(tables.FORMATS)}.")
    flags.DEFINE_string("tokenizer", "", "File or folder of the tokenizer, where the source has none.")
    flags.DEFINE_enum("activation", "", ["", "quick_gelu", "gelu"], "Of a bare file, which does not say it.")
    flags.DEFINE_integer("size", 0, "Another image size; positions are interpolated.", lower_bound=0)
    flags.DEFINE_enum("mode", "medical", canvas.MODES, "How images are laid onto the canvas; crop is CLIP's own.")
    flags.DEFINE_enum("dtype", "float32", list(DTYPES), "Of the written tensors; a release has no float16.")
    run_cli(main)
