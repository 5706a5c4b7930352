"""Searches on embeddings made by hand, and against the definition of each number."""

import numpy as np
import pytest
from encoded_cases import IDS, TEXT, encoded, image, table, unit
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax.evaluators import label_search, retrieval

DIRECTIONS = ("text_to_region", "region_to_text", "region_to_region")


def by_definition(score, right):
    """R@k, P@10 and mAP@R of one ranking, item by item."""
    order = sorted(range(len(score)), key=lambda i: (-score[i], i))
    flags, total = [bool(right[i]) for i in order], int(np.sum(right))
    if not total:
        return dict.fromkeys(("r1", "r5", "r10", "p10", "map_r"), np.nan)
    precision = [sum(flags[: i + 1]) / (i + 1) for i in range(total) if flags[i]]
    return {
        **{f"r{k}": float(any(flags[:k])) for k in (1, 5, 10)},
        "p10": sum(flags[:10]) / min(10, total),
        "map_r": sum(precision) / total,
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 4))
def test_numbers_are_those_of_their_definition(seed, items, labels):
    rng = np.random.default_rng(seed)
    gallery, asking = rng.integers(-2, 3, (items, 3)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32)
    label, wanted = rng.integers(0, labels, items), rng.integers(0, labels, 7)
    groups, group = rng.integers(0, 4, items), rng.integers(0, 4, 7)
    found = retrieval.ranked(asking, gallery, wanted, label, group, groups)
    for query in range(7):
        others = groups != group[query]
        expected = by_definition((gallery @ asking[query])[others], (label == wanted[query])[others])
        for name, value in expected.items():
            assert found[name][query] == pytest.approx(value, nan_ok=True), name


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 6))
def test_a_replicate_is_the_search_among_the_regions_that_were_drawn(seed, items, groups):
    rng = np.random.default_rng(seed)
    label, group = rng.integers(0, 3, items), rng.integers(0, groups, items)
    embedding, text = rng.integers(-2, 3, (items, 3)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    searched = retrieval.Gallery(np.arange(items), label, group, retrieval.queries(label))
    found = retrieval.measures(retrieval.search(embedding, text, searched), searched)
    weights = np.concatenate([np.ones((1, group.max() + 1), int), rng.integers(0, 4, (4, group.max() + 1))])
    for name in ("r1", "r5", "r10", "p10", "map_r"):
        values = found["text_to_region", name].values(weights.astype(float))
        for weight, value in zip(weights, values, strict=True):
            drawn = np.repeat(np.arange(items), weight[group])
            labels = np.unique(label[drawn])
            expected = np.nan
            if len(drawn):
                each = retrieval.ranked(text[labels], embedding[drawn], labels, label[drawn])[name]
                expected = each.mean()
            assert value == pytest.approx(expected, nan_ok=True), name


def test_places_that_no_replicate_reaches_are_not_kept():
    group = np.repeat(np.arange(500), 3)
    kept = label_search.first_places(np.arange(1500)[::-1], 10, group)
    assert kept.tolist() == list(range(1499, 1499 - 3 * label_search.REACH, -1))  # of REACH patients
    assert len(label_search.first_places(np.arange(1500), 400, group)) == 864
    assert len(label_search.first_places(np.arange(90), 1, group[:90])) == 90  # few patients: everything


def patients(rows, area=0.1):
    """A table with an image per (patient, label)."""
    images = [image(str(i), group=group) for i, (group, _) in enumerate(rows)]
    return table(images, [(i, label) for i, (_, label) in enumerate(rows)], area)


def test_a_perfect_model_finds_everything_and_a_patient_never_its_own():
    rows = [("p", "liver"), ("q", "liver"), ("q", "tumor"), ("r", "organ")]
    flat, details, _ = retrieval.evaluate(encoded(patients(rows), mask=[label for _, label in rows]), TEXT, IDS, 50)
    mask = {name: value for name, value in flat.items() if name.startswith("retrieval/mask/")}
    assert {name.split("/")[2] for name in mask} == set(DIRECTIONS) and set(mask.values()) == {1.0}
    intervals = details["retrieval"]["mask"]
    assert {f"retrieval/mask/{d}/{name}" for d in intervals for name in intervals[d]} == mask.keys()
    assert intervals["text_to_region"]["map_r"] == {"estimate": 1, "low": 1, "high": 1}
    # Only the liver has another patient: tumor and organ ask nobody.
    assert details["retrieval"]["mask"]["region_to_region"]["r1"]["estimate"] == 1
    alone, *_ = retrieval.evaluate(encoded(patients(rows[1:3]), mask=["liver", "tumor"]), TEXT, IDS, 0)
    assert not any("region_to_region" in name for name in alone)


def test_slices_of_one_patient_count_once_by_the_largest():
    rows = [("p", "liver")] * 20 + [("q", "liver"), ("q", "tumor")]
    area = np.float32([0.1] * 7 + [0.3] + [0.1] * 14)
    regions = patients(rows, area)
    assert retrieval.representatives(regions).tolist() == [7, 20, 21]
    answers = np.tile(TEXT[[IDS.index("tumor")]], (22, 1))
    answers[[7, 20]] = TEXT[IDS.index("liver")]  # the other slices say tumor, and would come first
    flat, *_ = retrieval.evaluate(encoded(regions, mask=answers), TEXT, IDS, 0)
    assert flat["retrieval/mask/text_to_region/map_r"] == 1


def test_labels_weigh_the_same_however_many_regions_they_have():
    rows = [(str(i), "liver") for i in range(9)] + [("x", "tumor")]
    flat, *_ = retrieval.evaluate(encoded(patients(rows), mask=["liver"] * 10), TEXT, IDS, 0)
    assert flat["retrieval/mask/region_to_text/r1"] == 0.5
    assert flat["retrieval/mask/region_to_text/r5"] == 1  # five labels in all


def test_large_splits_are_asked_by_some_regions_of_each_label():
    target = np.repeat([0, 1, 2], [1000, 3, 64])
    asking = retrieval.queries(target)
    assert np.bincount(target[asking]).tolist() == [retrieval.QUERIES, 3, 64]
    assert (np.diff(asking) > 0).all() and {0, 999} <= set(asking.tolist())


def test_without_regions_there_is_nothing_to_find():
    assert retrieval.evaluate(encoded(table([image()], [])), TEXT, IDS)[0] == {}


def test_queries_do_not_depend_on_each_other():
    rng = np.random.default_rng(0)
    asking, gallery = unit(rng.normal(size=(600, 4))), unit(rng.normal(size=(50, 4)))
    wanted, label = rng.integers(0, 3, 600), rng.integers(0, 3, 50)
    together = retrieval.ranked(asking, gallery, wanted, label)
    apart = [retrieval.ranked(asking[i : i + 1], gallery, wanted[i : i + 1], label) for i in (0, 255, 256, 599)]
    for place, one in zip((0, 255, 256, 599), apart, strict=True):
        assert all(one[name][0] == together[name][place] for name in together)
