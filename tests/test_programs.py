"""Exported programs give the model's own answers in a process that has jax and none of this package's libraries."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_run

import medp_clip_jax as medp
from medp_clip_jax import programs
from medp_clip_jax.export import export_run

SIZES = ((1, 1), (2, 3), (3, 6))  # images, regions

# What `pip install jax flatbuffers` brings.
INSTALLED = ("jax", "jaxlib", "numpy", "ml_dtypes", "scipy", "opt_einsum", "flatbuffers")
FRESH = """
import importlib.util
import sys

for absent in ("medp_clip_jax", "flax", "safetensors", "einops", "tokenizers"):
    if importlib.util.find_spec(absent):
        sys.exit(f"{absent} is installed")
folder, sizes, answers = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
import medp_programs
import numpy as np

model, found = medp_programs.load(folder), {}
for batch, regions in sizes:
    given = np.load(f"{answers}/given_{batch}.npz")
    features = model.encode_image({"pixels": given["pixels"], "rectangle": given["rectangle"]})
    found["image"] = features["embedding"]
    found["boxes"] = model.encode_regions(features, medp_programs.prompts(boxes=given["boxes"]))
    points = medp_programs.prompts(points=given["points"], point_labels=given["labels"], masks=given["masks"])
    found["points_masks"] = model.encode_regions(features, points)
    found["text"] = model.encode_text(given["tokens"])
    np.savez(f"{answers}/found_{batch}.npz", **found)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module", params=["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def released(request, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / request.param
    export_run(run, folder, dtype=request.param, shard=50_000)
    return folder


def _installed(folder):
    """A folder of packages that has those of `INSTALLED` alone, for a Python that is told to use no other (-S)."""
    folder.mkdir()
    for name in INSTALLED:
        home = pathlib.Path(importlib.util.find_spec(name).origin).parent
        for part in (home, home.with_name(f"{name}.libs")):  # libraries that wheels carry along
            if part.exists():
                (folder / part.name).symlink_to(part)
    return folder


def _given(batch, regions):
    rng = np.random.default_rng(batch)
    low = rng.uniform(0, 0.5, (batch, regions, 2))
    return {
        "pixels": rng.integers(0, 256, (batch, 32, 32, 3), np.uint8),
        "rectangle": np.array([[0, 0.25, 1, 0.75], [0, 0, 1, 1], [0.25, 0, 0.75, 1]], np.float32)[:batch],
        "boxes": np.concatenate([low, low + rng.uniform(0.1, 0.5, low.shape)], -1).astype(np.float32),
        "points": rng.uniform(0, 1, (batch, regions, 1 + batch, 2)).astype(np.float32),
        "labels": rng.integers(-1, 2, (batch, regions, 1 + batch)).astype(np.int32),
        "masks": rng.integers(0, 256, (batch, regions, 8 + batch, 12), np.uint8),
        "tokens": rng.integers(0, 300, (batch + regions, 16)).astype(np.int32),
    }


def test_programs_answer_as_the_model_where_there_is_only_jax(released, tmp_path):
    model, params, _ = medp.load(released)
    expected = {}
    for batch, regions in SIZES:
        given = _given(batch, regions)
        np.savez(tmp_path / f"given_{batch}.npz", **given)
        features = model.encode_image(params, medp.Images(given["pixels"], given["rectangle"]))
        none = medp.RegionPrompts.none(batch, regions)
        flags = np.ones((batch, regions), bool)
        boxes = none.replace(boxes=given["boxes"], box_valid=flags)
        both = none.replace(
            points=given["points"], point_labels=given["labels"], masks=given["masks"], mask_valid=flags
        )
        expected[batch] = {
            "image": features.embedding,
            "boxes": model.encode_regions(params, features, boxes),
            "points_masks": model.encode_regions(params, features, both),
            "text": model.encode_text(params, given["tokens"]),
        }
    (tmp_path / "fresh.py").write_text(FRESH)
    command = [sys.executable, "-S", tmp_path / "fresh.py", released, repr(SIZES), tmp_path]
    path = f"{_installed(tmp_path / 'installed')}{os.pathsep}{released / programs.FOLDER}"
    done = subprocess.run(
        [*map(str, command)],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for batch, answers in expected.items():
        found = np.load(tmp_path / f"found_{batch}.npz")
        assert set(found) == set(answers)
        for name, answer in answers.items():
            np.testing.assert_allclose(found[name], answer, atol=2e-6, err_msg=f"{name} of {batch} images")


def test_one_file_serves_every_platform_and_leaves_sizes_open(released):
    folder = pathlib.Path(released) / programs.FOLDER
    about = json.loads((folder / programs.LIST).read_text())
    assert set(about["programs"]) == {"encode_image", "encode_regions", "encode_text"}
    for described in about["programs"].values():
        exported = jax.export.deserialize(bytearray((folder / described["file"]).read_bytes()))
        assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    regions = about["programs"]["encode_regions"]
    assert regions["inputs"]["prompts"]["boxes"] == "float32[batch, regions, 4]"
    assert regions["output"] == "float32[batch, regions, 16]"


@pytest.mark.slow  # compiles the decoder twice
def test_a_model_with_a_mask_decoder_has_a_program_for_it():
    config = tiny_run.config()
    assert "segment" not in programs.programs(medp.Model(config.model), medp.Model(config.model).parameter_shapes())
    config.model.segmenter.update(width=16, heads=2, depth=1, detail=8)
    model = medp.Model(config.model)
    params = tiny_run.parameters(model)
    program = programs.programs(model, params)["segment"]
    exported = jax.export.export(jax.jit(program.function), platforms=programs.PLATFORMS)(
        model.parameter_shapes(), *program.inputs.values()
    )
    given = _given(2, 3)
    features = model.encode_image(params, medp.Images(given["pixels"], given["rectangle"]))
    plain = {name: getattr(features, name) for name in ("embedding", "patches", "pixels", "rectangle", "canvas")} | {
        "keys": features.kept.keys,
        "values": features.kept.values,
        "detail": features.detail,
    }
    prompts = medp.RegionPrompts.none(2, 3).replace(boxes=given["boxes"], box_valid=np.ones((2, 3), bool))
    found = exported.call(params, plain, {name: getattr(prompts, name) for name in program.inputs["prompts"]})
    expected = model.segment(params, features, prompts)
    assert found["masks"].shape == (2, 3, 32, 32)
    for name, values in found.items():
        scale = max(1.0, float(np.abs(getattr(expected, name)).max()))
        np.testing.assert_allclose(values / scale, getattr(expected, name) / scale, atol=1e-5, err_msg=name)
