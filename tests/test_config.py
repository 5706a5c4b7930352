"""A configuration is checked before anything is built, and survives its own file."""

import importlib
import json
import pathlib

import ml_collections
import pytest

from configs import common
from medp_clip_jax.config import RANGES, load_config, save_config, validate
from medp_clip_jax.errors import InputError

FILES = sorted(
    path.stem for path in pathlib.Path(common.__file__).parent.glob("*.py") if path.stem not in ("common", "__init__")
)


def named(tmp: str = "run") -> ml_collections.ConfigDict:
    config = common.get_config()
    config.workdir = tmp
    return config


def leaves(section: dict, path: str = ""):
    """(path, value) of every field."""
    for key, value in section.items():
        yield from leaves(value, f"{path}{key}.") if isinstance(value, dict) else [(path + key, value)]


@pytest.mark.parametrize("name", FILES)
def test_every_config_file_is_valid(name):
    validate(importlib.import_module(f"configs.{name}").get_config())


@pytest.mark.parametrize("name", ["Ti/16", "S/16", "B/32", "B/16", "L/14", "L/14@336", "H/14"])
def test_every_variant_is_valid(name):
    config = named()
    config.model = common.variant(name)
    validate(config)


def test_variants_have_the_activation_of_their_published_weights():
    assert common.variant("H/14").activation == "gelu"  # open_clip's ViT-H-14
    assert common.variant("L/14@336").activation == "quick_gelu"  # OpenAI's


def test_every_number_has_one_range():
    ranged = [path for fields in RANGES.values() for path in fields]
    assert len(set(ranged)) == len(ranged)
    fields = leaves(common.get_config().to_dict())
    numbers = {path for path, value in fields if isinstance(value, (int, float)) and not isinstance(value, bool)}
    unchecked = {path for path in numbers if path not in ranged and path.rpartition(".")[0] not in ranged}
    assert unchecked == {"mesh.data", "mesh.fsdp"}  # -1 has a meaning there, and the devices decide


def test_an_unknown_key_names_the_nearest():
    config = named()
    config.optim.learning_rte = 1.0
    with pytest.raises(
        InputError, match=r"config\.optim\.learning_rte: no such key; the nearest is config\.optim\.learning_rate"
    ):
        validate(config)
    config = named()
    config.learning_rate = 1.0
    with pytest.raises(InputError, match=r"nearest is config\.optim\.learning_rate"):
        validate(config)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train.steps", "many", "expected int"),
        ("train.steps", 0, "at least 1"),
        ("train.steps", True, "expected int"),
        ("optim.learning_rate", "1e-3", "expected float"),
        ("model.fusion", "alpha-beta", "expected one of tokens"),
        ("model.image.size", 100, "multiple of patch"),
        ("model.image.heads", 7, "multiple of 7 heads"),
        ("input.label_context", 99, "text context"),
        ("workdir", "", "config.workdir"),
        ("input", 3, "expected a section"),
        ("model.image.heads", 0, "config.model.image.heads: expected a number, at least 1"),
        ("model.prompt.hidden", 0, "at least 4"),
        ("model.text.vocab", 257, "at least 258"),
        ("input.threads", 0, "at least 1"),
        ("input.mask_size", 65, "at least 1 and at most 64"),
        ("input.crop_scale", (0.0, 2.0), "more than 0 and at most 1, got 0.0"),
        ("input.crop_scale", (0.5, 2.0), "got 2.0"),
        ("input.crop_scale", ("a", "b"), "expected a number"),
        ("input.crop_scale", (0.5,), "expected 2 numbers"),
        ("input.crop_scale", (0.9, 0.5), "smaller share first"),
        ("optim.warmup", 1.5, "at least 0 and at most 1"),
        ("optim.warmup", float("nan"), "at least 0 and at most 1"),
        ("optim.learning_rate", float("inf"), "expected a number"),
        ("optim.module_rates", {"visual": "slow"}, "config.optim.module_rates.visual: expected a number"),
        ("data.weights", {"mine": None}, "config.data.weights.mine: expected a number"),
        ("data.weights", {"mine": -1.0}, "at least 0"),
        ("loss.region_to_text", -1.0, "at least 0"),
        ("loss.tau", -0.5, "at least 0"),
        ("eval.kinds", ("box", "segmented"), "needs a mask decoder"),
        (
            "eval.kinds",
            ("mask", "masks"),
            "expected one of mask, box, point, segmented, none, crop, blackout, blur, red_circle, got 'masks'",
        ),
        ("eval.val_kinds", (3,), "expected one of mask"),
        ("train.best_metric", 3, "expected str"),
        ("model.prompt", common.get_config().model.prompt.to_dict() | {"context": 0.5, "glimpse": 0}, "needs glimpse"),
    ],
)
def test_bad_values_are_refused_in_words(path, value, words):
    config = named().to_dict()
    *sections, last = path.split(".")
    section = config
    for key in sections:
        section = section[key]
    section[last] = value
    with pytest.raises(InputError) as error:
        validate(ml_collections.ConfigDict(config))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_missing_key_is_named():
    config = named().to_dict()
    del config["train"]["keep"]
    with pytest.raises(InputError, match="train.keep: missing"):
        validate(ml_collections.ConfigDict(config))


def test_free_sections_take_any_key():
    config = named()
    config.optim.module_rates["visual"] = 0.1
    config.data.weights["my_hospital"] = 2.0
    validate(config)


def test_a_stored_config_reads_back_equal(tmp_path):
    config = named()
    config.optim.frozen = ("text",)
    config.data.weights["a"] = 1.5
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json").to_dict() == config.to_dict()


def test_a_config_from_before_a_field_existed_gets_its_default(tmp_path):
    config = named().to_dict()
    del config["model"]["remat"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_config(tmp_path / "config.json").model.remat == "none"


def test_a_damaged_config_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    for path in (tmp_path / "config.json", tmp_path / "absent.json"):
        with pytest.raises(InputError, match=str(path)):
            load_config(path)
