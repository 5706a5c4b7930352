"""Calibration and abstention on embeddings made by hand, and against the definition of each number."""

import numpy as np
import pytest
from encoded_cases import IDS, ONTOLOGY, TEXT, encoded, image, table, unit
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax.evaluators import calibration


def regions(labels):
    return table([image(str(i)) for i in range(len(labels))], list(enumerate(labels)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_calibration_error_is_that_of_its_definition(seed, count):
    rng = np.random.default_rng(seed)
    confidence = rng.choice([rng.uniform(1e-6, 1, count), np.full(count, rng.integers(1, 16) / 15)])
    right = rng.random(count) < confidence
    expected = 0.0
    for i in range(15):
        inside = [j for j in range(count) if i / 15 < confidence[j] <= (i + 1) / 15]
        if inside:
            expected += abs(sum(confidence[j] - right[j] for j in inside)) / count
    bins = calibration.reliability(confidence, right)
    found = sum(b["share"] * abs(b["confidence"] - b["accuracy"]) for b in bins)
    assert found == pytest.approx(expected, abs=1e-9) and sum(b["share"] for b in bins) == pytest.approx(1)


def test_probabilities_are_the_softmax_over_the_bank_and_over_what_is_no_kin():
    related = calibration.kin(ONTOLOGY, IDS)
    assert (related == related.T).all() and related.diagonal().all()
    organ, liver, tumor = (IDS.index(name) for name in ("organ", "liver", "tumor"))
    assert related[organ, liver] and not related[liver, tumor] and not related[liver, IDS.index("kidney_left")]
    embedding = unit(np.random.default_rng(0).normal(size=(4, 8)))
    right, whole, rest = calibration.scores(embedding, TEXT, np.full(4, liver), ~related, 10.0)
    cosine = embedding @ TEXT.T
    odds = np.exp(10.0 * cosine)
    assert whole["probability"] == pytest.approx(odds.max(1) / odds.sum(1), rel=1e-5)
    left = odds[:, ~related[liver]]  # neither the liver nor organs in general
    assert left.shape[1] == 3 and rest["probability"] == pytest.approx(left.max(1) / left.sum(1), rel=1e-5)
    assert (right == (cosine.argmax(1) == liver)).all() and (rest["cosine"] <= whole["cosine"]).all()


def test_a_model_that_knows_is_sure_and_abstains_and_one_that_does_not_cannot():
    labels = ["liver", "tumor", "kidney_left", "liver", "tumor", "kidney_right"] * 4
    lost = np.tile(unit(TEXT.sum(0)), (len(labels), 1))
    known = encoded(regions(labels), mask=labels, box=lost)
    flat, details = calibration.evaluate(known, ONTOLOGY, TEXT, IDS, 100.0, 50)
    assert flat["calibration/mask/ece"] < 1e-6 and flat["calibration/mask/accuracy"] == 1
    for name in ("probability", "cosine"):
        assert flat[f"calibration/mask/absent_auroc_{name}"] == flat[f"calibration/mask/absent_rejected_{name}"] == 1
    # All labels alike: a fifth of the probability each, and the cosine is the same without the true one.
    assert flat["calibration/box/confidence"] == pytest.approx(0.2)
    assert flat["calibration/box/absent_auroc_cosine"] == 0.5 and flat["calibration/box/absent_rejected_cosine"] == 0
    intervals = details["calibration"]["mask"]["intervals"]
    assert intervals["absent_rejected_cosine"]["low"] == intervals["absent_auroc_cosine"]["low"] == 1
    assert {f"calibration/mask/{name}" for name in intervals} == {name for name in flat if "/mask/" in name}
    for name, interval in intervals.items():
        assert interval["estimate"] == pytest.approx(flat[f"calibration/mask/{name}"]), name


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 6))
def test_a_replicate_has_the_calibration_error_of_the_regions_drawn(seed, count, groups):
    rng = np.random.default_rng(seed)
    confidence, group = rng.uniform(1e-6, 1, count), rng.integers(0, groups, count)
    right, weights = rng.random(count) < confidence, rng.integers(0, 4, (5, group.max() + 1))
    for weight, value in zip(weights, calibration.gaps(confidence, right, group).values(weights), strict=True):
        drawn = np.repeat(np.arange(count), weight[group])
        bins = calibration.reliability(confidence[drawn], right[drawn])
        assert value == pytest.approx(sum(b["share"] * abs(b["confidence"] - b["accuracy"]) for b in bins))


def test_nothing_is_said_without_regions_or_without_any_other_label():
    assert calibration.evaluate(encoded(regions([]), mask=[]), ONTOLOGY, TEXT, IDS, 10.0)[0] == {}
    alone = encoded(regions(["liver"]), mask=np.eye(1, 8, dtype=np.float32))
    assert calibration.evaluate(alone, ONTOLOGY, TEXT[:1], ("liver",), 10.0)[0] == {}
