"""Weights on disk as safetensors: a file or a folder, checked before use and read one tensor at a time."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

from medp_clip_jax.errors import InputError

NAMES = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
PICKLES = (b"PK\x03\x04", b"\x80")  # how files of `torch.save` begin: now, and long ago
CONVERT = "convert it first: python -m medp_clip_jax.convert_pytorch --source=FILE --output=FILE.safetensors"


class Weights(Mapping[str, tuple[int, ...]]):
    """Shapes of the tensors of one or several safetensors files, by name; `read` gives a tensor."""

    def __init__(self, files: dict[Path, list[str]], shapes: dict[str, tuple[int, ...]], origin: Path):
        self._home = {name: path for path, names in files.items() for name in names}
        self._open = {path: safetensors.safe_open(str(path), "np") for path in files}
        self._shapes, self.origin = shapes, origin

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def read(self, name: str) -> np.ndarray:
        """The tensor as float32, whatever the file has; InputError where it is not finite or not floating-point."""
        tensor = self._open[self._home[name]].get_tensor(name)
        if tensor.dtype not in (*DTYPES.values(), np.dtype(np.float64)):
            raise InputError(f"{self.origin}: {name} is {tensor.dtype}, expected floating-point weights")
        tensor = tensor.astype(np.float32)
        if not np.isfinite(tensor).all():
            bad = int(tensor.size - np.isfinite(tensor).sum())
            raise InputError(f"{self.origin}: {name} has {bad} values that are not finite; the file is damaged")
        return tensor


def open_weights(path: Path) -> Weights:
    """Opens a safetensors file, a folder with one, or a folder with several and their index; reads no tensor yet.

    Raises:
      InputError: there is none, it is a pickle, its header does not describe it (a cut file), or names are repeated.
    """
    files = _files(Path(path))
    names: dict[Path, list[str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        names[file] = []
        for name, shape in _header(file).items():
            if name in shapes:
                raise InputError(f"{file}: {name} is in another file of the folder too; expected every tensor once")
            shapes[name] = shape
            names[file].append(name)
    if not shapes:
        raise InputError(f"{path}: no tensors; expected the weights of a model")
    return Weights(names, shapes, Path(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; expected weights as safetensors")
    for name in NAMES:
        if (path / name).is_file():
            return [path / name]
        index = path / f"{name}.index.json"
        if index.is_file():
            return _indexed(index)
    pickles = [file.name for file in sorted(path.iterdir()) if file.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if pickles:
        raise InputError(f"{path}: only PyTorch's pickles ({', '.join(pickles)}), which are not opened here; {CONVERT}")
    raise InputError(f"{path}: none of {', '.join(NAMES)}; expected a folder with weights as safetensors")


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: not a readable index of weights ({error!r}); restore the file") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{index}: expected names of files in the same folder, got {name!r}")
        if not (index.parent / name).is_file():
            raise InputError(f"{index.parent / name}: missing, though {index.name} names it; get the whole folder")
    return [index.parent / name for name in names]


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name. The library bounds the header and checks that the tensors tile the file without overlap."""
    try:
        with safetensors.safe_open(str(path), "np") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}
    except (safetensors.SafetensorError, OSError, ValueError, OverflowError, UnicodeDecodeError) as error:
        with path.open("rb") as file:
            pickled = file.read(4).startswith(PICKLES)  # asked last: the length of a header may begin like a pickle
        if pickled:
            raise InputError(f"{path}: a pickle of PyTorch, which is not opened here; {CONVERT}") from None
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a whole safetensors file ({reason}); fetch it again") from None


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
    """Writes a safetensors file, whole or not at all; InputError where the folder cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contiguous = {name: np.ascontiguousarray(x, DTYPES[dtype]).reshape(np.shape(x)) for name, x in tensors.items()}
        save_file(contiguous, str(part), {"format": "pt"})  # the entry that transformers asks for
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error}); choose another place") from None


def square(count: int, what: str) -> int:
    """Side of a square grid of `count` cells; InputError, naming `what`, where it is none."""
    side = math.isqrt(count)
    if side * side != count:
        raise InputError(f"{what}: {count} positions are no square grid of patches; expected those of a square image")
    return side
