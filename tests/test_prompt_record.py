"""Prompts that an evaluation keeps: their digests say whether two results were asked the same, and they can be read."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_corpus
import tiny_run

from medp_clip_jax import api, results
from medp_clip_jax.evaluators import encode, prompt_record
from medp_clip_jax.prompts import RegionPrompts

KINDS = ("mask", "box", "point", "none")


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    records = [tiny_corpus.random_example(rng, str(i), regions) for i, regions in enumerate((0, 1, 5, 3))]
    return tiny_corpus.corpus({"tiny": {"test": records}})


def asked(corpus, **settings):
    config = tiny_run.config()
    config.input.mask_size = settings.pop("mask_size", config.input.mask_size)
    config.eval.update(settings)
    model = api.Model(config.model)
    return encode.encode_corpus(model, tiny_run.parameters(model), corpus, "test", config, KINDS).prompts


def test_digests_do_not_depend_on_batches_and_differ_where_prompts_do(corpus):
    kept = asked(corpus, batch_size=4, regions=3)
    digests = prompt_record.of_kinds(kept)
    assert list(digests) == ["mask", "box", "point"] and len(set(digests.values())) == 3
    assert digests == prompt_record.of_kinds(asked(corpus, batch_size=2, regions=8))
    coarse = prompt_record.of_kinds(asked(corpus, batch_size=4, regions=3, mask_size=16))
    assert coarse["mask"] != digests["mask"] and coarse["box"] == digests["box"]  # a box has no map
    for kind, field in (("mask", "masks"), ("box", "boxes"), ("point", "points")):
        moved = {name: value.copy() for name, value in kept[kind].items()}
        moved[field].reshape(len(moved["valid"]), -1)[-1] = 1
        changed = prompt_record.per_region(moved) != prompt_record.per_region(kept[kind])
        assert changed.tolist() == [False] * 8 + [True]


def test_what_is_stored_has_the_same_digests_unless_it_is_too_much(corpus, tmp_path, monkeypatch):
    kept = asked(corpus, batch_size=4, regions=3)
    keys = np.array([str(i) for i in range(9)])
    prompt_record.save(tmp_path, keys, kept)
    names, again = prompt_record.load(tmp_path)
    assert names.tolist() == keys.tolist() and prompt_record.of_kinds(again) == prompt_record.of_kinds(kept)
    monkeypatch.setattr(prompt_record, "LIMIT", 1000)
    prompt_record.save(tmp_path, keys, kept)
    assert list(prompt_record.load(tmp_path)[1]) == ["box", "point"]


def test_padding_says_nothing():
    first = RegionPrompts.from_boxes([[[0, 0, 4, 4], [2, 2, 8, 8]]], (8, 8))
    second = dataclasses.replace(first, points=np.full((1, 2, 3, 2), 0.5, np.float32), point_labels=-np.ones((1, 2, 3)))
    second = dataclasses.replace(second, point_labels=second.point_labels.astype(np.int32))
    digests = [prompt_record.per_region(prompt_record.of_images(each, [0])) for each in (first, second)]
    assert digests[0].tolist() == digests[1].tolist() and len(set(digests[0].tolist())) == 2
    absent = dataclasses.replace(first, valid=np.array([[True, False]]))
    assert prompt_record.per_region(prompt_record.of_images(absent, [0]))[1] == 0


def test_a_model_is_told_by_its_parameters_and_named_without_its_path(tmp_path):
    params = tiny_run.parameters(api.Model(tiny_run.config().model))
    found = results.origin(tmp_path / "runs" / "small", params)
    assert found["name"] == "small" and len(found["parameters"]) == 16
    assert results.origin(None, jax.device_get(params)) == {"name": None, "parameters": found["parameters"]}
    changed = {**params, "logit_scale": params["logit_scale"] + 1e-6}
    assert results.origin(None, changed)["parameters"] != found["parameters"]


def test_words_are_told_by_what_they_say():
    first = results.words({"liver": ("the liver", "a liver")}, questions={"modality": ["a CT scan"]})
    assert first["labels"] == {"liver": ["the liver", "a liver"]} and first["questions"]["modality"] == ["a CT scan"]
    assert first["digest"] != results.words({"liver": ("the liver",)}, questions={"modality": ["a CT scan"]})["digest"]
