"""Parameters from safetensors in one pass: each byte is read, hashed, checked and placed once.

Tensors are read into memory that JAX can adopt where the device is the host, and freed one by one where it is not: the
peak is the size of the file, not twice that. A memory map would count the file's pages on top, and a file that is cut
while it is mapped kills the process.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import ml_dtypes
import numpy as np

from medp_clip_jax.errors import InputError
from medp_clip_jax.weights import open_weights

ALIGNMENT = 64  # bytes; XLA adopts host memory only at such addresses
CHUNK = 1 << 23  # bytes, a multiple of every dtype's size
# Name in the file -> (dtype, unsigned integers of its size, bits that are all set in what is not finite).
DTYPES = {
    "F32": (np.dtype(np.float32), np.uint32, 0x7F800000),
    "BF16": (np.dtype(ml_dtypes.bfloat16), np.uint16, 0x7F80),
    "F16": (np.dtype(np.float16), np.uint16, 0x7C00),
}


def read_parameters(
    directory: Path, shapes: Mapping[str, tuple[int, ...]], sums: Mapping[str, str] | None, dtype: Any = None
) -> dict[str, jax.Array]:
    """The tensors of a folder's `model.safetensors`, or of the files that its index names, on the first device.

    Args:
      directory: the folder.
      shapes: the tensors that there must be, and no others, with their shapes.
      sums: SHA-256 of each file, by name; None compares none.
      dtype: float type to convert to, as each tensor is read; None keeps that of the file.

    Raises:
      InputError: the tensors are not those of `shapes`, a file is cut, hostile or not the one that `sums` knows, or a
        value is not finite. All names and shapes are compared before anything is read.
    """
    _compare(directory, open_weights(directory), shapes)
    found: dict[str, jax.Array] = {}
    for path in weight_files(directory):
        if sums is not None and path.name not in sums:
            raise InputError(f"{path}: no checksum in SHA256SUMS; export the release again or get the whole folder")
        for name, tensor in _tensors(path, sums and sums[path.name]):
            found[name] = _placed(tensor if dtype is None else tensor.astype(dtype))
    return found


def weight_files(directory: Path) -> list[Path]:
    """The folder's weight files, in the order of their names: one, or those of an index that `open_weights` accepts."""
    whole = directory / "model.safetensors"
    if whole.is_file():
        return [whole]
    index = json.loads((directory / "model.safetensors.index.json").read_text("utf-8"))
    return [directory / name for name in sorted(set(index["weight_map"].values()))]


def _compare(directory: Path, there: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if there.get(name) != tuple(shape):
            raise InputError(
                f"{directory}: weights of another architecture: {name} is {there.get(name, 'absent')} there and "
                f"{tuple(shape)} in config.json; take both from one release"
            )
    for name in there:
        if name not in shapes:
            raise InputError(
                f"{directory}: weights of another architecture: config.json describes no {name}; take both from one "
                "release"
            )


def _tensors(path: Path, digest: str | None) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors in the order in which they lie; the checksum is compared after the last one."""
    seen = hashlib.sha256()
    with path.open("rb") as file:
        start = file.read(8)
        text = file.read(int.from_bytes(start, "little"))
        seen.update(start + text)
        # `open_weights` has had the library check that these entries tile the file.
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
            yield name, _tensor(file, entries[name], seen, f"{path}: {name}")
        if file.read(1) or (digest and seen.hexdigest() != digest):
            raise InputError(f"{path}: not the file that SHA256SUMS describes (changed or damaged); get it again")


def _tensor(file: BinaryIO, entry: Mapping[str, Any], seen: Any, where: str) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise InputError(f"{where} is {entry['dtype']}, expected one of {', '.join(DTYPES)}")
    dtype, integer, mask = DTYPES[entry["dtype"]]
    start, stop = entry["data_offsets"]
    if stop - start != int(np.prod(entry["shape"], dtype=np.int64)) * dtype.itemsize:
        raise InputError(f"{where}: {stop - start} bytes do not fit the shape {entry['shape']}; the file is damaged")
    memory = np.empty(stop - start + ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % ALIGNMENT
    values = memory[offset : offset + stop - start]
    for at in range(0, len(values), CHUNK):
        part = values[at : at + CHUNK]
        if file.readinto(part) != len(part):
            raise InputError(f"{where}: the file ended early; get it again")
        seen.update(part)
        if ((part.view(integer) & mask) == mask).any():
            raise InputError(f"{where} has values that are not finite; the weights are damaged, take another step")
    return values.view(dtype).reshape(entry["shape"])


def _placed(tensor: np.ndarray) -> jax.Array:
    """On the first device; the host's own device adopts the memory, others are waited for so that it can be freed."""
    return jax.block_until_ready(jax.device_put(tensor, jax.sharding.SingleDeviceSharding(jax.devices()[0])))
