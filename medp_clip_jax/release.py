"""A release: a trained model as a folder of plain files, which needs neither the run nor the corpus.

config.json               the model section of the configuration, and what was released
model.safetensors         the parameters, named by their path; several files and an index above the size of a shard
tokenizer.json            as Hugging Face's libraries read it
preprocessor_config.json  how images reach the canvas
ontology.json labels.json what predictions are made of; only where the run has them
README.md                 the model card
SHA256SUMS                of all files but the card, as `sha256sum --check` reads it
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from medp_clip_jax import __version__
from medp_clip_jax.errors import InputError
from medp_clip_jax.initial import flat, nested
from medp_clip_jax.processor import Processor
from medp_clip_jax.streaming import DTYPES, read_parameters

FORMAT = 1
SUMS, CARD = "SHA256SUMS", "README.md"
SHARD = 5 * 10**9  # bytes: the Hub's usual size of a file
NEEDED = ("config.json", "tokenizer.json", "preprocessor_config.json")
OPTIONAL = ("ontology.json", "labels.json")


def is_release(directory: Path) -> bool:
    """Whether a folder has the weights of a release; a run has checkpoints/ instead."""
    return any((directory / f"model.safetensors{end}").is_file() for end in ("", ".index.json"))


def write_whole(output: Path, fill: Callable[[Path], object]) -> None:
    """Makes the folder `output` by `fill(folder)`: whole under its name, or not at all.

    Raises:
      InputError: there is something at `output`, or it cannot be written.
    """
    if output.exists():
        raise InputError(f"{output}: exists already; name a new folder")
    part = output.with_name(f".{output.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of an export that was killed
        part.mkdir(parents=True)
        fill(part)
        part.rename(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error}); name another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_release(
    folder: Path, config: Any, params: Any, processor: Processor, *, dtype: str = "float32", shard: int = SHARD
) -> None:
    """Writes the files of a release into an existing folder, but the card, labels, programs and checksums.

    `config` is the whole configuration of a run, `params` its nested parameters, written as `dtype` (float32 or
    bfloat16; scalars stay float32, as what is exponentiated must not be rounded); `shard` is the largest size of a
    file in bytes. Raises InputError for parameters that are not finite.
    """
    described = {
        "release": {"format": FORMAT, "version": __version__, "dtype": dtype},
        "model": config.model.to_dict(),
        "input": {"label_context": config.input.label_context},  # the length at which labels are read
    }
    _write_json(folder / "config.json", described)
    processor.tokenizer.save(folder / "tokenizer.json")
    preprocessing = processor.settings() | {"image_mean": config.model.mean, "image_std": config.model.std}
    _write_json(folder / "preprocessor_config.json", preprocessing)
    tensors = {name: _stored(name, leaf, dtype) for name, leaf in sorted(flat(params).items())}
    _write_weights(folder, tensors, shard)


def _stored(name: str, leaf: Any, dtype: str) -> np.ndarray:
    values = np.asarray(jax.device_get(leaf))
    if not np.isfinite(values).all():
        raise InputError(f"{name} has values that are not finite; export another step of the run")
    wanted = np.float32 if values.ndim == 0 or dtype == "float32" else DTYPES["BF16"][0]
    return np.ascontiguousarray(values, wanted).reshape(values.shape)


def _write_weights(folder: Path, tensors: Mapping[str, np.ndarray], shard: int) -> None:
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(other.nbytes for other in shards[-1].values()) + tensor.nbytes > shard:
            shards.append({})
        shards[-1][name] = tensor
    if len(shards) == 1:
        _save(folder / "model.safetensors", tensors)
        return
    home = {}
    for number, part in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _save(folder / file, part)
        home |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": home})


def _save(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    path.touch()
    mode = path.stat().st_mode
    safetensors.numpy.save_file(dict(tensors), path, {"format": "jax"})
    path.chmod(mode)  # the library lets nobody but the owner read


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, default=list) + "\n", "utf-8")


def write_sums(folder: Path) -> None:
    """Writes the checksums of all files below `folder` but the card, which its owner may edit."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (SUMS, CARD))
    lines = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(directory: Path) -> dict[str, str] | None:
    """The checksums of a release by file, None for a folder that `medp_clip_jax.convert` wrote and that has none.

    Raises:
      InputError: they are absent or damaged though config.json says that this is a release, or it is of a later format.
    """
    path = directory / SUMS
    described = _read_json(directory / "config.json").get("release")
    if described is None and not path.exists():
        return None
    if isinstance(described, dict) and described.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{directory}: a release of format {described['format']}, expected {FORMAT}; get a newer version of "
            "medp-clip-jax"
        )
    try:
        lines = [line.split("  ", 1) for line in path.read_text("utf-8").splitlines()]
        return {name: digest for digest, name in lines}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable checksums ({error}); get the whole release") from None


def verify(directory: Path, sums: Mapping[str, str]) -> None:
    """Compares the small files of a release with their checksums; weights are compared while they are read.

    Raises:
      InputError: one is missing or another than it was.
    """
    for name in (*NEEDED, *(name for name in OPTIONAL if name in sums)):
        path = directory / name
        try:
            digest = _digest(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); get the whole release") from None
        if digest != sums.get(name):
            raise InputError(f"{path}: not the file that {SUMS} describes (changed or damaged); get it again")


def read_release(directory: Path, shapes: Any, sums: Mapping[str, str] | None, dtype: Any = None) -> Any:
    """The nested parameters of a release; `shapes` are those that its configuration asks for.

    Raises:
      InputError: see `streaming.read_parameters`.
    """
    wanted = {name: tuple(leaf.shape) for name, leaf in flat(shapes).items()}
    return nested(read_parameters(directory, wanted, sums, dtype))


def read_mode(directory: Path) -> str:
    """How images are laid onto the canvas, from `preprocessor_config.json`; `medical` where there is no such file."""
    path = directory / "preprocessor_config.json"
    return _read_json(path).get("mode", "medical") if path.exists() else "medical"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        return content
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); get the whole release") from None
