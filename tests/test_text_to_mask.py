"""A text finds its regions and no others: with a model that always knows, and with an untrained one."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_corpus
import tiny_run

from medp_clip_jax import api, text_masks
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import text_to_mask
from medp_clip_jax.models.vit import Images
from medp_clip_jax.step import init_params

pytestmark = pytest.mark.xdist_group("compiled sessions")
SIDE, TEXTS = 32, np.eye(4, dtype=np.float32)
PARAMS = {"logit_scale": jnp.log(100.0)}


class Oracle:
    """Knows a picture [side, side] of texts: a click is called what lies there, its mask is all that is so called."""

    config = types.SimpleNamespace(segmenter=types.SimpleNamespace(width=1))

    def __init__(self, picture):
        self.picture = picture

    def _at(self, prompts):
        x, y = np.moveaxis(np.floor(np.asarray(prompts.points)[:, :, 0] * SIDE).astype(int), -1, 0)
        return self.picture[y, x]

    def encode_regions(self, params, features, prompts):
        return jnp.asarray(TEXTS[self._at(prompts)])

    def segment(self, params, features, prompts):
        here = self._at(prompts)
        logits = np.where(self.picture == here[..., None, None], 5.0, -5.0)
        ones = np.ones(here.shape, np.float32)
        return types.SimpleNamespace(logits=logits, iou=ones, present=ones, embedding=TEXTS[here])


def picture():
    drawn = np.zeros((SIDE, SIDE), int)
    drawn[2:12, 3:15], drawn[20:30, 18:31] = 1, 2
    return drawn


def test_a_text_selects_its_own_region_and_an_absent_one_none():
    features = types.SimpleNamespace(embedding=np.zeros((1, 4)))
    (found,) = text_masks.find(Oracle(picture()), PARAMS, features, TEXTS, [1, 2, 3])
    for text, answer in zip((1, 2), found, strict=False):
        assert len(answer.score) == 1 and answer.best == pytest.approx(1)
        assert np.array_equal(answer.logits[0] > 0, picture() == text)
        rows, columns = np.nonzero(answer.chance > 0.5)
        assert (picture()[2 * rows + 1, 2 * columns + 1] == text).all()
    assert not len(found[2].score) and found[2].best < 1e-6


def test_what_cannot_be_asked_is_refused():
    features = types.SimpleNamespace(embedding=np.zeros((1, 4)))
    with pytest.raises(InputError, match="that they compete with"):
        text_masks.find(Oracle(picture()), PARAMS, features, TEXTS[:1], [0])
    blind = types.SimpleNamespace(config=types.SimpleNamespace(segmenter=types.SimpleNamespace(width=0)))
    with pytest.raises(InputError, match="no mask decoder"):
        text_masks.find(blind, PARAMS, features, TEXTS, [0])


def test_the_protocol_asks_for_present_and_for_absent_labels():
    config = tiny_run.config()
    config.model.segmenter.update(width=16, depth=1, heads=2, stride=4, detail=8)
    config.eval.update(batch_size=2, regions=3)
    model = api.Model(config.model)
    params = jax.jit(functools.partial(init_params, model.module, 0))()
    corpus = tiny_corpus.random_corpus(first=3, second=2)

    def tokenizer(texts, length):
        return tiny_corpus.tokenizer(texts, length) + 1

    asked = (model, params, tokenizer, corpus, "train", config, corpus.ontology)
    numbers = text_to_mask.evaluate(*asked, threshold=0.0, replicates=20)
    assert numbers["present"] > 0 and numbers["found"] == 1.0 and 0 < numbers["dice"]["value"] < 1
    assert numbers["absent"] > 0 and numbers["rejected"] == 0.0 and 0 <= numbers["auroc"] <= 1
    again = text_to_mask.evaluate(*asked, threshold=1.0, replicates=20)
    assert again["found"] == 0.0 and again["rejected"] == 1.0 and again["dice"]["value"] == 0
    assert again["auroc"] == numbers["auroc"] and "Dice" in text_to_mask.screen_table(numbers)


def test_similarity_is_the_cosine_of_a_click_on_each_cell():
    config = tiny_run.config()
    model = api.Model(config.model)
    params = jax.jit(functools.partial(init_params, model.module, 0))()
    images = Images(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8), np.float32([[0, 0, 1, 1]] * 2))
    features = model.encode_image(params, images)
    text = np.eye(config.model.embed, dtype=np.float32)[:3]
    found = text_masks.similarity(model, params, features, text, grid=4)
    assert found.shape == (2, 3, 4, 4)
    point = text_masks.RegionPrompts.from_points([[[[5 / 8, 1 / 8]]]] * 2, [[[1]]] * 2, (1, 1))
    np.testing.assert_allclose(found[:, :, 0, 2], model.encode_regions(params, features, point)[:, 0, :3], atol=2e-6)
