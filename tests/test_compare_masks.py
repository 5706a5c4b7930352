"""Comparing runs of interactive segmentation: pairing, means over labels then sets, and what is refused."""

import json

import numpy as np
import pytest

from medp_clip_jax import compare_masks, statistics
from medp_clip_jax.errors import InputError

COUNTS = {"click": 8, "box": 6, "noisy_box": 1}  # answers per start


def written(folder, shift=0.0, missing=0):
    """Sessions about 60 regions in two data sets, whose Dice is `shift` above what it is without."""
    rng, sessions = np.random.default_rng(0), []
    for start, answers in COUNTS.items():
        for number in range(60):
            dice = rng.uniform(0.2, 0.8, answers) + shift
            place = {"dataset": "ab"[number % 2], "image": f"i{number // 3}", "region": number % 3}
            about = {"group": f"p{number // 6}", "label": f"organ {number % 5}"}
            if number >= missing:
                sessions.append({**place, **about, "start": start, "dice": dice.tolist()})
    folder.mkdir()
    (folder / "clicks_center.json").write_text(json.dumps({"sessions": sessions}))
    return folder


def runs(*folders):
    return {folder.name: compare_masks.load(str(folder), "center") for folder in folders}


def test_a_constant_lead_is_found_without_doubt(tmp_path):
    both = runs(written(tmp_path / "better", 0.1), written(tmp_path / "worse"))
    numbers = compare_masks.compared(both, replicates=200)
    prompts = ["1 click", "3 clicks", "5 clicks", "8 clicks", "box", "box + 1", "box + 3", "box + 5", "noisy box"]
    assert sorted(numbers["lead"]["worse"]) == sorted(prompts)
    for lead in numbers["lead"]["worse"].values():
        assert [lead["value"], lead["low"], lead["high"]] == pytest.approx([0.1] * 3, abs=2e-5)
    assert "+0.100 [+0.100, +0.100] *" in compare_masks.tables(numbers)


def test_means_are_over_labels_then_data_sets(tmp_path):
    one = runs(written(tmp_path / "one"), written(tmp_path / "two", missing=6))
    numbers = compare_masks.compared(one, replicates=50)
    sessions = [(key, value) for key, value in one["one"]["box"].items() if key in one["two"]["box"]]
    assert len(sessions) == 54 and sum(entry["regions"] for entry in numbers["data_sets"].values()) == 54
    means = []
    for dataset in "ab":
        by_label = {}
        for key, value in sessions:
            if key[0] == dataset:
                by_label.setdefault(value["label"], []).append(value["dice"][0])
        means.append(np.mean([np.mean(values) for values in by_label.values()]))
        assert numbers["data_sets"][dataset]["one"]["box"] == pytest.approx(means[-1], abs=1e-5)
    mean = numbers["mean"]["one"]["box"]
    assert mean["value"] == pytest.approx(np.mean(means), abs=1e-5) and mean["low"] < mean["value"] < mean["high"]


def test_leads_are_paired_over_groups():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 5)
    hard = rng.normal(0, 1, 12)[groups]  # what is hard for one is hard for the other
    first = [statistics.tally(hard + 0.2 + rng.normal(0, 0.01, 60), groups)]
    second = [statistics.tally(hard, groups)]
    lead = statistics.difference_of(first, second, 300)
    assert 0.19 < lead["low"] < lead["value"] < lead["high"] < 0.21


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        compare_masks.load(str(tmp_path / "nothing"), "center")
    folder = written(tmp_path / "old")
    path = folder / "clicks_center.json"
    path.write_text(path.read_text().replace('"group"', '"patient"'))
    with pytest.raises(InputError, match="run interactive_segmentation anew"):
        compare_masks.load(str(folder), "center")
    few, other = runs(written(tmp_path / "few", missing=30)), runs(written(tmp_path / "other"))
    for start, sessions in other["other"].items():
        other["other"][start] = {key: value for key, value in sessions.items() if key not in few["few"][start]}
    with pytest.raises(InputError, match="share no region"):
        compare_masks.compared(few | other)
    with pytest.raises(InputError, match="two or more folders"):
        compare_masks.main(["", str(folder)])
    with pytest.raises(InputError, match="different names"):
        compare_masks.main(["", str(folder), str(folder)])
