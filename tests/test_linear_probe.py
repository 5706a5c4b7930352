"""Linear probes find what is linearly there, from few examples of distinct patients, and say what data they need."""

import json
import subprocess
import sys

import corpus_cases
import numpy as np
import pytest
import results_cases
import tiny_run
from encoded_cases import IDS, TEXT, encoded, image, table, unit
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import linear_probe
from medp_clip_jax.evaluators.linear_probe import Examples

LABELS = ("liver", "tumor", "organ")


def split(count, seed, labels=LABELS, kinds=("mask",)):
    """Regions whose mask embeddings lie near a direction of their label that no text has, and whose boxes are noise."""
    rng = np.random.default_rng(seed)
    chosen = [labels[i % len(labels)] for i in range(count)]
    images = [image(str(i), (chosen[i],), group=f"{seed}-{i // 2}") for i in range(count)]
    directions = unit(np.random.default_rng(99).normal(size=(len(IDS), 8)))
    near = directions[[IDS.index(label) for label in chosen]] + 0.1 * rng.normal(size=(count, 8))
    made = {"mask": unit(near), "box": unit(rng.normal(size=(count, 8)))}
    found = encoded(table(images, list(enumerate(chosen))), seed, **{kind: made[kind] for kind in kinds})
    found.image[:] = made["mask"]
    del found.regions["none"]
    return found


def splits(kinds=("mask",), **labels):
    sizes = {"train": 90, "val": 45, "test": 60}
    return {name: split(size, seed, labels.get(name, LABELS), kinds) for seed, (name, size) in enumerate(sizes.items())}


def test_what_is_linearly_there_is_found_and_noise_is_not():
    numbers = linear_probe.evaluate(splits(("mask", "box")), TEXT, IDS, 100, shots=(1, 8))
    json.dumps(numbers, allow_nan=False)
    mask, box = numbers["regions"]["mask"], numbers["regions"]["box"]
    assert (mask["labels"], mask["train"], mask["test"]) == (3, 90, 60)
    assert mask["full"]["micro"]["estimate"] > 0.98 and mask["full"]["C"] in linear_probe.STRENGTHS
    assert mask["full"]["macro"]["low"] <= mask["full"]["macro"]["estimate"] <= mask["full"]["macro"]["high"]
    assert mask["zero_shot"]["micro"]["estimate"] < 0.9 and box["full"]["micro"]["estimate"] < 0.55
    assert mask["shots"]["1"]["micro"]["mean"] <= mask["shots"]["8"]["micro"]["mean"] + 0.02
    assert numbers["images"]["set"]["full"] == mask["full"]


def test_zero_shot_is_the_choice_among_the_same_labels():
    made = splits()
    numbers = linear_probe.evaluate(made, TEXT, IDS, 20, shots=())
    rows = [IDS.index(label) for label in sorted(LABELS)]
    said = np.array(sorted(LABELS), object)[(made["test"].regions["mask"] @ TEXT[rows].T).argmax(1)]
    right = np.mean(said == np.array(made["test"].table.label, object))
    assert numbers["regions"]["mask"]["zero_shot"]["micro"]["estimate"] == pytest.approx(right, abs=1e-5)


def test_only_labels_of_both_splits_compete():
    made = splits(test=("liver", "tumor", "kidney_left"))
    entry = linear_probe.evaluate(made, TEXT, IDS, 20, shots=())["regions"]["mask"]
    assert entry["labels"] == 2 and entry["test"] == 40 and entry["train"] == 60
    assert linear_probe.evaluate(splits(test=("kidney_left",)), TEXT, IDS, 20)["regions"] == {}


def test_without_validation_examples_of_the_labels_a_middle_strength_is_taken():
    entry = linear_probe.evaluate(splits(val=("kidney_left",)), TEXT, IDS, 20, shots=())["regions"]["mask"]
    assert entry["full"]["C"] == 100.0 and entry["full"]["micro"]["estimate"] > 0.95


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, 9))
def test_shots_are_of_distinct_patients_while_there_are_enough(rows, count):
    label, group = (np.array(column, object) for column in zip(*rows, strict=True))
    train = Examples(np.zeros((len(rows), 2)), label, group.astype(int))
    chosen = linear_probe.draw(train, count, np.random.default_rng(0))
    assert len(set(chosen)) == len(chosen)
    for name in set(label):
        mine = [i for i in chosen if label[i] == name]
        assert len(mine) == min(count, (label == name).sum())
        patients = set(train.group[label == name])
        assert len({train.group[i] for i in mine}) == min(len(mine), len(patients))


def test_data_without_the_splits_are_refused_in_words():
    with pytest.raises(InputError, match="no 'val'"):
        linear_probe._needed(("train", "test"))


def test_the_table_has_a_column_per_number_of_shots():
    text = linear_probe.screen_table(linear_probe.evaluate(splits(), TEXT, IDS, 20, shots=(1, 4)))
    assert text.splitlines()[0].split() == ["macro,", "%", "zero-shot", "1", "4", "all"]
    assert any(line.startswith("images of set") for line in text.splitlines())
    assert "no two labels" in linear_probe.screen_table({"regions": {}, "images": {}})


def test_the_command_writes_its_numbers_and_needs_three_splits(tmp_path):
    run, data = tiny_run.write_run(tmp_path / "run"), corpus_cases.write_folder(tmp_path / "own")
    command = [sys.executable, "-m", "medp_clip_jax.evaluators.linear_probe", f"--checkpoint={run}", f"--data={data}"]

    def asked(*given):
        return subprocess.run([*command, *given], capture_output=True, text=True, check=False)

    refused = asked(f"--output={tmp_path / 'no'}")
    assert refused.returncode == 2 and "no 'train'" in refused.stderr and "Traceback" not in refused.stderr
    splits = {f"i{i}": ("train", "val", "test")[i // 2] for i in range(6)}
    (data / "splits.json").write_text(json.dumps(splits))
    done = asked(f"--output={tmp_path / 'out'}", "--kinds=mask,none")
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "out" / linear_probe.FILE).read_text())
    assert set(numbers["regions"]) == {"mask", "none"} and numbers["regions"]["mask"]["labels"] == 2
    assert numbers["images"] == {} and "zero-shot" in done.stdout  # one image label is no choice
    assert len(numbers["data"]["checksum"]) == 16
    assert results_cases.HEADER <= numbers.keys()
    assert {split: set(kinds) for split, kinds in numbers["prompts"].items()} == {
        split: {"mask"} for split in linear_probe.SPLITS
    }
