"""PyTorch's weight files as safetensors, without running what is in them.

    python -m medp_clip_jax.convert_pytorch --source=unimed_clip_vit_b16.pt --output=unimed.safetensors

A file of `torch.save` is a zip archive with a pickle, and a pickle can call any function. This reader knows the few
that put tensors together and refuses every other name, so no code of the file or of PyTorch runs. State dicts,
checkpoints with a `state_dict`, and TorchScript archives (OpenAI's) are understood, files before PyTorch 1.6 are not.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from absl import flags

from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.weights import DTYPES, write_weights

FLAGS = flags.FLAGS
STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
JIT = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
INFLATED = 2**28  # bytes of a compressed entry; TorchScript compresses its code, nobody the weights
LARGEST = 2**40  # bytes of one tensor: beyond any model, within any integer


class _Module(dict):
    """Attributes of a TorchScript module; its class is only in the archive's code, which is not read."""

    def __setstate__(self, state: Any) -> None:
        self.update(state if isinstance(state, dict) else {})


class _Inert:
    """What stands for arguments and the like that training checkpoints keep beside their weights."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Unpickles an archive's `data.pkl`: tensors as numpy arrays; InputError for any name that is not known."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: Path):
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")), encoding="utf-8")
        self._archive, self._root, self._path = archive, root, path

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
            ("torch", "Size"): tuple,
            **{("torch.jit._pickle", other): lambda data, *rest: data for other in JIT},
            ("argparse", "Namespace"): _Inert,
            ("torch", "device"): _Inert,
            ("numpy.core.multiarray", "scalar"): _Inert,
            ("numpy._core.multiarray", "scalar"): _Inert,
            ("numpy", "dtype"): _Inert,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in STORAGES:
            return name
        if module.startswith("__torch__"):
            return _Module
        raise InputError(
            f"{self._path}: its pickle asks for {module}.{name}, which is no part of weights; it is not opened. Save "
            "the model's state_dict alone, with torch.save, or take safetensors"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The numbers of a storage, ("storage", dtype, key, device, count), as a flat array."""
        try:
            kind, dtype, key, _, _ = pid
            if kind != "storage" or not isinstance(key, str):
                raise ValueError(f"a reference {pid!r:.80}")
            dtype = STORAGES[dtype]
            raw = self._archive.read(f"{self._root}data/{key}")
            return np.frombuffer(raw, dtype, len(raw) // dtype.itemsize)
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f"{self._path}: {error} of its pickle cannot be followed; fetch the file again") from None

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> np.ndarray:
        sides = [*shape, *strides, offset]
        ok = isinstance(storage, np.ndarray) and all(isinstance(n, int) and 0 <= n < LARGEST for n in sides)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if ok else 0
        if not ok or (math.prod(shape) and last >= storage.size) or math.prod(shape) * 8 > LARGEST:
            raise InputError(
                f"{self._path}: a tensor of shape {list(shape)} reaches beyond its storage; fetch it again"
            )
        steps = [step * storage.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def read_pytorch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file by name, as stored; a leading `module.` of distributed training is dropped.

    Raises:
      InputError: it is not such a file, is cut or older than PyTorch 1.6, holds no tensors, or asks for anything but
        tensors.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(x.compress_type != zipfile.ZIP_STORED and x.file_size > INFLATED for x in archive.infolist()):
                raise InputError(f"{path}: compressed weights, which torch.save does not write; fetch it again")
            roots = [name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("data.pkl")]
            if len(roots) != 1:
                raise InputError(f"{path}: no archive of torch.save (no data.pkl in it); expected a file of weights")
            order = f"{roots[0]}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise InputError(f"{path}: written on a big-endian machine, which is not read here; save it on another")
            content = _Reader(archive, roots[0], path).load()
        found = _named(content.get("state_dict", content) if isinstance(content, dict) else content, "")
    except InputError:
        raise
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: not a zip archive: cut, or of PyTorch before 1.6; fetch it again, or load and save it once with "
            "a newer PyTorch"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}); fetch it again") from None
    if not found:
        raise InputError(f"{path}: no named tensors; expected a state_dict, or a checkpoint that has one")
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def _named(content: Any, prefix: str) -> dict[str, np.ndarray]:
    if isinstance(content, np.ndarray):
        return {prefix[:-1]: content}
    found: dict[str, np.ndarray] = {}
    if isinstance(content, dict):
        for name, value in content.items():
            if isinstance(name, str):
                found |= _named(value, f"{prefix}{name}.")
    return found


def main(argv: list[str]) -> None:
    """Converts one file."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; see --help")
    for name in ("source", "output"):
        if not FLAGS[name].value:
            raise InputError(f"--{name}: expected a path, got nothing; see --help")
    tensors = read_pytorch(FLAGS.source)
    floating = {name: x for name, x in tensors.items() if x.dtype in (*DTYPES.values(), np.dtype(np.float64))}
    write_weights(Path(FLAGS.output), floating, FLAGS.dtype)
    print(f"{FLAGS.output}: {len(floating)} tensors; left out {sorted(set(tensors) - set(floating)) or 'none'}")


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "A .pt, .pth or .bin file of torch.save.")
    flags.DEFINE_string("output", None, "The .safetensors file to write.")
    flags.DEFINE_enum("dtype", "float32", list(DTYPES), "Of the written tensors.")
    run_cli(main)
