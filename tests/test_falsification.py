"""The falsification test: what is asked, and that no fusion lets a prompt reach the global embedding."""

import json
import pathlib
import subprocess
import sys
import types

import corpus_cases
import encoded_cases
import numpy as np
import pytest
import results_cases
import tiny_corpus
import tiny_run
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax import api, evaluate
from medp_clip_jax.eval_input import eval_batches, eval_table, some_regions
from medp_clip_jax.evaluators import falsification, wrong_places
from medp_clip_jax.evaluators.encode import encode_corpus
from medp_clip_jax.models.fusion_baselines import FUSIONS


def tokens(texts, length):
    return tiny_corpus.tokenizer(texts, length) + 1


@pytest.fixture(scope="module")
def corpus():
    """Images with 0 to 18 regions: none, one, some, and more than are asked at once."""
    rng = np.random.default_rng(0)
    records = [
        tiny_corpus.random_example(rng, str(i), regions, image_labels=(("liver", "cell")[i % 2],))
        for i, regions in enumerate((0, 1, 5, 18, 3, 2))
    ]
    made = tiny_corpus.corpus({"tiny": {"test": records}})
    made.labels, made.directory = ("cell", "left_kidney", "liver", "nodule"), types.SimpleNamespace(name="tiny")
    return made


def prepared(fusion="tokens"):
    config = tiny_run.config()
    config.model.fusion = fusion
    config.eval.update(batch_size=3, regions=3)
    model = api.Model(config.model)
    return config, model, tiny_run.parameters(model)


def test_every_image_is_asked_by_its_smallest_region_a_wrong_place_and_sixteen(corpus):
    config, _, _ = prepared()
    config.eval.regions = falsification.MANY
    table = eval_table(corpus, "test")
    chosen = falsification.choose(table, 0)
    assert np.bincount(table.image_index[chosen]).tolist() == [0, 1, 5, 16, 3, 2]
    seen = set()
    for batch in eval_batches(corpus, some_regions(table, chosen), config, ("mask",)):
        masks = batch["prompts"]["mask"]
        rows = np.where(batch["region_row"] >= 0, chosen[batch["region_row"]], -1)
        asked = falsification.asked_of(masks, rows, table, 0)
        assert {way: prompts.valid.shape[1] for way, prompts in asked.items()} == {
            "none": 1,
            "small": 1,
            "wrong": 1,
            "sixteen": 16,
        }
        for row, regions in enumerate(rows):
            regions = regions[regions >= 0]
            if not len(regions):
                assert not asked["wrong"].box_valid[row].any() and not asked["small"].valid[row].any()
                continue
            image = table.image_index[regions[0]]
            every = np.flatnonzero(table.image_index == image)
            smallest = every[table.area_fraction[every].argmin()]  # of all, not of those that fit into a row
            assert (asked["small"].masks[row, 0] == masks.masks[row, list(regions).index(smallest)]).all()
            assert asked["sixteen"].valid[row].all()
            repeated = np.arange(16) % len(regions)
            assert (asked["sixteen"].masks[row] == masks.masks[row][repeated]).all()
            np.testing.assert_array_equal(asked["wrong"].boxes[row, 0], wrong_places.emptiest(table, smallest, 0))
            assert asked["wrong"].box_valid[row, 0]
            seen.add(int(image))
    assert seen == {1, 2, 3, 4, 5}


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_smallest_of_any_number_of_regions_is_asked(count, seed):
    area = np.random.default_rng(seed).random(2 * count).astype(np.float32)
    images = [encoded_cases.image("a"), encoded_cases.image("b")]
    table = encoded_cases.table(images, [(row // count, "liver") for row in range(2 * count)], area)
    chosen = falsification.choose(table, 0)
    assert (np.diff(chosen) > 0).all() and len(chosen) == 2 * min(count, falsification.MANY)
    assert {area[:count].argmin(), count + area[count:].argmin()} <= set(chosen)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_prompts_leave_the_global_embedding_alone_and_change_those_of_regions(corpus, fusion):
    config, model, params = prepared(fusion)
    table = eval_table(corpus, "test")
    kept, found = falsification.embed(model, params, corpus, table, config)
    assert kept.tolist() == [1, 2, 3, 4, 5]
    image = encode_corpus(model, params, corpus, "test", config, ()).image
    for way, each in found.items():
        np.testing.assert_allclose(each["global"], image[kept], atol=2e-6)
        np.testing.assert_allclose(np.linalg.norm(each["region"], axis=1), 1, atol=1e-5)
        moved = np.abs(each["region"] - each["global"]).max()
        assert moved < 2e-6 if way == "none" else moved > 1e-3
    # An image with one region says sixteen times the same.
    np.testing.assert_allclose(found["sixteen"]["region"][0], found["small"]["region"][0], atol=2e-6)


def test_models_of_other_seeds_are_asked_alike(corpus):
    config, model, params = prepared()
    table = eval_table(corpus, "test")

    def wrong(training, **seed):
        config.seed = training
        return falsification.embed(model, params, corpus, table, config, **seed)[1]["wrong"]["region"]

    np.testing.assert_array_equal(wrong(0), wrong(5))
    assert np.abs(wrong(0) - wrong(0, seed=1)).max() > 1e-3
    assert falsification.evaluate(model, params, tokens, corpus, "test", config, corpus.ontology, 4)["seed"] == 4


def test_numbers_are_those_of_the_image_evaluator(corpus):
    config, model, params = prepared()
    numbers = falsification.evaluate(model, params, tokens, corpus, "test", config, corpus.ontology)
    json.dumps(numbers)
    assert numbers["data"]["images"] == 5 and numbers["fusion"] == "tokens"
    assert all(value < 2e-6 for value in numbers["change"].values())
    assert numbers["global"]["none"] == numbers["global"]["sixteen"] == numbers["region"]["none"]
    assert {"image/accuracy", "image/balanced_accuracy"} <= set(numbers["global"]["none"])
    for way in falsification.ASKED:
        interval = numbers["intervals"][way]["image/tiny/accuracy"]  # one data set: its number is the mean
        assert interval["estimate"] == numbers["region"][way]["image/accuracy"]
        assert interval["low"] <= interval["estimate"] <= interval["high"]
    table = falsification.screen_table(numbers)
    assert len(table.splitlines()) == 10 and "image/accuracy" in table


def test_an_evaluation_that_is_asked_for_it_holds_the_same_numbers(corpus, tmp_path):
    config, model, params = prepared()
    corpus.directory = pathlib.Path(tmp_path)
    (tmp_path / "corpus.json").write_text("{}")
    given = (model, params, tokens, corpus, "test", config, ("none",), corpus.ontology, tmp_path / "out")
    assert not any(name.startswith("falsification/") for name in evaluate.run_evaluation(*given))
    config.eval.falsification = True
    evaluate.run_evaluation(*given)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    found = content["metrics"]
    numbers = falsification.evaluate(model, params, tokens, corpus, "test", config, corpus.ontology)
    assert content["details"]["falsification"] == numbers["intervals"]
    assert found["falsification/change"] == pytest.approx(max(numbers["change"].values()), abs=1e-5)
    for embedding in ("global", "region"):
        for way in falsification.ASKED:
            for name, value in numbers[embedding][way].items():
                assert found[f"falsification/{embedding}/{way}/{name}"] == pytest.approx(value, abs=1e-4), name


def test_the_command_writes_its_numbers(tmp_path):
    run, data = tiny_run.write_run(tmp_path / "run"), corpus_cases.write_folder(tmp_path / "own")
    command = [sys.executable, "-m", "medp_clip_jax.evaluators.falsification"]
    given = [f"--checkpoint={run}", f"--data={data}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "out" / falsification.FILE).read_text())
    assert "sixteen" in done.stdout and "region" in numbers
    assert results_cases.HEADER <= numbers.keys() and len(numbers["data"]["checksum"]) == 16
    assert len(set(numbers["prompts"].values())) == len(numbers["prompts"]) == len(falsification.ASKED)
    refused = subprocess.run([*command, f"--checkpoint={run}"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "--data" in refused.stderr and "Traceback" not in refused.stderr
