"""Training starts from other weights: exactly from them, with a base to hold on to, or not at all."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common, finetune_clip, release_small, smoke_text
from medp_clip_jax import convert, losses
from medp_clip_jax.config import validate
from medp_clip_jax.errors import InputError
from medp_clip_jax.initial import begin, flat
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.optim import hold
from medp_clip_jax.preparation import make_tokenizer
from medp_clip_jax.step import Bank, batch_loss, init_params
from tests import checkpoint_cases as cases
from tests import model_cases


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """Folders that `convert` wrote of a CLIP and of a sentence encoder."""
    root = tmp_path_factory.mktemp("imports")
    for name in ("open_clip", "bert"):
        convert.write(convert.import_checkpoint(cases.write_source(root / f"{name}-source", name)), root / name)
    return root


def run_config(init, name="open_clip", **model):
    config = common.get_config()
    config.model = cases.config_of(name).model
    config.model.update(model)
    config.init, config.workdir = str(init), "unused"
    config.input.label_context = 12
    return config


@functools.cache
def fresh(name="open_clip"):
    return jax.jit(functools.partial(init_params, MedPCLIP(cases.config_of(name).model), 3))()


def test_imported_parameters_stand_and_the_others_are_fresh(imports):
    config = run_config(imports / "open_clip")
    config.loss.distill = 1.0
    params, base = begin(fresh(), config)
    for path, leaf in flat(params).items():
        wanted = cases.parameters("open_clip").get(path)
        if wanted is not None:
            assert np.array_equal(leaf, wanted), path
    assert set(base) == {"visual", "logit_scale", "logit_bias"}
    for mine, held in zip(jax.tree.leaves(params["visual"]), jax.tree.leaves(base["visual"]), strict=True):
        assert np.array_equal(mine, held) and mine.unsafe_buffer_pointer() != held.unsafe_buffer_pointer()
    config.loss.distill = 0.0
    assert begin(fresh(), config)[1] is None
    config.init = ""
    same, base = begin(fresh(), config)
    assert same is fresh() and base is None


def test_a_text_tower_alone_is_taken_and_its_head_may_be_new(imports):
    model = cases.config_of("bert").model
    config = run_config(imports / "bert", "bert")
    config.model.text.projection = "linear"
    config.model.embed = 24
    params, _ = begin(jax.jit(functools.partial(init_params, MedPCLIP(config.model), 0))(), config)
    assert np.array_equal(params["text"]["token_embedding"], cases.parameters("bert")["text/token_embedding"])
    assert params["text"]["text_projection"].shape == (model.text.width, 24)
    config.loss.distill = 1.0
    with pytest.raises(InputError, match="needs the whole image tower"):
        begin(params, config)


def test_another_model_is_refused_by_name(imports):
    for change, message in (
        (lambda model: model.update(activation="gelu"), "config.model.activation: 'gelu', but"),
        (lambda model: model.image.update(heads=2), "config.model.image.heads: 2, but"),
        (lambda model: model.update(embed=24), r"text/text_projection is \[64, 16\] there and \[64, 24\]"),
        (lambda model: model.text.update(depth=1), r"there and \[1, "),
        (lambda model: model.image.update(projection=False), "visual/proj has no place"),
    ):
        config = run_config(imports / "open_clip")
        change(config.model)
        with pytest.raises(InputError, match=message):
            begin(fresh(), config)
    with pytest.raises(InputError, match="no such file or folder"):
        begin(fresh(), run_config(imports / "absent"))


def test_a_run_takes_the_tokenizer_of_its_start(imports, tmp_path):
    config = run_config(imports / "open_clip")
    assert make_tokenizer(tmp_path, config, None, ()).vocab_size == 514
    config.model.text.vocab = 600
    with pytest.raises(InputError, match="514 tokens, but the embedding table has 600 rows"):
        make_tokenizer(tmp_path, config, None, ())
    with pytest.raises(InputError, match="no tokenizer.json there"):
        make_tokenizer(tmp_path, run_config(tmp_path), None, ())


def test_the_fine_tuning_config_takes_the_model_that_the_folder_describes(imports):
    config = finetune_clip.get_config(str(imports / "open_clip"))
    config.input.label_context = 12
    validate(config)
    assert config.model.image.width == 64 and config.loss.distill == 1.0
    assert config.optim.module_rates["visual"] < 1 and config.optim.module_rates["text"] < 1
    validate(finetune_clip.get_config("absent"))


def test_distillation_is_one_minus_the_cosine_and_only_the_images_learn():
    rng = np.random.default_rng(0)
    images, base = (jnp.asarray(rng.normal(size=(6, 8))) for _ in range(2))
    images, base = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (images, base))
    assert losses.distillation(images, images) == pytest.approx(0, abs=1e-6)
    assert losses.distillation(images, -images) == pytest.approx(2)
    assert losses.distillation(images, base) == pytest.approx(float((1 - (images * base).sum(-1)).mean()))
    toward, of_base = jax.grad(losses.distillation, (0, 1))(images, base)
    assert np.allclose(toward, -base / 6) and not np.any(of_base)


def test_the_base_holds_images_without_prompts_and_frozen_towers_get_no_gradient():
    model, params = model_cases.small_model()
    rng = np.random.default_rng(7)
    batch = model_cases.random_batch(rng)
    bank = Bank(rng.integers(1, 299, (5, 2, 6)).astype(np.int32), np.zeros((5, 5), bool), np.zeros(5, np.float32))
    config = common.get_config()
    config.loss.update(image_text=0.0, region_to_text=0.0, text_to_region=0.0, distill=1.0)
    config.optim.frozen = ("text/resblocks",)
    other = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), params)

    @jax.jit
    def run(params, base):
        return jax.value_and_grad(batch_loss, 1, True)(model, params, config, batch, bank, jax.random.key(0), base)

    (loss, metrics), grads = run(params, params)
    assert abs(loss) < 1e-5 and abs(metrics["distill"]) < 1e-5
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(grads)) < 1e-4
    (loss, _), grads = run(params, other)
    assert loss > 1e-3 and jnp.abs(grads["visual"]["proj"]).max() > 1e-4
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads["text"]["resblocks"]))


def test_held_parameters_keep_their_values():
    params = {"text": {"a": jnp.ones(2)}, "visual": {"b": jnp.full(2, 3.0)}}
    grads = jax.grad(lambda p: sum(jnp.square(x).sum() for x in jax.tree.leaves(hold(p, ("text",)))))(params)
    assert not grads["text"]["a"].any() and np.array_equal(grads["visual"]["b"], [6, 6])
    assert hold(params, ()) is params


def test_the_smoke_run_with_a_sentence_encoder(imports):
    config = smoke_text.get_config(str(imports / "bert"))
    config.model.text.context = 20
    validate(config)
    assert config.model.embed == config.model.text.width == 64 and config.optim.frozen == ("text",)
    validate(smoke_text.get_config("absent"))


def test_the_shipped_model_trains_on_permitted_sources_only():
    config = release_small.get_config("absent")
    validate(config)
    assert set(config.data.sources) == {*release_small.ALLOWED, "phantoms"} and config.model.image.width == 192
    allowed = pathlib.Path(__file__).parents[2] / "shared" / "regions" / "release_allowlist.txt"
    if not allowed.exists():
        pytest.skip("the development images are not here")
    assert sorted(release_small.ALLOWED) == sorted(allowed.read_text().split())
