"""Two runs set against each other in what they say of images, and in what their searches find."""

import dataclasses
import types

import numpy as np
import pytest
from encoded_cases import IDS, ONTOLOGY, encoded, image, table, unit

from medp_clip_jax import compare, paired, statistics
from medp_clip_jax.evaluators import outcomes, predictions, region_recognition, retrieval, saved_answers, zero_shot

LABELS = (*IDS, "benign", "malignant")
TEXTS = np.eye(len(LABELS), 8, dtype=np.float32)
CHOSEN = ("accuracy", "balanced_accuracy", "auroc")


def write(path, noise, numbers=range(40), bank=IDS, regions=True, seed=0):
    """Results of a run on images `numbers`, two to a patient: one data set is a choice, one has several labels, and the
    second half has regions. The more `noise`, the worse."""
    path.mkdir()
    rng = np.random.default_rng(seed)
    made, rows, shown = [], [], []
    for row, number in enumerate(numbers):
        choice = number < 20
        kind = number // 2 % 2
        named = [LABELS[5 + kind]] if choice else ["benign"] * kind + ["malignant"] * (number // 4 % 2)
        dataset, group = ("choice" if choice else "several"), str(number // 2)
        made.append(image(str(number), named, group, dataset))
        each = IDS[number % 3 : number % 3 + 2] if regions and not choice else ()
        rows += [(row, label) for label in each]
        shown.append(sum((TEXTS[LABELS.index(label)] for label in (*named, *each)), np.zeros(8)))
    listed = table(made, rows)
    places = [LABELS.index(label) for _, label in rows]
    answers = TEXTS[places] if rows else np.zeros((0, 8), np.float32)
    found = encoded(listed, mask=unit(answers + noise * rng.normal(size=answers.shape)))
    found.image[:] = unit(np.stack(shown) + 1e-3 + noise * rng.normal(size=(len(made), 8)))
    ids = (*bank, "benign", "malignant")
    text = TEXTS[[LABELS.index(label) for label in ids]]
    _, _, kinds = region_recognition.evaluate(found, ONTOLOGY, text[: len(bank)], bank, replicates=0)
    *_, searches = retrieval.evaluate(found, text, ids, 0)
    more = saved_answers.pack(listed, zero_shot.questions(found, text, ids), searches)
    predictions.save(path, listed, region_recognition.describe_regions(listed, bank), kinds, None, more)
    return predictions.load(path)


def every(first, second, replicates=50):
    """All numbers as `{title metric: numbers}`, and all notes."""
    about, notes = paired.images(first, second, replicates)
    found, more = paired.searches(first, second, [("mask", "mask")], replicates)
    return {f"{kind} {name}": v for kind, each in (about | found).items() for name, v in each.items()}, [*notes, *more]


def test_a_run_equals_itself(tmp_path):
    saved = write(tmp_path / "a", 0.5)
    numbers, notes = every(saved, saved)
    assert not notes
    assert {"image accuracy", "image auroc", "image map", "image group_accuracy", "presence auroc"} <= numbers.keys()
    searched = {name for name in numbers if name.startswith("mask ")}
    both = [
        f"mask {direction} {name}" for direction in ("text_to_region", "region_to_region") for name in ("r1", "map_r")
    ]
    assert searched == {*both, "mask region_to_text r1"}  # of one right text mAP@R says the same
    for name, v in numbers.items():
        assert v["estimate"] == v["low"] == v["high"] == 0, name


def test_a_better_run_is_ahead(tmp_path):
    numbers, _ = every(write(tmp_path / "a", 0.0), write(tmp_path / "b", 3.0))
    for name in ("image accuracy", "image auroc", "presence auroc", "presence map", "mask text_to_region map_r"):
        assert numbers[name]["first"] == 1 and 0 < numbers[name]["low"] <= numbers[name]["estimate"], name
    assert numbers["mask region_to_region map_r"]["low"] > 0 and numbers["mask region_to_text r1"]["low"] > 0


def test_numbers_of_each_run_are_those_of_its_evaluation(tmp_path):
    first, second = write(tmp_path / "a", 0.4), write(tmp_path / "b", 0.9, seed=1)
    numbers, _ = every(first, second)
    for side, saved in (("first", first), ("second", second)):
        asked = {key: zero_shot.measures(q) for key, q in saved.answers.questions.items()}
        single = asked["image", "choice"]["accuracy"]
        assert numbers["image accuracy"][side] == pytest.approx(statistics.estimate(single))
        both = [statistics.estimate(asked["image", name]["auroc"]) for name in ("choice", "several")]
        assert numbers["image auroc"][side] == pytest.approx(np.mean(both))


def test_patients_are_drawn_not_images(tmp_path):
    """A run that is worse in the ten images of one patient is not known to be worse in other patients."""
    first, second = (write(tmp_path / name, 0.0) for name in "ab")
    key = ("image", "choice")

    def numbers(per_patient, wrong):
        found = []
        for saved, sign in ((first, 1), (second, np.where(np.arange(20) < wrong, -1, 1)[:, None])):
            question = saved.answers.questions[key]
            question = dataclasses.replace(question, score=sign * question.score, group=np.arange(20) // per_patient)
            answers = dataclasses.replace(saved.answers, questions={key: question})
            found.append(dataclasses.replace(saved, answers=answers))
        return paired.images(*found, 200)[0]["image"]["accuracy"]

    apart, together = numbers(1, 10), numbers(10, 10)
    assert apart["estimate"] == together["estimate"] == 0.5
    assert apart["low"] > 0 == together["low"] and together["high"] == 1


def test_images_are_paired_by_name_and_labels_by_theirs(tmp_path):
    first = write(tmp_path / "a", 0.0)
    numbers, notes = every(first, write(tmp_path / "b", 0.0, numbers=range(39, -1, -1), bank=IDS[::-1]))
    assert all(v["estimate"] == 0 for name, v in numbers.items() if name.startswith(("image", "presence")))
    assert any("did not search the same regions" in line for line in notes)  # they come in another order
    numbers, notes = every(first, write(tmp_path / "c", 0.0, bank=IDS[::-1]))
    assert not notes and all(v["estimate"] == v["low"] == v["high"] == 0 for v in numbers.values())


def test_what_cannot_be_paired_is_told(tmp_path):
    first = write(tmp_path / "a", 0.0)
    old = predictions.take(first, np.arange(len(first.keys)))  # as files of older versions are read
    numbers, notes = every(first, old)
    assert not numbers and all("older version" in line for line in notes) and len(notes) == 2
    other = write(tmp_path / "b", 0.0, numbers=[n for n in range(40) if n // 2 % 2])  # one label of the choice is gone
    _, notes = every(first, other)
    assert any("image/choice: the runs were not asked for the same labels" in line for line in notes)


def test_runs_without_regions_are_compared_on_images(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a", 0.0, regions=False)
    write(tmp_path / "b", 3.0, regions=False)
    assert outcomes.of_run(tmp_path / "a") == {}
    monkeypatch.setattr(compare, "FLAGS", types.SimpleNamespace(kinds=None, reference="", output=""))
    compare.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any(line[:2] == ["image", "auroc"] and line[-1] == "*" for line in lines)
