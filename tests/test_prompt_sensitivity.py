"""Sloppy and wrong prompts: where they point, whom they are asked of, and what is made of the answers."""

import math
import types

import numpy as np
import pytest
import tiny_corpus
import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st

from medp_clip_jax import api, results, simulate
from medp_clip_jax.eval_input import eval_batches, eval_table, some_regions
from medp_clip_jax.evaluators import prompt_sensitivity, wrong_places
from medp_clip_jax.evaluators.encode import encode_corpus, encode_table
from medp_clip_jax.records import decode_mask

KINDS = ("mask", "box", "point")
IDS = ("cell", "left_kidney", "liver", "nodule")
SEEDS = st.integers(0, 2**32 - 1)


def tokens(texts, length):
    return tiny_corpus.tokenizer(texts, length) + 1


def corpus_of(records):
    made = tiny_corpus.corpus({"tiny": {"test": records}})
    made.labels, made.directory = IDS, types.SimpleNamespace(name="tiny")
    return made


@pytest.fixture(scope="module")
def small():
    """A corpus in memory, a model, its parameters and settings."""
    rng = np.random.default_rng(0)
    corpus = corpus_of([tiny_corpus.random_example(rng, str(i), regions) for i, regions in enumerate((3, 0, 20, 4))])
    config = tiny_run.config()
    config.eval.update(batch_size=3, regions=3)
    model = api.Model(config.model)
    return corpus, model, tiny_run.parameters(model), config


def measure(small, **fields):
    corpus, model, params, config = small
    encoded = encode_corpus(model, params, corpus, "test", config, KINDS)
    text = np.eye(len(IDS), config.model.embed, dtype=np.float32)
    given = (model, params, corpus, config, encoded, corpus.ontology, text, IDS, 50)
    return prompt_sensitivity.evaluate(*given, **fields)


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_a_wrong_place_has_the_regions_size_and_does_not_overlap_it(seed):
    example = tiny_corpus.random_example(np.random.default_rng(seed), "a", 4)
    table = eval_table(corpus_of([tiny_corpus.example([], image_id="b"), example]), "test")
    size = np.tile([example.width, example.height], 2)
    for row in range(4):
        own, place = table.box[row] / size, wrong_places.elsewhere(table, row, seed)
        if place is None:  # beside the region there is hardly any room
            extent, room = own[2:] - own[:2], np.maximum(own[:2], 1 - own[2:])
            assert (room - extent < 0.2 * (1 - extent)).all()
            continue
        assert (place >= 0).all() and (place <= 1).all()
        np.testing.assert_allclose(place[2:] - place[:2], own[2:] - own[:2], atol=1e-6)
        assert (np.minimum(place[2:], own[2:]) - np.maximum(place[:2], own[:2])).min() <= 1e-6


def test_the_emptiest_place_is_one_where_nothing_is_annotated_if_there_is_any():
    mask = np.zeros((40, 48), bool)
    mask[:, :20] = True
    small = np.zeros((40, 48), bool)
    small[2:6, 2:8] = True
    example = tiny_corpus.example([tiny_corpus.region("liver", mask), tiny_corpus.region("cell", small)])
    table = eval_table(corpus_of([example]), "test")
    for seed in range(5):
        x0, y0, x1, y1 = wrong_places.emptiest(table, 1, seed)
        assert x0 >= 20 / 48 and np.allclose([x1 - x0, y1 - y0], [6 / 48, 4 / 40])
        np.testing.assert_array_equal(wrong_places.elsewhere(table, 1, seed), (x0, y0, x1, y1))


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_a_moved_mask_is_the_mask_at_the_other_place(seed):
    """Moved by whole cells, its map is the same map elsewhere; a box and a click move likewise."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((64, 64), bool)
    mask[10:26, 6:18] = rng.random((16, 12)) < 0.5
    mask[10, 6] = mask[25, 17] = True
    corpus = corpus_of([tiny_corpus.example([tiny_corpus.region("liver", mask)], np.zeros((64, 64), np.uint8))])
    right, down = rng.integers(0, 5, 2) * 4
    place = np.float32([6 + right, 10 + down, 18 + right, 26 + down]) / 64
    table, config = eval_table(corpus, "test"), tiny_corpus.config()
    exact = next(eval_batches(corpus, table, config, KINDS))["prompts"]
    moved = next(
        eval_batches(corpus, table, config, KINDS, change=lambda _, *p: prompt_sensitivity.misplaced(place, *p))
    )["prompts"]
    cells = exact["mask"].masks[0, 0]
    np.testing.assert_array_equal(moved["mask"].masks[0, 0], np.roll(cells, (down // 4, right // 4), (0, 1)))
    np.testing.assert_allclose(moved["box"].boxes[0, 0], place, atol=1e-6)
    step = np.array([right, down]) / 64
    np.testing.assert_allclose(moved["point"].points[0, 0, 0] - exact["point"].points[0, 0, 0], step, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_a_sloppy_prompt_still_points_at_the_region(seed):
    example = tiny_corpus.random_example(np.random.default_rng(seed), "a", 3)
    corpus, config = corpus_of([example]), tiny_corpus.config()
    table = eval_table(corpus, "test")

    def change(row, *prompt):
        return prompt_sensitivity.jittered(np.random.default_rng((seed, row)), *prompt)

    exact = next(eval_batches(corpus, table, config, KINDS))["prompts"]
    found = next(eval_batches(corpus, table, config, KINDS, change=change))["prompts"]
    for slot, region in enumerate(example.regions):
        x, y = found["point"].points[0, slot, 0] * (example.width, example.height)
        assert decode_mask(region.rle, example.height, example.width)[int(y), int(x)]
        assert (found["point"].point_labels[0, slot] == 1).all()
        box, old = found["box"].boxes[0, slot], exact["box"].boxes[0, slot]
        assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
        assert (np.minimum(box[2:], old[2:]) > np.maximum(box[:2], old[:2])).all()
        rows, columns = np.nonzero(found["mask"].masks[0, slot])  # the mask goes with its box
        cells = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 16
        assert (np.abs(cells - box) < 1 / 16 + 1e-3).all()


def test_the_sample_is_bounded_and_the_same_for_every_model(small, monkeypatch):
    table = eval_table(small[0], "test")
    rows = prompt_sensitivity.sample(table, 0)
    assert (np.diff(rows) > 0).all() and np.bincount(table.image_index[rows]).tolist() == [3, 0, 16, 4]
    monkeypatch.setattr(prompt_sensitivity, "IMAGES", 2)
    draws = [prompt_sensitivity.sample(table, seed) for seed in range(8)]
    assert all(len(np.unique(table.image_index[each])) == 2 for each in draws)
    np.testing.assert_array_equal(draws[3], prompt_sensitivity.sample(table, 3))
    assert len({each.tobytes() for each in draws}) > 1


def test_some_regions_are_asked_as_among_all(small):
    corpus, model, params, config = small
    table, rows = eval_table(corpus, "test"), np.array([1, 5, 9, 25])
    every = encode_corpus(model, params, corpus, "test", config, KINDS)
    found = encode_table(model, params, corpus, config, some_regions(table, rows), KINDS)
    assert found.table.label == [table.label[row] for row in rows] and len(found.table.images) == 3
    for kind in KINDS:
        np.testing.assert_allclose(found.regions[kind], every.regions[kind][rows], atol=2e-6)


def test_prompts_that_do_not_move_change_nothing(small, monkeypatch):
    monkeypatch.setattr(prompt_sensitivity, "SHARE", 0.0)
    monkeypatch.setattr(simulate, "inside_click", lambda target, rng, central: click_of(target))
    found, details = measure(small)
    for kind in KINDS:
        for name in ("mean", "p5", "p50", "p95"):
            assert found[f"sensitivity/{kind}/jitter/cosine_{name}"] == pytest.approx(1, abs=1e-5)
        for name in ("micro", "within_image"):
            assert found[f"sensitivity/{kind}/jitter/{name}_before"] == found[f"sensitivity/{kind}/jitter/{name}_after"]
            nothing = details["sensitivity"]["kinds"][kind]["jitter"][name]["difference"]
            assert nothing == {"estimate": 0.0, "low": 0.0, "high": 0.0}


def click_of(target):
    x, y = simulate.centre_click(target.mask)
    return target.corner[0] + x, target.corner[1] + y


def test_wrong_prompts_move_the_embedding_more_than_sloppy_ones(small):
    found, details = measure(small)
    assert details["sensitivity"]["images"] == 3 and details["sensitivity"]["regions"]["jitter"] == 23
    for kind in KINDS:
        jitter, wrong = (found[f"sensitivity/{kind}/{way}/cosine_mean"] for way in ("jitter", "wrong"))
        assert wrong < jitter < 1 - 1e-6
        interval = details["sensitivity"]["kinds"][kind]["jitter"]["cosine"]
        assert interval["low"] <= interval["estimate"] <= interval["high"]
        assert interval["estimate"] == pytest.approx(jitter, abs=1e-5)
    rows = [
        line.split()
        for line in results.screen_table(found | dict.fromkeys(map("region/{}/micro".format, KINDS), 0.5)).splitlines()
    ]
    assert [row[0] for row in rows if len(row) == 7 and row[0] in KINDS] == list(KINDS)
    assert measure(small)[0] == found and measure(small, seed=1)[0] != found


def test_accuracy_within_an_image_has_all_its_labels_as_candidates(small, monkeypatch):
    """The sample holds one region of each image, which alone would have no other label to be told from."""
    monkeypatch.setattr(prompt_sensitivity, "REGIONS", 1)
    found, _ = measure(small)
    assert not math.isnan(found["sensitivity/mask/jitter/within_image_before"])


def test_a_region_that_fills_its_image_has_no_wrong_prompt(small):
    _, model, params, config = small
    records = [tiny_corpus.example([tiny_corpus.region("liver", np.ones((40, 48), bool))])]
    found, details = measure((corpus_of(records), model, params, config))
    assert details["sensitivity"]["regions"] == {"jitter": 1, "wrong": 0}
    assert math.isnan(found["sensitivity/mask/wrong/cosine_mean"])
    assert math.isnan(found["sensitivity/mask/wrong/micro_after"])
    assert not math.isnan(found["sensitivity/mask/jitter/cosine_mean"])
    assert measure((corpus_of([tiny_corpus.example()]), model, params, config)) == ({}, {})
