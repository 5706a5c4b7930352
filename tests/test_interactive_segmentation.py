"""Sessions with simulated users, their numbers, and the Predictor, on an untrained decoder."""

import functools
import pathlib
import tempfile

import jax
import numpy as np
import pytest
import tiny_corpus
import tiny_run

from medp_clip_jax import api, mask_images, predictor, processor
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import click_sessions
from medp_clip_jax.evaluators import interactive_segmentation as evaluator
from medp_clip_jax.evaluators.click_protocols import center
from medp_clip_jax.step import init_params

pytestmark = pytest.mark.xdist_group("compiled sessions")


@functools.lru_cache
def loaded():
    config = tiny_run.config()
    config.model.segmenter.update(width=16, depth=1, heads=2, stride=4, detail=8)
    config.eval.update(batch_size=2, regions=3)
    model = api.Model(config.model)
    return config, model, jax.jit(functools.partial(init_params, model.module, 0))()


@functools.lru_cache
def evaluated(protocol: str = "center"):
    config, model, params = loaded()
    corpus = tiny_corpus.random_corpus(first=3, second=2)
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder) / "page.html"
        found = evaluator.evaluate(model, params, corpus, "train", config, protocol, 50, clicks=3, report=page)
        return *found, page.read_text()


def test_every_region_is_asked_and_every_click_is_stored():
    numbers, replay, _ = evaluated()
    starts = [session["start"] for session in replay["sessions"]]
    assert numbers["regions"] == 15 and starts.count("click") == starts.count("box") == starts.count("noisy_box") == 15
    assert all(len(session["clicks"]) <= 3 for session in replay["sessions"])
    assert {len(session["dice"]) for session in replay["sessions"] if session["start"] == "click"} == {3}
    assert {len(session["dice"]) for session in replay["sessions"] if session["start"] == "noisy_box"} == {1}
    assert {"dice/click_1", "dice/click_3", "iou/box", "nsd/noisy_box", "hd95/box_click_3"} <= set(numbers["mean"])
    assert set(numbers["data_sets"]) == {"tiny"} and "NoC@85" in numbers["noc"]
    assert "HD95" in evaluator.screen_table(numbers)


def test_the_report_shows_the_numbers_curves_and_pictures_of_the_extremes():
    numbers, _, page = evaluated()
    assert f"{numbers['mean']['dice/click_1']['value']:.3f}" in page and "NoC@90" in page
    assert page.count("<figure") == 12 and page.count("data:image/jpeg") == 12  # worst, median and best
    assert "polyline" in page and "<script" not in page and "medical device" in page


def test_stored_clicks_replay_and_the_first_is_the_centre_of_its_region():
    from medp_clip_jax import spans

    corpus, (_, replay, _) = tiny_corpus.random_corpus(first=3, second=2), evaluated()
    for session in (session for session in replay["sessions"] if session["start"] == "click"):
        name = "first" if session["image"].startswith("first") else "second"
        example = next(e for e in corpus.source(name, "train") if e.image_id == session["image"])
        (found,) = spans.read([example.regions[session["region"]].rle], example.height, example.width)
        truth = spans.picture(found, (0, 0, example.width, example.height))
        assert tuple(session["clicks"][0]) == center(truth, np.zeros_like(truth))
    assert (
        evaluator.evaluate(loaded()[1], loaded()[2], corpus, "train", loaded()[0], "center", 0, clicks=3)[1] == replay
    )


def test_after_a_perfect_answer_nobody_clicks_and_scores_stay():
    truth = np.zeros((8, 8), bool)
    truth[2:5, 3:7] = True
    user = click_sessions._User(0, truth, np.float32([0, 0, 1, 1]), "click", "center", 0)
    prompts = click_sessions._blank((1, 1), 3)
    for turn, answer in enumerate((truth, ~truth, truth)):
        user.prompt(prompts, (0, 0), turn)
        user.see(np.where(answer, 1.0, -1.0))
    assert user.session().dice == [1, 1, 1] and len(user.clicks) == 1 == (prompts.point_labels >= 0).sum()


def test_clicks_needed_counts_failures_as_all_clicks():
    needed, failed = evaluator.clicks_needed(np.array([[0.5, 0.9, 0.95], [0.1, 0.2, 0.3], [0.9, 0.1, 0.1]]), 0.9)
    assert needed.tolist() == [2, 3, 1] and failed.tolist() == [False, True, False]


def test_unknown_protocol_and_model_without_decoder_are_refused():
    config, model, params = loaded()
    with pytest.raises(InputError, match="center, sam_med2d, imis"):
        evaluator.evaluate(model, params, None, "train", config, "mine")
    with pytest.raises(InputError, match="no mask decoder"):
        evaluator.evaluate(api.Model(tiny_run.config().model), params, None, "train", config)


def test_predictor_corrects_and_takes_back():
    _, model, params = loaded()
    held = predictor.Predictor(model, params, processor.Processor(32, None, 16))
    with pytest.raises(InputError, match="set_image"):
        held.click(1, 1)
    held.set_image(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
    first = held.click(10, 5)
    assert first.mask.shape == (20, 40) and first.embedding.shape == (16,)
    second = held.click(30, 15, inside=False)
    assert not np.array_equal(first.logits, second.logits)
    assert held.undo() is first and held.undo() is None
    assert np.array_equal(held.click(10, 5).logits, first.logits)
    with pytest.raises(InputError, match="outside"):
        held.click(50, 5)
    held.restart()
    assert held.box(2, 3, 20, 12).mask.shape == (20, 40)


def test_masks_return_from_rle_and_from_the_canvas():
    rng = np.random.default_rng(1)
    mask = rng.random((7, 5)) < 0.5
    assert np.array_equal(mask_images.from_rle(mask_images.to_rle(mask)), mask)
    logits = np.where(np.arange(8)[:, None] < 4, 1.0, -1.0) * np.ones((8, 8))
    found = mask_images.on_image(logits, (0, 0.25, 1, 0.75), (16, 8))
    assert (found[:4] > 0).all() and (found[4:] < 0).all()
