"""AUROC and average precision under weights of groups: those of the items repeated as often as they were drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from medp_clip_jax import rank_statistics, statistics
from medp_clip_jax.rank_statistics import Ranking

METRICS = ((rank_statistics.auroc, sk.roc_auc_score), (rank_statistics.average_precision, sk.average_precision_score))


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 6), st.sampled_from(METRICS))
def test_a_replicate_is_the_number_of_the_items_that_were_drawn(seed, items, groups, metric):
    ours, theirs = metric
    rng = np.random.default_rng(seed)
    score, truth = rng.integers(0, 6, (items, 2)) / 4, rng.random((items, 2)) < 0.5
    group, weights = rng.integers(0, groups, items), rng.integers(0, 4, (5, groups))
    found = Ranking(score, truth, group, groups, ours).values(weights.astype(float))
    for weight, value in zip(weights, found, strict=True):
        drawn = np.repeat(np.arange(items), weight[group])
        needs = 2 if theirs is sk.roc_auc_score else 1
        columns = [c for c in range(2) if len(set(truth[drawn, c])) >= needs and truth[drawn, c].any()]
        expected = np.mean([theirs(truth[drawn, c], score[drawn, c]) for c in columns]) if columns else np.nan
        assert value == pytest.approx(expected, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([ours for ours, _ in METRICS]))
def test_a_model_against_itself_differs_by_nothing_and_a_better_one_by_more(seed, metric):
    rng = np.random.default_rng(seed)
    group, truth = np.repeat(np.arange(60), 3), rng.random((180, 3)) < 0.4
    worse, better = (truth * gain + rng.normal(size=truth.shape) for gain in (0.0, 3.0))
    first, second = (Ranking(score, truth, group, 60, metric) for score in (better, worse))
    same = statistics.difference(first, first, 50)
    assert same.estimate == same.low == same.high == 0
    lead = statistics.difference(first, second, 50)
    assert 0 < lead.low <= lead.estimate <= lead.high


def test_slices_of_one_patient_do_not_narrow_an_interval():
    rng = np.random.default_rng(0)
    truth = rng.random((40, 1)) < 0.5
    score = truth + rng.normal(size=truth.shape)
    group = np.arange(40)
    once = statistics.interval(Ranking(score, truth, group, 40, rank_statistics.auroc), 200)
    rows = np.repeat(group, 5)
    often = statistics.interval(Ranking(score[rows], truth[rows], rows, 40, rank_statistics.auroc), 200)
    assert (often.estimate, often.low, often.high) == pytest.approx((once.estimate, once.low, once.high))
