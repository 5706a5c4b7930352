"""Checkpoints of other libraries come in and go out to the bit and start promptable; damaged ones are refused whole."""

import json
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medp_clip_jax as medp
from medp_clip_jax import convert
from medp_clip_jax.errors import InputError
from medp_clip_jax.initial import complete, nested, parameter_shapes, resize_positions
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.prompts import RegionPrompts
from tests import checkpoint_cases as cases
from tests import model_cases

WEIGHTS = "open_clip_model.safetensors"


@pytest.mark.parametrize("name", cases.FORMATS)
def test_every_format_comes_in_as_it_went_out(name, tmp_path):
    imported = convert.import_checkpoint(cases.write_source(tmp_path, name))
    wanted = cases.config_of(name)
    assert imported.format == name and imported.tokenizer is not None
    assert imported.config.loss.image_text_kind == wanted.loss.image_text_kind
    assert resolved(imported.config.model) == resolved(wanted.model)
    assert imported.params.keys() == cases.parameters(name).keys()
    for path, value in cases.parameters(name).items():
        assert np.array_equal(imported.params[path], value), path
    back = convert.export_tensors(imported.config, imported.params, name)
    assert {key: x.shape for key, x in back.items()} == {key: x.shape for key, x in cases.tensors(name).items()}
    assert all(back[key].tobytes() == x.tobytes() for key, x in cases.tensors(name).items())
    assert len(imported.used) == len(back) and f"{len(back)} tensors used, 0 missing" in imported.report()


def resolved(model) -> dict:
    """The fields of a model section that decide what its towers compute."""
    text = {**model.text, "activation": model.text.activation or model.activation}
    if text["tower"] == "bert":
        text.pop("activation")
    if model.text.projection == "none":  # a text tower alone says nothing about images
        return {"text": text, "embed": model.embed}
    rest = {field: model[field] for field in ("embed", "activation", "norm_eps", "mean", "std")}
    return {"image": {**model.image}, "text": text, **rest}


def test_openai_weights_leave_as_hugging_face_ones_and_not_as_another_familys(tmp_path):
    config, params = cases.config_of("open_clip"), cases.parameters("open_clip")
    out = convert.export_tensors(config, params, "hf_clip")
    assert out.keys() == cases.tensors("hf_clip").keys()
    with pytest.raises(InputError, match="no place for visual/class_embedding"):
        convert.export_tensors(config, params, "hf_siglip")
    with pytest.raises(InputError, match="expected one of open_clip, "):
        convert.export_tensors(config, params, "word2vec")


@pytest.mark.parametrize("name", ["open_clip", "hf_siglip"])
def test_promptable_from_the_start(name, tmp_path):
    """Fresh prompt parameters change neither image nor text; regions are the image's reading through the coverage."""
    convert.write(convert.import_checkpoint(cases.write_source(tmp_path / "source", name)), tmp_path / "ours")
    model, params, processor = medp.load(tmp_path / "ours")
    rng = np.random.default_rng(1)
    images, prompts = model_cases.random_images(rng, 2, 32), model_cases.random_prompts(rng, 2, 3)
    other = {**params, "fusion": jax.tree.map(lambda x: x + 0.3, params["fusion"])}
    features = model.encode_image(params, images)
    assert np.array_equal(features.embedding, model.encode_image(other, images).embedding)
    towers = MedPCLIP(model.config).bind({"params": nested(complete(cases.config_of(name), cases.parameters(name)))})
    assert jnp.abs(features.embedding - towers.embed(images)[0]).max() < 1e-6
    tokens = processor.tokens(["abc", "a b"])
    assert jnp.abs(model.encode_text(params, tokens) - towers.encode_text(tokens)).max() < 1e-6

    regions = model.encode_regions(params, features, prompts)
    blind = {**params, "fusion": {**params["fusion"], "bias_scale": jnp.zeros_like(params["fusion"]["bias_scale"])}}
    through = jnp.broadcast_to(features.embedding[:, None], regions.shape)
    assert jnp.abs(model.encode_regions(blind, features, prompts) - through).max() < 2e-6
    assert jnp.abs(regions - through).max() > 1e-3
    none = model.encode_regions(params, features, RegionPrompts.none(2, 3))
    assert jnp.abs(none - through).max() < 2e-6


def test_positions_follow_another_image_size(tmp_path):
    source = cases.write_source(tmp_path, "open_clip")
    imported = convert.import_checkpoint(source, size=64)
    assert imported.config.model.image.size == 64 and "[5, 64] -> [17, 64]" in imported.report()
    before = cases.parameters("open_clip")["visual/positional_embedding"]
    assert np.array_equal(imported.params["visual/positional_embedding"][0], before[0])
    assert np.allclose(resize_positions(np.ones((5, 8), np.float32), 7, 1), 1, atol=1e-6)
    with pytest.raises(InputError, match="no multiple of the 16 px patches"):
        convert.import_checkpoint(source, size=40)


def test_a_bare_file_has_to_be_told_its_activation(tmp_path):
    cases.write_source(tmp_path, "open_clip")
    with pytest.raises(InputError, match="--activation=quick_gelu"):
        convert.import_checkpoint(tmp_path / WEIGHTS)
    assert convert.import_checkpoint(tmp_path / WEIGHTS, activation="gelu").config.model.activation == "gelu"


def damage(**changes):
    """A function that replaces tensors, or removes them where the value is None."""

    def change(found):
        found |= {name: value(found[name]) if callable(value) else value for name, value in changes.items()}
        return {name: x for name, x in found.items() if x is not None}

    return change


BROKEN = {
    "missing": (damage(**{"ln_final.weight": None}), r"1 tensors missing \(ln_final.weight\)"),
    "unexpected": (damage(**{"visual.attn_pool.query": np.ones(3, np.float32)}), "1 tensors unexpected"),
    "shape": (damage(**{"ln_final.bias": np.ones(63, np.float32)}), r"ln_final.bias \[63\] does not fit text/ln_final"),
    "rank": (damage(**{"visual.conv1.weight": np.ones((64, 3), np.float32)}), "expected 4 axes"),
    "patch": (damage(**{"visual.conv1.weight": np.ones((64, 3, 16, 8), np.float32)}), "expected square RGB"),
    "grid": (damage(**{"visual.positional_embedding": np.ones((4, 64), np.float32)}), "no square grid"),
    "nan": (damage(**{"ln_final.bias": np.full(64, np.nan, np.float32)}), "64 values that are not finite"),
    "integer": (damage(**{"ln_final.bias": np.ones(64, np.int32)}), "expected floating-point"),
    "other": (lambda found: {"fc.weight": np.ones((3, 3), np.float32)}, "are not those of an open_clip"),
    "empty": (lambda found: {}, "no tensors"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_tensors_are_named_and_nothing_is_written(case, tmp_path):
    change, message = BROKEN[case]
    source = cases.write_source(tmp_path / "source", "open_clip", change)
    with pytest.raises(InputError, match=message) as caught:
        convert.write(convert.import_checkpoint(source), tmp_path / "ours")
    assert "\n" not in str(caught.value) and not (tmp_path / "ours").exists()


def header(size: int, text: bytes) -> bytes:
    return struct.pack("<Q", size) + text


FILES = {
    "cut": lambda good: good[: len(good) // 2],
    "cut header": lambda good: good[:40],
    "nothing": lambda good: b"",
    "endless header": lambda good: header(2**63, b"{}"),
    "huge header": lambda good: header(2**32, b"{}" * 50),
    "no JSON": lambda good: header(4, b"[[[["),
    "deep JSON": lambda good: header(20_000, b"[" * 20_000),
    "beyond the end": lambda good: header(60, b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}     '),
    "overlap": lambda good: header(
        112,
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        b"     " + b"\0" * 8,
    ),
    "shape overflow": lambda good: header(
        88, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'.ljust(88)
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_whole_safetensors_are_refused(case, tmp_path):
    source = cases.write_source(tmp_path, "open_clip")
    (source / WEIGHTS).write_bytes(FILES[case]((source / WEIGHTS).read_bytes()))
    with pytest.raises(InputError, match="not a whole safetensors file"):
        convert.import_checkpoint(source)


def test_pickles_are_not_opened(tmp_path):
    for content in (b"PK\x03\x04 zip", b"\x80\x02}q\x00."):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(InputError, match="python -m medp_clip_jax.convert_pytorch"):
            convert.import_checkpoint(tmp_path / "model.pt")
    with pytest.raises(InputError, match="only PyTorch's pickles"):
        convert.import_checkpoint(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        convert.import_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("vision_cfg", "pool_type", "avg", "pool_type"),
        ("vision_cfg", "ls_init_value", 0.1, "not known here"),
        ("text_cfg", "no_causal_mask", True, "text tower"),
        ("text_cfg", "norm_kwargs", {"eps": 1e-3}, "layer norms"),
        ("text_cfg", "heads", 7, "does not divide"),
        ("vision_cfg", "head_width", "wide", "settings of another kind"),
    ],
)
def test_settings_that_our_towers_do_not_have_are_refused(section, field, value, message, tmp_path):
    source = cases.write_source(tmp_path, "open_clip")
    path = source / "open_clip_config.json"
    settings = json.loads(path.read_text())
    settings["model_cfg"][section][field] = value
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=message):
        convert.import_checkpoint(source)
    for content, found in (("{", "not readable as JSON"), ("[]", "expected a JSON object")):
        path.write_text(content)
        with pytest.raises(InputError, match=found):
            convert.import_checkpoint(source)


def test_hugging_face_settings_have_to_be_there_and_of_the_same_family(tmp_path):
    source = cases.write_source(tmp_path, "hf_clip")
    for content in ({"model_type": "siglip"}, {}):
        (source / "config.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match="expected the config.json of a clip model"):
            convert.import_checkpoint(source)
    (source / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_act": "relu"}}))
    with pytest.raises(InputError, match="activation 'relu'"):
        convert.import_checkpoint(source)


def test_a_tokenizer_has_to_fit_the_table(tmp_path):
    source = cases.write_source(tmp_path / "source", "open_clip", tokenizer=False)
    with pytest.raises(InputError, match="no tokenizer beside the weights"):
        convert.write(convert.import_checkpoint(source), tmp_path / "ours")
    cases.tokenizer_of("bert").save(str(tmp_path / "tokenizer.json"))
    source = cases.write_source(tmp_path / "small", "biomedclip", shrink, tokenizer=False)
    with pytest.raises(InputError, match="37 tokens, but the embedding table has 30 rows"):
        convert.import_checkpoint(source, tokenizer=str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="no tokenizer; expected"):
        convert.import_checkpoint(source, tokenizer=str(tmp_path / "source"))


def shrink(found):
    name = "text.transformer.embeddings.word_embeddings.weight"
    return {**found, name: np.ascontiguousarray(found[name][:30])}


def test_the_command_converts_both_ways_and_fails_in_one_line(tmp_path):
    source = cases.write_source(tmp_path / "source", "open_clip")

    def run(*arguments):
        command = [sys.executable, "-m", "medp_clip_jax.convert", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    done = run(f"--source={source}", f"--output={tmp_path / 'ours'}")
    assert done.returncode == 0 and "tensors used, 0 missing, 0 unexpected" in done.stdout, done.stderr
    done = run(f"--source={tmp_path / 'ours'}", f"--output={tmp_path / 'back.safetensors'}", "--to=open_clip")
    assert done.returncode == 0, done.stderr
    from safetensors.numpy import load_file

    back = load_file(tmp_path / "back.safetensors")
    assert all(back[name].tobytes() == x.tobytes() for name, x in cases.tensors("open_clip").items())
    done = run(f"--source={tmp_path / 'absent'}", f"--output={tmp_path / 'x'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_the_scales_of_a_release_are_the_imported_ones(tmp_path):
    convert.write(convert.import_checkpoint(cases.write_source(tmp_path / "s", "hf_siglip")), tmp_path / "ours")
    _, params, _ = medp.load(tmp_path / "ours")
    assert float(params["logit_scale"]) == 2.5 and float(params["logit_bias"]) == -9.5
    shapes = parameter_shapes(cases.config_of("hf_siglip"))
    assert shapes["fusion/bias_scale"].shape == (1, 1)  # one reading, by the pooling head
