"""Changed pictures keep their regions, and the accuracy on them is compared with that on the pictures as they were."""

import json
import subprocess
import sys
import types

import corpus_cases
import numpy as np
import pytest
import results_cases
import tiny_corpus
import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st

from medp_clip_jax import api, prompt_kinds
from medp_clip_jax.evaluators import image_changes, robustness
from medp_clip_jax.evaluators.encode import encode_corpus
from medp_clip_jax.records import decode_image, decode_mask

CHANGES = [(change, strength) for change, strengths in image_changes.STRENGTHS.items() for strength in strengths]
SEEDS = st.integers(0, 2**32 - 1)


def case(seed, regions=3):
    return tiny_corpus.random_example(np.random.default_rng(seed), "a", regions)


def after(example, change, strength, seed=0):
    return image_changes.changed(example, change, strength, np.random.default_rng(seed))


@settings(deadline=None)
@given(SEEDS, st.sampled_from(CHANGES), SEEDS)
def test_regions_stay_in_number_order_and_on_the_picture(seed, change, coin):
    before = case(seed)
    found = after(before, *change, coin)
    assert [region.label for region in found.regions] == [region.label for region in before.regions]
    assert decode_image(found.image).shape == (found.height, found.width, 3)
    if change[0] != "rotation":
        assert found.regions == before.regions and (found.width, found.height) == (before.width, before.height)
    for region in found.regions:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= found.width and 0 <= y0 < y1 <= found.height
        if region.rle:
            rows, columns = np.nonzero(decode_mask(region.rle, found.height, found.width))
            assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert region.area == len(rows)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_always_the_same_and_grows_with_its_strength(change):
    before = case(3)
    assert after(before, *change) == after(before, *change)
    if change[0] != "rotation":
        first, last = (image_changes.STRENGTHS[change[0]][i] for i in (0, -1))
        pixels = decode_image(before.image).astype(float)
        away = [np.abs(decode_image(after(before, change[0], s).image) - pixels).mean() for s in (first, last)]
        assert 0.2 < away[0] < away[1]
    if change[0] in ("intensity", "noise", "blur"):
        assert np.ptp(decode_image(after(before, *change).image), -1).max() == 0  # grey stays grey


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(-45, 45))
def test_masks_and_boxes_turn_with_the_picture(seed, degrees):
    rng = np.random.default_rng(seed)
    width, height, x, y = 90, 60, int(rng.integers(0, 60)), int(rng.integers(0, 40))
    mask = np.zeros((height, width), bool)
    mask[y : y + 18, x : x + 27] = True
    pixels = np.where(mask, 255, 0).astype(np.uint8)
    masked = tiny_corpus.region("liver", mask)
    boxed = tiny_corpus.box_region("cell", masked.box)
    before = tiny_corpus.example([masked, boxed], pixels)
    coin = next(i for i in range(9) if np.random.default_rng(i).integers(2))  # to the left
    found = after(before, "rotation", degrees, coin)
    turned = decode_mask(found.regions[0].rle, found.height, found.width)
    bright = decode_image(found.image)[..., 0] > 127
    corners = decode_image(found.image)[..., 0] == image_changes.PADDING[0]
    edge = 2 * (18 + 27)  # pixels on which the two resamplings may differ
    assert (turned & ~bright).sum() < edge and (bright & ~turned & ~corners).sum() < edge
    assert turned.sum() == pytest.approx(mask.sum(), rel=0.05)
    assert np.abs(np.subtract(found.regions[0].box, found.regions[1].box)).max() <= 2 and not found.regions[1].rle


@pytest.fixture(scope="module")
def small():
    """A corpus in memory, a model, its parameters and settings."""
    rng = np.random.default_rng(0)
    records = [tiny_corpus.random_example(rng, str(i), 3) for i in range(6)]
    corpus = tiny_corpus.corpus({"tiny": {"test": records}})
    corpus.labels, corpus.directory = ("cell", "left_kidney", "liver", "nodule"), types.SimpleNamespace(name="tiny")
    config = tiny_run.config()
    config.eval.update(batch_size=3, regions=3)
    model = api.Model(config.model)
    return corpus, model, tiny_run.parameters(model), config


def tokens(texts, length):
    return tiny_corpus.tokenizer(texts, length) + 1


def test_changed_pictures_are_what_the_model_sees(small):
    corpus, model, params, config = small
    before = encode_corpus(model, params, corpus, "test", config, ("mask",))
    other = image_changes.ChangedCorpus(corpus, "noise", 0.16, 0)
    found = encode_corpus(model, params, other, "test", config, ("mask",))
    assert found.table.label == before.table.label and np.abs(found.image - before.image).max() > 1e-3


def test_every_change_is_compared_with_the_pictures_as_they_were(small, monkeypatch):
    corpus, model, params, config = small
    monkeypatch.setattr(robustness, "STRENGTHS", {"noise": (0.0, 0.16), "rotation": (15.0,)})
    numbers = robustness.evaluate(
        model, params, tokens, corpus, "test", config, corpus.ontology, ("mask", "box"), (), 50
    )
    json.dumps(numbers)
    assert [(entry["change"], entry["strength"]) for entry in numbers["changes"]] == [
        ("noise", 0.0),
        ("noise", 0.16),
        ("rotation", 15.0),
    ]
    for entry in numbers["changes"]:
        for kind, cells in entry["kinds"].items():
            cell, before = cells["micro"], numbers["unchanged"][kind]["micro"]["estimate"]
            assert cell["difference"]["estimate"] == pytest.approx(cell["accuracy"] - before, abs=1e-5)
    nothing = numbers["changes"][0]["kinds"]["mask"]["micro"]["difference"]
    assert nothing == {"estimate": 0.0, "low": 0.0, "high": 0.0}


def test_references_are_measured_on_changed_pictures_too(small, monkeypatch):
    """What a baseline without prompts is asked by; the picture of a region is one of the changed picture."""
    corpus, model, params, config = small
    monkeypatch.setattr(robustness, "STRENGTHS", {"rotation": (0.0, 15.0)})
    kinds = prompt_kinds.REFERENCES
    given = (model, params, tokens, corpus, "test", config, corpus.ontology, kinds, (), 50)
    numbers = robustness.evaluate(*given)
    for entry in numbers["changes"]:
        assert tuple(entry["kinds"]) == tuple(numbers["unchanged"]) == kinds
    assert {
        kind: cells["micro"]["difference"]["estimate"] for kind, cells in numbers["changes"][0]["kinds"].items()
    } == dict.fromkeys(kinds, 0.0)
    head = robustness.screen_table(numbers).splitlines()[0].split()
    assert head == ["top-1,", "%", *kinds]
    other = image_changes.ChangedCorpus(corpus, "noise", 0.16, 0)
    before, after = (encode_corpus(model, params, each, "test", config, kinds) for each in (corpus, other))
    assert all(np.abs(after.regions[kind] - before.regions[kind]).max() > 1e-3 for kind in kinds)


def test_models_of_other_seeds_see_the_same_changes(small, monkeypatch):
    corpus, model, params, config = small
    monkeypatch.setattr(robustness, "STRENGTHS", {"noise": (0.16,)})

    def measured(training, **seed):
        config.seed = training
        return robustness.evaluate(
            model, params, tokens, corpus, "test", config, corpus.ontology, ("mask",), (), 50, **seed
        )

    pictures = []
    monkeypatch.setattr(robustness, "ChangedCorpus", lambda *given: pictures.append(given) or corpus)
    assert measured(0) == measured(5) and measured(0, seed=1)["seed"] == 1
    assert [given[-1] for given in pictures] == [0, 0, 1]


def test_the_table_marks_what_differs():
    def cell(low, high):
        return {"micro": {"accuracy": 0.5, "difference": {"estimate": 0.0, "low": low, "high": high}}}

    numbers = {
        "unchanged": {kind: {"micro": {"estimate": 0.625}} for kind in ("mask", "box")},
        "changes": [
            {"change": "jpeg", "strength": 10, "kinds": {"mask": cell(-0.3, -0.1), "box": cell(-0.1, 0.1)}},
            {"change": "blur", "strength": 0.004, "kinds": {"mask": cell(None, None), "box": cell(0.01, 0.1)}},
        ],
    }
    lines = [line.split() for line in robustness.screen_table(numbers).splitlines()]
    assert lines[1] == ["unchanged", "62.5", "62.5"]
    assert lines[2] == ["jpeg", "10", "50.0*", "50.0"] and lines[3] == ["blur", "0.004", "50.0", "50.0*"]


def test_the_command_writes_its_numbers_and_refuses_unknown_kinds(tmp_path):
    run, data = tiny_run.write_run(tmp_path / "run"), corpus_cases.write_folder(tmp_path / "own")

    def command(*flags):
        line = [sys.executable, "-m", "medp_clip_jax.evaluators.robustness", f"--checkpoint={run}", f"--data={data}"]
        return subprocess.run([*line, *flags], capture_output=True, text=True, check=False)

    refused = command("--kinds=mask,circle")
    assert refused.returncode == 2 and "'circle'" in refused.stderr and "Traceback" not in refused.stderr
    done = command("--kinds=mask,crop", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "out" / robustness.FILE).read_text())
    assert "rotation" in done.stdout and len(numbers["changes"]) == len(CHANGES)
    assert numbers["data"]["labels"] >= len(tiny_run.LABELS)  # those of the training compete too
    assert results_cases.HEADER <= numbers.keys() and len(numbers["data"]["checksum"]) == 16
    assert numbers["prompts"].keys() == {"mask"} and numbers["checkpoint"]["name"] == "run"
    assert set(tiny_run.LABELS) <= numbers["sentences"]["labels"].keys()
