"""Ways to damage a release, each with what is said about it."""

import json
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file

from medp_clip_jax import release


def _trust(folder: pathlib.Path) -> None:
    """Makes the checksums fit, as whoever changes files on purpose would."""
    (folder / release.SUMS).unlink()
    release.write_sums(folder)


def _rewrite(folder: pathlib.Path, change) -> None:
    """Replaces the tensors of the release by `change` of them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    _trust(folder)


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _flip_a_bit(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def _grown_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])


def _deep_header(folder):
    text = b"[" * 100_000
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


def _overlapping(folder):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    text = json.dumps({"a": entry, "b": entry}).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))


def _huge_shape(folder):
    text = json.dumps({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))


def _pickled(folder):
    (folder / "model.safetensors").write_bytes(b"\x80\x02}q\x00.")


def _without(name):
    return lambda folder: _rewrite(folder, lambda tensors: {key: x for key, x in tensors.items() if key != name})


def _with(name, value):
    return lambda folder: _rewrite(folder, lambda tensors: tensors | {name: value})


def _not_finite(value):
    def change(tensors):
        tensors["visual/proj"].flat[7] = value
        return tensors

    return lambda folder: _rewrite(folder, change)


def _index_elsewhere(folder):
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"weight_map": {"visual/proj": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        for path, value in changes.items():
            *sections, last = path.split("__")
            section = config
            for name in sections:
                section = section[name]
            section[last] = value
        (folder / "config.json").write_text(json.dumps(config))
        _trust(folder)

    return change


def _drop(name):
    return lambda folder: (folder / name).unlink()


def _write(name, text):
    def change(folder):
        (folder / name).write_text(text)
        if name != release.SUMS:
            _trust(folder)

    return change


BAD = {
    "cut weights": (_cut, r"model\.safetensors: not a whole safetensors file"),
    "one bit": (_flip_a_bit, "SHA256SUMS describes|not finite"),
    "a header larger than the file": (_grown_header, "not a whole safetensors file"),
    "a deep header": (_deep_header, "not a whole safetensors file"),
    "overlapping tensors": (_overlapping, "not a whole safetensors file"),
    "a shape beyond all memory": (_huge_shape, "not a whole safetensors file"),
    "a pickle": (_pickled, "pickle"),
    "a missing tensor": (_without("visual/proj"), r"visual/proj is absent there and \(32, 16\) in config\.json"),
    "an unexpected tensor": (_with("extra", np.ones(2, np.float32)), "config.json describes no extra"),
    "another shape": (_with("visual/proj", np.ones((32, 8), np.float32)), r"visual/proj is \(32, 8\) there"),
    "integers": (_with("visual/proj", np.ones((32, 16), np.int32)), "visual/proj is I32, expected one of F32"),
    "not a number": (_not_finite(np.nan), "visual/proj has values that are not finite"),
    "infinity": (_not_finite(-np.inf), "visual/proj has values that are not finite"),
    "an index that points elsewhere": (_index_elsewhere, "expected names of files in the same folder"),
    "another architecture": (_config(model__embed=24), r"is \(32, 16\) there and \(32, 24\) in config\.json"),
    "another table of tokens": (_config(model__text__vocab=400), r"tokenizer\.json: 300 tokens.*400"),
    "an unknown field": (_config(model__wings=2), r"config\.json: config\.model\.wings: no such key"),
    "a value out of range": (_config(model__image__depth=0), r"config\.json: config\.model\.image\.depth"),
    "a later format": (_config(release__format=9), "a release of format 9, expected 1"),
    "an unknown preprocessing": (_write("preprocessor_config.json", '{"mode": "upside"}'), "one of medical, crop"),
    "preprocessing as a list": (_write("preprocessor_config.json", "[]"), "not readable as JSON"),
    "no JSON": (_write("config.json", "{"), r"config\.json: not readable as JSON"),
    "a list for a configuration": (_write("config.json", "[]"), r"config\.json: not readable as JSON"),
    "a damaged tokenizer": (_write("tokenizer.json", "{}"), r"tokenizer\.json: not a readable"),
    "no tokenizer": (_drop("tokenizer.json"), r"tokenizer\.json: cannot be read"),
    "no checksums": (_drop("SHA256SUMS"), "SHA256SUMS: no readable checksums"),
    "damaged checksums": (_write("SHA256SUMS", "liver"), "SHA256SUMS: no readable checksums"),
}
