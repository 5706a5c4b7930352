"""What jax2onnx makes of the model's functions, and how far ONNX Runtime's answers are from JAX's.

    pip install onnxruntime dm-pix equinox netron onnx onnx-ir
    pip install --no-deps jax2onnx  # it asks for an older orbax-checkpoint than training does, and does without
    python -m benchmarks.onnx_conversion [--checkpoint=RUN_OR_RELEASE]

Each program of `medp_clip_jax.programs` is converted as it is with open numbers of images, regions and texts, and from
its jaxpr with fixed ones. Inputs are random; the largest difference of each output is shown.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from medp_clip_jax import api
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.hub import DEFAULT
from medp_clip_jax.programs import programs

SIZES = {"batch": 2, "regions": 3, "points": 2, "height": 48, "width": 40, "texts": 5}


def example(shape: jax.ShapeDtypeStruct, rng: np.random.Generator) -> np.ndarray:
    """Random values of a shape whose open sizes are those of SIZES."""
    sizes = [SIZES.get(str(size), size) for size in shape.shape]
    if shape.dtype == bool:
        return rng.random(sizes) < 0.5
    if np.issubdtype(shape.dtype, np.integer):
        return rng.integers(0, 2, sizes).astype(shape.dtype)
    return np.sort(rng.random(sizes), -1).astype(shape.dtype)  # ascending: a box and a rectangle have their corners


def converted(function: Callable[..., Any], inputs: Sequence[Any], path: Path) -> Path:
    """The ONNX file of a function of flat arrays."""
    from jax2onnx import to_onnx

    to_onnx(function, inputs=inputs, return_mode="file", output_path=str(path))
    return path


def difference(path: Path, values: Sequence[np.ndarray], expected: Sequence[Any]) -> float:
    """The largest difference between ONNX Runtime's outputs and those `expected`."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # no warnings of what the converter left over
    session = onnxruntime.InferenceSession(str(path))
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, dict(zip(names, values, strict=True)))
    return max(float(np.abs(np.float64(a) - np.float64(b)).max()) for a, b in zip(found, expected, strict=True))


def tried(function: Callable[..., Any], inputs: Sequence[Any], values: Sequence[np.ndarray], expected: Any) -> str:
    """The largest difference of a conversion, or the name of the error that it ends in."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return f"{difference(converted(function, inputs, Path(folder) / 'model.onnx'), values, expected):.1e}"
        except Exception as error:  # whatever the converter cannot do is what is asked here
            return type(error).__name__


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
    print("| function | open numbers | fixed numbers |\n|---|---|---|", flush=True)
    for name, program in programs(model, params).items():
        shapes, tree = jax.tree.flatten(program.inputs)

        def function(*flat: Any, program: Any = program, tree: Any = tree) -> list[Any]:
            return jax.tree.leaves(program.function(params, *jax.tree.unflatten(tree, flat).values()))

        values = [example(shape, rng) for shape in shapes]
        expected = jax.jit(function)(*values)
        fixed = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(function)(*values))
        open_sizes = [[size if isinstance(size, int) else str(size) for size in x.shape] for x in shapes]
        as_open = [jax.ShapeDtypeStruct(sizes, x.dtype) for sizes, x in zip(open_sizes, shapes, strict=True)]
        as_fixed = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in values]
        cells = tried(function, as_open, values, expected), tried(fixed, as_fixed, values, expected)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", DEFAULT, "A run or release.")
    run_cli(main)
