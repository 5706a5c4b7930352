"""Loading a run and asking it: what holds for every user of the Python API."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

import medp_clip_jax as medp

pytestmark = pytest.mark.short


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("run") / "run", steps=(3, 5))


@pytest.fixture(scope="module")
def loaded(run):
    return medp.load(run)


@pytest.fixture
def broken(run, tmp_path):
    """A copy of the run to damage."""
    return shutil.copytree(run, tmp_path / "copy")


def _images(processor):
    rng = np.random.default_rng(0)
    return processor.images([rng.integers(0, 255, shape, np.uint8) for shape in ((40, 30, 3), (30, 60, 3))])


def _boxes():
    return medp.RegionPrompts.from_boxes(
        [[[1, 2, 10, 20], [5, 5, 9, 9]], [[0, 0, 60, 30], [1, 1, 4, 9]]], [(30, 40), (60, 30)]
    )


def test_load_gives_the_saved_parameters(run, loaded):
    model, params, _ = loaded
    chex.assert_trees_all_equal(params, tiny_run.parameters(model, 5))
    _, third, _ = medp.load(run, step=3)
    chex.assert_trees_all_equal(third, tiny_run.parameters(model, 3))


def test_parameters_are_a_plain_nested_dict(loaded):
    def check(tree):
        assert type(tree) is dict
        for value in tree.values():
            assert isinstance(value, jax.Array) or check(value) is None

    check(loaded[1])


def test_embeddings_have_the_promised_shapes_and_length_one(loaded):
    model, params, processor = loaded
    features = model.encode_image(params, _images(processor))
    regions = model.encode_regions(params, features, _boxes())
    text = model.encode_text(params, processor.tokens(["liver", "the left kidney", "spleen"]))
    chex.assert_shape((features.embedding, regions, text), ((2, 16), (2, 2, 16), (3, 16)))
    for embedding in (features.embedding, regions, text):
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, rtol=1e-5)


def test_one_pass_gives_the_same_embeddings_and_no_regions_without_prompts(loaded):
    model, params, processor = loaded
    images, features = _images(processor), model.encode_image(params, _images(processor))
    image, regions = model.embed(params, images, _boxes())
    np.testing.assert_allclose(image, features.embedding, atol=2e-6)
    np.testing.assert_allclose(regions, model.encode_regions(params, features, _boxes()), atol=2e-6)
    image, regions = model.embed(params, images)
    np.testing.assert_allclose(image, features.embedding, atol=2e-6)
    assert regions is None


def test_a_prompt_changes_the_region_and_no_prompt_is_the_global_view(loaded):
    model, params, processor = loaded
    features = model.encode_image(params, _images(processor))
    regions = model.encode_regions(params, features, _boxes())
    nothing = model.encode_regions(params, features, medp.RegionPrompts.none(2, 2))
    np.testing.assert_allclose(nothing, np.repeat(features.embedding[:, None], 2, 1), atol=2e-6)
    assert np.abs(regions - nothing).max() > 1e-3


def test_float_and_uint8_pixels_mean_the_same(loaded):
    model, params, _ = loaded
    pixels = np.random.default_rng(1).integers(0, 255, (1, 32, 32, 3), np.uint8)
    as_bytes = model.encode_image(params, pixels).embedding
    as_floats = model.encode_image(params, pixels.astype(np.float32) / 255).embedding
    np.testing.assert_allclose(as_bytes, as_floats, atol=1e-5)


def test_a_bare_array_fills_its_canvas(loaded):
    model, params, _ = loaded
    pixels = np.random.default_rng(1).integers(0, 255, (1, 32, 32, 3), np.uint8)
    images = medp.Images(pixels, np.array([[0, 0, 1, 1]], np.float32))
    chex.assert_trees_all_equal(model.encode_image(params, pixels), model.encode_image(params, images))


def test_methods_can_be_jitted_and_differentiated(loaded):
    model, params, processor = loaded
    images, prompts, tokens = _images(processor), _boxes(), processor.tokens(["liver", "spleen"])

    @jax.jit
    def chance_of_the_first(params):
        regions = model.encode_regions(params, model.encode_image(params, images), prompts)
        return medp.classify(regions, model.encode_text(params, tokens), params)[..., 0].mean()

    gradients = jax.grad(chance_of_the_first)(params)
    chex.assert_tree_all_finite(gradients)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["visual"]))


def test_classify_gives_probabilities_of_the_scaled_cosines(loaded):
    _, params, _ = loaded
    regions, text = np.eye(4, dtype=np.float32)[None, :2], np.eye(4, dtype=np.float32)[:3]
    scores = medp.classify(regions, text, params)
    chex.assert_shape(scores, (1, 2, 3))
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.log(scores[0, 0, 0] / scores[0, 0, 1]), np.exp(3.0), rtol=1e-4)
    capped = medp.classify(regions, text, {"logit_scale": jnp.asarray(50.0)})
    chex.assert_tree_all_finite(capped)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "config.json: no such file"),
        ("tokenizer.json", "tokenizer.json"),
        ("checkpoints", "checkpoints"),
    ],
)
def test_a_run_that_lacks_a_file_is_named(broken, file, message):
    shutil.rmtree(broken / file) if (broken / file).is_dir() else (broken / file).unlink()
    with pytest.raises(medp.InputError, match=message):
        medp.load(broken)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(medp.InputError, match=r"nowhere: no such directory"):
        medp.load(tmp_path / "nowhere")


def test_a_missing_step_lists_those_there_are(run):
    with pytest.raises(medp.InputError, match=r"no checkpoint of step 4.*3.*5"):
        medp.load(run, step=4)


def test_another_architecture_names_the_first_parameter_that_differs(broken):
    config = json.loads((broken / "config.json").read_text())
    config["model"]["embed"] = 24
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        medp.InputError, match=r"another architecture: .*(proj|text_projection) is \(32, 16\).*\(32, 24\)"
    ):
        medp.load(broken)


def test_a_tokenizer_of_another_run_is_refused(broken):
    config = json.loads((broken / "config.json").read_text())
    config["model"]["text"]["vocab"] = 400
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(medp.InputError, match=r"tokenizer.json: 300 tokens.*400"):
        medp.load(broken)


def test_a_damaged_config_is_named(broken):
    (broken / "config.json").write_text("{")
    with pytest.raises(medp.InputError, match=r"config.json: not readable as JSON"):
        medp.load(broken)
