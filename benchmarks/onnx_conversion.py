"""What jax2onnx makes of the model's functions, and how far ONNX Runtime's answers are from JAX's.

    pip install onnxruntime==1.32.0 dm-pix equinox netron onnx onnx-ir
    pip install --no-deps jax2onnx==0.17.1  # it asks for an older orbax-checkpoint than training does, and does without
    python -m benchmarks.onnx_conversion [--checkpoint=RUN_OR_RELEASE]

Each program of `medp_clip_jax.programs` is converted as it is and from its jaxpr, with all numbers and the size of
masks left open and with fixed ones. A cell is the largest difference of any output, or the step that failed and its
error. Inputs are random pixels, places and tokens; regions read the features of the images.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend
import numpy as np
from absl import flags

from medp_clip_jax import api
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.hub import DEFAULT
from medp_clip_jax.programs import programs

SIZES = {"batch": 2, "regions": 3, "points": 2, "height": 48, "width": 40, "texts": 5}
LARGEST = {"pixels": 255, "point_labels": 1, "masks": 255}  # of whole numbers, by the name of the input


def example(name: str, shape: jax.ShapeDtypeStruct, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """Random values of a shape whose open sizes are those of SIZES."""
    sizes = [SIZES.get(str(size), size) for size in shape.shape]
    if shape.dtype == bool:
        return rng.random(sizes) < 0.5
    if np.issubdtype(shape.dtype, np.integer):
        return rng.integers(0, LARGEST.get(name, vocabulary - 1), sizes, endpoint=True).astype(shape.dtype)
    values = rng.random(sizes).astype(shape.dtype)
    return np.sort(values, -1) if name in ("rectangle", "boxes") else values  # ascending: they have their corners so


def tried(function: Callable[..., Any], inputs: Sequence[Any], values: Sequence[np.ndarray], expected: Any) -> str:
    """The largest difference of a conversion, or the step that failed and the name of its error."""
    import onnxruntime
    from jax2onnx import to_onnx

    onnxruntime.set_default_logger_severity(3)  # no warnings of what the converter left over
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        step = "converting"
        try:
            to_onnx(function, inputs=inputs, return_mode="file", output_path=str(path))
            step = "running"
            session = onnxruntime.InferenceSession(str(path))
            names = [entry.name for entry in session.get_inputs()]
            found = session.run(None, dict(zip(names, values, strict=True)))
        except Exception as error:  # whatever the two libraries cannot do is what is asked here
            return f"{step}: {type(error).__name__}"
    pairs = list(zip(found, expected, strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return f"{np.max([np.abs(np.float64(a) - np.float64(b)).max() for a, b in pairs]):.1e}"


def main(argv: Sequence[str]) -> None:
    del argv
    try:
        import jax2onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}: install what the head of {__file__} names") from error
    model, params, _ = api.load(flags.FLAGS.checkpoint)
    params = jax.tree.map(lambda x: x.astype("float32"), params)  # ONNX Runtime has no products of bfloat16 on CPUs
    rng = np.random.default_rng(0)
    print("| function | as it is: open | fixed | from its jaxpr: open | fixed |\n|---|---|---|---|---|", flush=True)
    features: Any = None
    for name, program in programs(model, params).items():
        given = jax.tree_util.tree_map_with_path(
            lambda path, shape: example(path[-1].key, shape, model.config.text.vocab, rng), program.inputs
        )
        if "features" in given:
            given["features"] = features
        shapes, tree = jax.tree.flatten(program.inputs)
        values = jax.tree.leaves(given)

        def function(*flat: Any, program: Any = program, tree: Any = tree) -> list[Any]:
            inputs = jax.tree.unflatten(tree, flat)
            return jax.tree.leaves(program.function(params, *(inputs[key] for key in program.inputs)))

        if name == "encode_image":
            features = jax.device_get(jax.jit(program.function)(params, *given.values()))
        expected = jax.device_get(jax.jit(function)(*values))
        sizes = [[size if isinstance(size, int) else str(size) for size in x.shape] for x in shapes]
        as_open = [jax.ShapeDtypeStruct(some, x.dtype) for some, x in zip(sizes, shapes, strict=True)]
        as_fixed = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in values]
        cells = [tried(function, inputs, values, expected) for inputs in (as_open, as_fixed)]
        for traced, inputs in ((shapes, as_open), (as_fixed, as_fixed)):
            jaxpr = jax.make_jaxpr(function)(*traced)
            cells.append(tried(jax.extend.core.jaxpr_as_fun(jaxpr), inputs, values, expected))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", DEFAULT, "A run or release.")
    run_cli(main)
