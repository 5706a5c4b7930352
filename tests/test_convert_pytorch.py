"""PyTorch's files are read as data: tensors come out, and whatever else a pickle asks for is refused unexecuted."""

import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from medp_clip_jax.convert_pytorch import read_pytorch
from medp_clip_jax.errors import InputError

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"


def tensor(offset: int = 0, shape=(2, 3), strides=(3, 1)) -> bytes:
    """Opcodes of a tensor on a storage of six floats."""
    numbers = [b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in part) + b"t" for part in (shape, strides)]
    place = b"J" + offset.to_bytes(4, "little")
    return TENSOR + b"(" + STORAGE + place + numbers[0] + numbers[1] + b"\x89ccollections\nOrderedDict\n)RtR"


def named(name: str, value: bytes) -> bytes:
    return b"X" + len(name).to_bytes(4, "little") + name.encode() + value


def pickled(*items: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(items) + b"u."


def archive(path: pathlib.Path, pickle: bytes, compression=zipfile.ZIP_STORED, **entries: bytes) -> pathlib.Path:
    numbers = np.arange(6, dtype="<f4").tobytes()
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"data.pkl": pickle, "byteorder": b"little", "data/0": numbers, **entries}.items():
            file.writestr(f"model/{name}", content)
    return path


def test_tensors_with_offsets_and_strides(tmp_path):
    items = [named("whole", tensor()), named("turned", tensor(1, (2, 2), (1, 3)))]
    found = read_pytorch(archive(tmp_path / "a.pt", pickled(*items)))
    assert np.array_equal(found["whole"], [[0, 1, 2], [3, 4, 5]]) and np.array_equal(found["turned"], [[1, 4], [2, 5]])
    inner = b"}(" + named("module.w", tensor()) + b"u"
    found = read_pytorch(archive(tmp_path / "b.pt", pickled(named("state_dict", inner), named("epoch", b"K\x03"))))
    assert list(found) == ["w"]


def test_nothing_of_a_pickle_is_executed(tmp_path):
    mark = tmp_path / "executed"
    command = f"touch {mark}".encode()
    argument = b"X" + len(command).to_bytes(4, "little") + command
    for name in (b"posix\nsystem", b"builtins\neval", b"torch\nload", b"numpy\nload", b"os\npopen"):
        path = archive(
            tmp_path / "evil.pt", pickled(named("w", tensor()), named("x", b"c" + name + b"\n(" + argument + b"tR"))
        )
        with pytest.raises(InputError, match="which is no part of weights"):
            read_pytorch(path)
    assert not mark.exists()


BAD = {
    "beyond the storage": (tensor(4), "reaches beyond its storage"),
    "strides": (tensor(0, (2, 3), (4, 1)), "reaches beyond its storage"),
    "huge": (tensor(0, (2**31 - 1, 2**31 - 1), (0, 0)), "reaches beyond its storage"),
    "ranks": (tensor(0, (2, 3), (1,)), "cannot be read"),
    "other storage": (TENSOR + b"(" + STORAGE.replace(b"\x000X", b"\x009X") + b"tR", "cannot be followed"),
    "no storage": (b"(X\x07\x00\x00\x00storageNNNNtQ", "cannot be followed"),
    "numbers": (b"K\x03", "no named tensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_archives_are_refused(case, tmp_path):
    value, message = BAD[case]
    with pytest.raises(InputError, match=message):
        read_pytorch(archive(tmp_path / "bad.pt", pickled(named("w", value))))


def test_other_files_are_refused(tmp_path):
    good = archive(tmp_path / "good.pt", pickled(named("w", tensor()))).read_bytes()
    for content, message in (
        (good[:100], "not a zip archive"),
        (b"\x80\x02}.", "before 1.6"),
        (b"", "not a zip archive"),
    ):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_pytorch(tmp_path / "x.pt")
    with pytest.raises(InputError, match="big-endian"):
        read_pytorch(archive(tmp_path / "big.pt", pickled(), byteorder=b"big"))
    with pytest.raises(InputError, match="cannot be read"):
        read_pytorch(archive(tmp_path / "cut.pt", pickled(named("w", tensor()))[:-30]))
    with pytest.raises(InputError, match="cannot be read"):  # a dict that holds itself
        read_pytorch(archive(tmp_path / "loop.pt", b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."))
    with zipfile.ZipFile(tmp_path / "none.pt", "w") as file:
        file.writestr("readme", "x")
    with pytest.raises(InputError, match="no data.pkl"):
        read_pytorch(tmp_path / "none.pt")
    with pytest.raises(InputError, match="cannot be read"):
        read_pytorch(tmp_path / "absent.pt")


def test_the_command_writes_safetensors(tmp_path):
    source = archive(tmp_path / "a.pt", pickled(named("w", tensor())))
    command = [sys.executable, "-m", "medp_clip_jax.convert_pytorch", f"--source={source}"]
    done = subprocess.run([*command, f"--output={tmp_path / 'a.safetensors'}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from safetensors.numpy import load_file

    assert np.array_equal(load_file(tmp_path / "a.safetensors")["w"], [[0, 1, 2], [3, 4, 5]])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
