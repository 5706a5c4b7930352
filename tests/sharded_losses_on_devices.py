"""The sharded losses against the losses of global arrays. Needs 8 devices: `test_sharded_losses.py` runs this file."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from medp_clip_jax import losses, sharded_losses
from medp_clip_jax.errors import InputError

MESHES = [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (8, 1), (4, 2), (2, 4), (1, 8)]
# (mesh, labels, chunk): 5 and 13 labels divide over no mesh; 5 divides neither 24 images nor 48 regions.
CASES = [(mesh, 13, 5) for mesh in MESHES] + [((1, 1), 5, 0), ((4, 2), 5, 0), ((1, 8), 5, 0)]
IMAGES, REGIONS, DIM = 24, 48, 16  # rows of a batch: 3 images and 6 regions on each of 8 devices
SPLIT = ("images", "texts", "text_id", "regions", "target")
INTEGERS = ("text_id", "target", "excluded")


def mesh_of(shape):
    devices = jax.devices()[: shape[0] * shape[1]]
    return jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def random_arrays(seed, labels, valid):
    """Arguments of all losses; `valid` [REGIONS] says which regions are no padding."""
    rng = np.random.default_rng(seed)
    related = np.triu(rng.random((labels, labels)) < 0.2, 1)
    target = np.where(valid, rng.integers(0, labels, REGIONS), -1)
    return {
        "images": unit(rng, IMAGES, DIM),
        "texts": unit(rng, IMAGES, DIM),
        "text_id": rng.integers(0, rng.choice([1, 4, 1000]), IMAGES),  # all equal, many equal, nearly all different
        "regions": unit(rng, REGIONS, DIM),
        "labels": unit(rng, labels, DIM),
        "target": target.astype(np.int32),
        "scale": np.float32(np.exp(rng.uniform(0, np.log(100)))),
        "bias": np.float32(rng.uniform(-10, 1)),
        "log_prior": np.log(rng.dirichlet(np.ones(labels)) + 1e-6).astype(np.float32),
        "excluded": related | related.T,
    }


BANK = ("regions", "labels", "target", "scale", "excluded")
PAIRS = ("images", "texts", "text_id", "scale")
ARGUMENTS = {
    "region_to_text": (*BANK, "log_prior"),
    "text_to_region": BANK,
    "image_text_softmax": PAIRS,
    "image_text_sigmoid": (*PAIRS, "bias"),
}
LOGITS = {"region_to_text": ("regions", "labels"), "text_to_region": ("labels", "regions")}
LOGITS |= dict.fromkeys(("image_text_softmax", "image_text_sigmoid"), ("images", "texts"))  # rows and columns


def values_and_grads(module, arrays, **options):
    """({loss: value}, accuracy of region_to_text, {loss: gradient by each of its floating-point arguments})."""

    def total(floats):
        values = {}
        for name, given_floats in floats.items():
            given = {**arrays, **given_floats}
            extra = {"tau": 0.5} if name == "region_to_text" else {}
            arguments = {argument: given[argument] for argument in ARGUMENTS[name]}
            values[name] = getattr(module, name)(**arguments, **extra, **options)
        values["region_to_text"], accuracy = values["region_to_text"]
        return sum(values.values()), (values, accuracy)

    # Each loss has arguments of its own, so that one backward pass tells the gradients of all losses apart.
    floats = {name: {x: arrays[x] for x in used if x not in INTEGERS} for name, used in ARGUMENTS.items()}
    (_, (values, accuracy)), grads = jax.value_and_grad(total, has_aux=True)(floats)
    return values, accuracy, grads


reference = jax.jit(functools.partial(values_and_grads, losses))


@functools.cache
def sharded(chunk):
    return jax.jit(functools.partial(values_and_grads, sharded_losses, chunk=chunk))


def put(arrays, mesh):
    def sharding(name):
        return NamedSharding(mesh, PartitionSpec(mesh.axis_names) if name in SPLIT else PartitionSpec())

    return {name: jax.device_put(value, sharding(name)) for name, value in arrays.items()}


def assert_equal(arrays, shape, chunk, share=1e-5, cancels=True):
    mesh = mesh_of(shape)
    with jax.set_mesh(mesh):
        values, accuracy, grads = sharded(chunk)(put(arrays, mesh))
    expected, expected_accuracy, expected_grads = reference(arrays)
    np.testing.assert_allclose(accuracy, expected_accuracy, rtol=1e-6)
    for loss, value in expected.items():
        np.testing.assert_allclose(values[loss], value, rtol=share, err_msg=loss)
        for name, grad in expected_grads[loss].items():
            # Relative to the array's largest entry: single entries may cancel to nothing.
            limit = share * np.abs(grad).max()
            if cancels and name == "scale":  # a sum, of which float32 holds no more than this
                limit = max(limit, 2 * np.finfo(np.float32).eps * float(summands(loss, arrays)))
            np.testing.assert_allclose(grads[loss][name], grad, rtol=0, atol=limit, err_msg=f"{loss} by {name}")


@functools.partial(jax.jit, static_argnums=0)
def summands(loss, arrays):
    """What the logits add to the gradient of a loss by the scale, in absolute value: the sum of what each adds by a
    scale of its own."""

    def value(scales):
        given = {**arrays, "scale": scales}
        extra = {"tau": 0.5} if loss == "region_to_text" else {}
        found = getattr(losses, loss)(**{name: given[name] for name in ARGUMENTS[loss]}, **extra)
        return found[0] if isinstance(found, tuple) else found

    rows, columns = LOGITS[loss]
    shape = len(arrays[rows]), len(arrays[columns])
    return jnp.abs(jax.grad(value)(jnp.full(shape, arrays["scale"]))).sum()


ALL, NO_REGION, PADDED_DEVICE = np.ones(REGIONS, bool), np.zeros(REGIONS, bool), np.arange(REGIONS) >= REGIONS // 8
ONE_REGION = np.arange(REGIONS) == 5


@pytest.mark.parametrize("shape, labels, chunk", CASES)
@settings(max_examples=8, derandomize=True)  # one of some hundred seeds cancels beyond float32; float64 is asked anew
@given(st.integers(0, 2**32 - 1), numpy_arrays(bool, REGIONS))
@example(0, ALL)
@example(1, PADDED_DEVICE)
@example(2, NO_REGION)
@example(131, NO_REGION)  # the rows' parts of the gradient by the scale cancel to a three-hundredth,
@example(683154246, ONE_REGION)  # and here those of one row's logits to a thousandth
def test_values_and_gradients_are_those_of_the_global_losses(shape, labels, chunk, seed, valid):
    assert_equal(random_arrays(seed, labels, valid), shape, chunk)


@pytest.mark.parametrize("shape, labels, chunk", [((4, 1), 13, 5), ((4, 2), 13, 5), ((1, 8), 5, 0)])
@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), numpy_arrays(bool, REGIONS))
@example(3, ALL)
@example(131, NO_REGION)
@example(186, ALL)
@example(683154246, ONE_REGION)
@example(2725701853, ALL)  # the gradient by the bias cancels
def test_in_float64_every_gradient_is_that_of_the_global_losses_however_it_cancels(shape, labels, chunk, seed, valid):
    """Also those by the scale and the bias, which float32 cannot hold to 1e-5 where their summands cancel."""
    arrays = {
        name: np.asarray(x, np.float64) if np.asarray(x).dtype == np.float32 else x
        for name, x in random_arrays(seed, labels, valid).items()
    }
    with jax.enable_x64(True):
        assert_equal(arrays, shape, chunk, share=1e-9, cancels=False)


def test_texts_that_every_device_has_are_positives_across_devices():
    arrays = random_arrays(3, 13, ALL)
    arrays["text_id"] = np.tile(np.arange(IMAGES // 8), 8)
    assert_equal(arrays, (4, 2), 5)


def test_a_batch_without_regions_has_no_region_loss_and_no_gradient():
    mesh = mesh_of((4, 2))
    with jax.set_mesh(mesh):
        values, accuracy, grads = sharded(5)(put(random_arrays(4, 13, NO_REGION), mesh))
    assert accuracy == 0
    for loss in ("region_to_text", "text_to_region"):
        assert values[loss] == 0
        assert all(not np.asarray(grad).any() for grad in grads[loss].values())  # NaN would count as any


def test_a_bank_that_lies_split_over_devices_gives_the_same():
    mesh = mesh_of((4, 2))
    arrays = random_arrays(5, 16, PADDED_DEVICE)
    expected, _, expected_grads = reference(arrays)
    with jax.set_mesh(mesh):
        given = put(arrays, mesh)
        given["labels"] = jax.device_put(given["labels"], NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
        values, _, grads = sharded(5)(given)
    for loss in ("region_to_text", "text_to_region"):
        np.testing.assert_allclose(values[loss], expected[loss], rtol=1e-5)
        grad = expected_grads[loss]["labels"]
        np.testing.assert_allclose(grads[loss]["labels"], grad, rtol=0, atol=1e-5 * np.abs(grad).max())


def largest_array(function, arrays):
    """Elements of the largest array in the program that each device runs."""
    shapes = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", function.lower(arrays).compile().as_text())
    return max(np.prod([int(n) for n in shape.split(",")]) for shape in shapes)


def test_no_device_ever_holds_the_logits_of_its_rows_let_alone_of_all():
    images, regions, labels, chunk, mesh = 512, 512, 100, 16, mesh_of((4, 2))
    shapes = {
        "images": (images, 8),
        "texts": (images, 8),
        "text_id": (images,),
        "regions": (regions, 8),
        "labels": (labels, 8),
        "target": (regions,),
        "scale": (),
        "bias": (),
        "log_prior": (labels,),
        "excluded": (labels, labels),
    }
    types = {"text_id": jnp.int32, "target": jnp.int32, "excluded": jnp.bool_}
    given = {
        name: jax.ShapeDtypeStruct(
            shape,
            types.get(name, jnp.float32),
            sharding=NamedSharding(mesh, PartitionSpec(mesh.axis_names) if name in SPLIT else PartitionSpec()),
        )
        for name, shape in shapes.items()
    }
    with jax.set_mesh(mesh):
        assert largest_array(sharded(chunk), given) <= max(chunk * images, labels * labels)
        assert largest_array(sharded(0), given) <= images // 8 * images < regions * labels < images * images
        assert largest_array(reference, given) >= images // 8 * images  # what the compiler makes of the global losses


def test_without_a_mesh_or_with_rows_that_do_not_split_it_says_so():
    arrays = random_arrays(6, 5, ALL)
    images, texts, text_id, scale = (arrays[name] for name in PAIRS)
    with pytest.raises(ValueError, match="set_mesh"):
        sharded_losses.image_text_softmax(images, texts, text_id, scale)
    with jax.set_mesh(mesh_of((4, 2))), pytest.raises(InputError, match="13 rows cannot be split over 8 devices"):
        sharded_losses.image_text_softmax(images[:13], texts[:13], text_id[:13], scale)
