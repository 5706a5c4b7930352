"""What is kept of predictions gives the same paired differences as the predictions."""

import json

import numpy as np
import pytest
from encoded_cases import IDS, ONTOLOGY, TEXT, encoded, image, table
from hypothesis import given, settings
from hypothesis import strategies as st

from medp_clip_jax import compare, statistics
from medp_clip_jax.evaluators import outcomes, predictions, region_recognition


def saved(folder, seed, images=24, ids=IDS):
    """A run over patients with two images each, one to four regions in an image, that answers at random."""
    rng = np.random.default_rng(0)
    regions = [(i, IDS[rng.integers(4)]) for i in range(images) for _ in range(rng.integers(1, 5))]
    listed = table([image(str(i), group=str(i // 2)) for i in range(images)], regions)
    answers = np.random.default_rng(seed).normal(size=(len(regions), 8)).astype(np.float32) + TEXT[
        [IDS.index(label) for _, label in regions]
    ] * (seed % 3)
    text = TEXT[[IDS.index(label) for label in ids]]
    _, _, kinds = region_recognition.evaluate(encoded(listed, mask=answers), ONTOLOGY, text, ids, (), 0)
    folder.mkdir()
    predictions.save(folder, listed, region_recognition.describe_regions(listed, ids), kinds)
    return folder


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(100, 199))
def test_differences_are_those_of_the_predictions(tmp_path_factory, one, other):
    folder = tmp_path_factory.mktemp("runs")
    first, second = saved(folder / "a", one), saved(folder / "b", other, ids=IDS[::-1])
    wanted = compare.compare(predictions.load(first), predictions.load(second), [("mask", "mask")], 50)["mask"]
    kept = [json.loads(json.dumps(outcomes.of_run(run))) for run in (first, second)]
    mine, theirs = (outcomes.together([run])["mask"] for run in kept)
    for metric in compare.METRICS:
        found = statistics.difference(mine[metric], theirs[metric], 50)
        expected = [wanted[metric][name] for name in ("estimate", "low", "high")]
        assert [found.estimate, found.low, found.high] == pytest.approx(expected, abs=1e-12)


def test_seeds_are_averaged_per_region(tmp_path):
    each = [outcomes.of_run(saved(tmp_path / str(seed), seed)) for seed in (1, 2, 3)]
    apart = [statistics.estimate(outcomes.together([run])["mask"]["micro"]) for run in each]
    whole = outcomes.together(each)
    assert statistics.estimate(whole["mask"]["micro"]) == pytest.approx(np.mean(apart))
    assert set(whole) == {"mask", "none"}
    del each[1]["kinds"]["none"]
    assert set(outcomes.together(each)) == {"mask"}


def test_other_regions_do_not_pair(tmp_path):
    runs = [outcomes.of_run(saved(tmp_path / str(images), 1, images)) for images in (24, 20)]
    assert outcomes.together(runs) == {} == outcomes.together([])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.integers(2, 4))
def test_folds_say_together_what_the_whole_says(tmp_path_factory, seed, folds):
    whole = outcomes.of_run(saved(tmp_path_factory.mktemp("run") / "a", seed))
    fold = [group % folds for group in whole["regions"]["group"]]
    folded = {**whole, "regions": {**whole["regions"], "dataset": fold, "datasets": [f"{n}" for n in range(folds)]}}
    parts = [outcomes.of_dataset([folded], number)[0] for number in range(folds)]
    for number, part in enumerate(parts):
        part["regions"]["keys"] = f"{seed}-{number}"
    (joined,) = outcomes.joined(parts[::-1])
    assert outcomes.joined([whole, whole]) == [whole, whole] and len(outcomes.joined([*parts, *parts])) == 2
    assert outcomes.joined([*parts, parts[0]]) == [*parts, parts[0]]
    assert joined["regions"]["datasets"] == [str(number) for number in range(folds)]
    mine, theirs = outcomes.together([joined]), outcomes.together([whole])
    assert set(mine) == set(theirs)
    for kind, sums in mine.items():
        for metric, tally in sums.items():
            assert statistics.estimate(tally) == pytest.approx(statistics.estimate(theirs[kind][metric])), metric
            filled = [np.unique(each.denominator.sum(1), return_counts=True) for each in (tally, theirs[kind][metric])]
            np.testing.assert_array_equal(filled[0][1][filled[0][0] > 0], filled[1][1][filled[1][0] > 0])


def test_a_data_set_alone_is_what_its_regions_say(tmp_path):
    listed = table(
        [image(str(i), dataset="ab"[i % 2]) for i in range(8)], [(i, IDS[j]) for i in range(8) for j in range(2)]
    )
    answers = [
        label if listed.images[i].dataset == "a" else "organ"
        for i, label in zip(listed.image_index, listed.label, strict=True)
    ]
    _, _, kinds = region_recognition.evaluate(encoded(listed, mask=answers), ONTOLOGY, TEXT, IDS, (), 0)
    predictions.save(tmp_path, listed, region_recognition.describe_regions(listed, IDS), kinds)
    run = outcomes.of_run(tmp_path)
    assert run["regions"]["datasets"] == ["a", "b"]
    for number, accuracy in enumerate((1.0, 0.0)):
        sums = outcomes.together(outcomes.of_dataset([run], number))["mask"]
        assert statistics.estimate(sums["micro"]) == accuracy and sums["within_image"].denominator.sum() == 4
