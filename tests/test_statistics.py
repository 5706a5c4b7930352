"""Bootstrap intervals over groups: what they estimate, how wide they are, and that pairs share their draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax import statistics

ITEMS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), st.integers(-1, 3)), min_size=1, max_size=40
)  # value, group, column


@given(ITEMS)
def test_estimate_is_the_mean_of_column_means(items):
    values, groups, columns = map(np.array, zip(*items, strict=True))
    means = [values[columns == c].mean() for c in range(4) if (columns == c).any()]
    found = statistics.estimate(statistics.tally(values, groups, columns))
    assert math.isnan(found) if not means else found == pytest.approx(np.mean(means))


@given(ITEMS)
def test_interval_holds_the_replicates_and_is_repeatable(items):
    values, groups, columns = map(np.array, zip(*items, strict=True))
    item = statistics.tally(values, groups, columns)
    found = statistics.interval(item, replicates=50, seed=1)
    assert str(found) == str(statistics.interval(item, replicates=50, seed=1))
    if len(set(groups[columns >= 0])) < 2:
        assert math.isnan(found.low) and math.isnan(found.high)
    else:
        assert 0 <= found.low <= found.high <= 1


@given(ITEMS)
def test_a_number_minus_itself_has_no_width(items):
    values, groups, columns = map(np.array, zip(*items, strict=True))
    item = statistics.tally(values, groups, columns)
    found = statistics.difference(item, item, replicates=20)
    assert found.estimate == 0 or math.isnan(found.estimate)
    assert found.low == found.high == 0 or math.isnan(found.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        rate = np.repeat(rng.beta(2, 2, 60), 5)  # patients differ, regions of one patient do not
        groups = np.repeat(np.arange(60), 5)
        found = statistics.interval(statistics.tally(rng.random(300) < rate, groups), replicates=200, seed=seed)
        covered.append(found.low <= 0.5 <= found.high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_regions_of_one_patient_count_as_one_observation():
    rng = np.random.default_rng(0)
    per_patient = rng.random(40) < 0.5
    values, groups = np.repeat(per_patient, 10), np.repeat(np.arange(40), 10)
    clustered = statistics.interval(statistics.tally(values, groups))
    single = statistics.interval(statistics.tally(per_patient, np.arange(40)))
    naive = statistics.interval(statistics.tally(values, np.arange(400)))
    assert clustered == single
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(0)
    hard = rng.random(80)
    first, second = hard < 0.6, hard < 0.5  # the second is right on a subset
    groups = np.arange(80)
    paired = statistics.difference(statistics.tally(first, groups), statistics.tally(second, groups))
    shuffled = statistics.difference(statistics.tally(first, groups), statistics.tally(rng.permutation(second), groups))
    assert paired.low > 0
    assert paired.high - paired.low < shuffled.high - shuffled.low


def test_replicates_do_not_depend_on_how_many_are_drawn_at_a_time(monkeypatch):
    item = statistics.tally(np.arange(30) % 3 == 0, np.arange(30) // 2)
    whole = statistics.bootstrap([item], 64, seed=5)
    monkeypatch.setattr(statistics, "CHUNK", 7)
    np.testing.assert_array_equal(whole, statistics.bootstrap([item], 64, seed=5))


def test_different_groups_cannot_be_paired():
    short, long = (statistics.tally(np.ones(n), np.arange(n)) for n in (2, 3))
    with pytest.raises(ValueError, match="same groups"):
        statistics.bootstrap([short, long])


def test_group_index_numbers_tuples():
    assert statistics.group_index(["a", "a", "b", "a"], ["p", "q", "p", "p"]).tolist() == [0, 1, 2, 0]
