"""Runs the programs of a MedP-CLIP release; needs jax and flatbuffers, nothing else.

    import medp_programs

    model = medp_programs.load("RELEASE")
    features = model.encode_image({"pixels": pixels, "rectangle": rectangle})
    regions = model.encode_regions(features, medp_programs.prompts(boxes=boxes))
    texts = model.encode_text(tokens)

`pixels` are uint8 [batch, size, size, 3] and `rectangle` [batch, 4] says where each image lies on this canvas, in
[0, 1]; prompts are in [0, 1] of the image; `tokens` are int32 [texts, context], made by any reader of tokenizer.json.
programs.json lists all inputs and outputs. A copy of this file lies beside the programs of each release.
"""

import json
import pathlib
import types

import jax
import ml_dtypes
import numpy as np
from jax import export

DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}


def load(folder):
    """The programs of the release in `folder` as functions that have its parameters: `model.encode_image(...)`."""
    folder = pathlib.Path(folder)
    params = jax.device_put(read_params(folder))
    listed = json.loads((folder / "programs" / "programs.json").read_text("utf-8"))["programs"]
    functions = {}
    for name, program in listed.items():
        exported = export.deserialize(bytearray((folder / "programs" / program["file"]).read_bytes()))
        functions[name] = _bound(jax.jit(exported.call), params)
    return types.SimpleNamespace(**functions)


def _bound(function, params):
    return lambda *inputs: function(params, *inputs)


def read_params(folder):
    """The parameters in model.safetensors, or in the files of its index, as nested dicts of numpy arrays."""
    folder, index = pathlib.Path(folder), pathlib.Path(folder) / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.exists():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    params = {}
    for name in names:
        with (folder / name).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            for path, entry in header.items():
                start, stop = entry["data_offsets"]
                file.seek(8 + size + start)
                values = np.frombuffer(file.read(stop - start), DTYPES[entry["dtype"]]).reshape(entry["shape"])
                *sections, last = path.split("/")
                place = params
                for section in sections:
                    place = place.setdefault(section, {})
                place[last] = values
    return params


def prompts(boxes=None, points=None, point_labels=None, masks=None):
    """Prompts of [batch, regions]: boxes [batch, regions, 4], points [batch, regions, points, 2] with labels (1 inside,
    0 outside, -1 none) and masks uint8 [batch, regions, height, width], each of all regions or None; in [0, 1]."""
    given = next((x for x in (boxes, points, masks) if x is not None), None)
    if given is None:
        raise ValueError("prompts: expected boxes, points or masks")
    shape = np.shape(given)[:2]
    return {
        "points": np.zeros((*shape, 1, 2), np.float32) if points is None else np.asarray(points, np.float32),
        "point_labels": np.full((*shape, 1), -1, np.int32) if points is None else np.asarray(point_labels, np.int32),
        "boxes": np.zeros((*shape, 4), np.float32) if boxes is None else np.asarray(boxes, np.float32),
        "box_valid": np.full(shape, boxes is not None),
        "masks": np.zeros((*shape, 1, 1), np.uint8) if masks is None else np.asarray(masks, np.uint8),
        "mask_valid": np.full(shape, masks is not None),
        "valid": np.ones(shape, bool),
    }
