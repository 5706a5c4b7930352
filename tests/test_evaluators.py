"""Metrics on embeddings whose right answers are known."""

import dataclasses
import math

import numpy as np
import pytest
from encoded_cases import IDS, ONTOLOGY, TEXT, answering, encoded, image, table, unit
from hypothesis import given
from hypothesis import strategies as st

from data import ontology as shipped_ontology
from medp_clip_jax.evaluators import context_retention, predictions, region_questions, region_recognition, zero_shot

LABELS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(IDS), st.sampled_from(IDS)), min_size=1, max_size=30)


def recognise(regions_table, twins=(), replicates=0, **kinds):
    return region_recognition.evaluate(encoded(regions_table, **kinds), ONTOLOGY, TEXT, IDS, twins, replicates)


@given(LABELS)
def test_micro_is_the_share_of_right_answers(rows):
    rows = sorted(rows)
    regions_table = table([image(str(i)) for i in range(6)], [(i, label) for i, label, _ in rows])
    metrics, _, _ = recognise(regions_table, mask=[answer for _, _, answer in rows])
    right = [label == answer for _, label, answer in rows]
    assert metrics["region/mask/micro"] == pytest.approx(np.mean(right))
    assert metrics["region/mask/micro_hierarchical"] >= metrics["region/mask/micro"]
    assert metrics["region/mask/top5"] == 1  # five labels in all


@given(LABELS)
def test_without_a_prompt_within_image_is_chance(rows):
    rows = sorted(rows)
    regions_table = table([image(str(i)) for i in range(6)], [(i, label) for i, label, _ in rows])
    metrics, _, _ = recognise(regions_table)
    labels = [{label for i, label, _ in rows if i == k} for k in range(6)]
    chance = [1 / len(found) for found in labels if len(found) > 1]
    found = metrics["region/none/within_image"]
    assert math.isnan(found) if not chance else found == pytest.approx(np.mean(chance))


def test_an_ancestor_is_wrong_when_strict_and_no_candidate_in_the_hierarchy():
    regions_table = table([image()], [(0, "liver"), (0, "organ")])
    between = unit(0.9 * TEXT[[IDS.index("organ")]] + 0.8 * TEXT[[IDS.index("liver")]])
    metrics, _, _ = recognise(regions_table, mask=np.concatenate([between, between]))
    assert metrics["region/mask/micro"] == 0.5
    assert metrics["region/mask/micro_hierarchical"] == 1


def test_macro_averages_labels_with_five_groups_and_lists_the_rest():
    images = [image(str(i), group=f"p{i}") for i in range(6)]
    rows = [(i, "liver") for i in range(5)] + [(5, "tumor")] * 40
    metrics, details, _ = recognise(table(images, rows), mask=["liver"] * 4 + ["tumor"] * 41)
    assert metrics["region/mask/macro"] == pytest.approx(0.8)  # tumor: 40 regions, but one patient
    assert details["kinds"]["mask"]["labels"]["tumor"] == {
        "accuracy": 1.0,
        "regions": 40,
        "groups": 1,
        "averaged": False,
    }


def test_patients_of_different_data_sets_are_different_patients():
    images = [image("a", group="1", dataset="x"), image("a", group="1", dataset="y")]
    found = region_recognition.describe_regions(table(images, [(0, "liver"), (1, "liver")]), IDS)
    assert found.group.tolist() == [0, 1]


def test_a_collapsed_model_is_not_right_by_ties():
    regions_table = table([image(str(i)) for i in range(10)], [(i, IDS[i % 5]) for i in range(10)])
    metrics, _, _ = recognise(regions_table, mask=np.zeros((10, 8), np.float32))
    assert metrics["region/mask/micro"] == pytest.approx(0.2)
    assert metrics["region/mask/within_dataset"] == pytest.approx(0.2)


def test_twins_compete_with_each_other_only():
    rows = [(0, "kidney_left"), (0, "kidney_right"), (0, "liver")]
    left = unit(0.9 * TEXT[[IDS.index("liver")]] + 0.5 * TEXT[[IDS.index("kidney_left")]])
    metrics, _, _ = recognise(
        table([image()], rows), twins=[("kidney_left", "kidney_right"), ("absent", "liver")], mask=np.repeat(left, 3, 0)
    )
    assert metrics["region/mask/twins"] == 0.5
    assert metrics["region/mask/twins_bank"] == 0


def test_strata_are_patches_of_the_canvas():
    patch = 256 / 224**2
    wide = image("b", size=(448, 224))  # half of its canvas is empty
    found = region_recognition.describe_regions(
        table(
            [image(), wide],
            [(0, "liver"), (0, "liver"), (0, "liver"), (1, "liver")],
            patch * np.array([0.9, 1.1, 5, 1.1]),
        ),
        IDS,
    )
    assert found.stratum.tolist() == [0, 1, 2, 0]


def test_strata_of_size_and_the_first_five_have_intervals():
    images = [image(str(i)) for i in range(8)]
    area = np.float32([0.001] * 4 + [0.1] * 4)
    regions_table = table(images, [(i, "liver") for i in range(8)], area)
    _, details, _ = recognise(regions_table, replicates=50, mask=["tumor", "liver"] + ["liver"] * 6)
    parts = details["kinds"]["mask"]
    small, large = parts["area"]["under 1 patch"]["intervals"], parts["area"]["over 4 patches"]["intervals"]
    assert small["micro"]["low"] < small["micro"]["estimate"] == 0.75 and small["micro"]["high"] == 1
    assert large["micro"] == parts["intervals"]["top5"] == {"estimate": 1, "low": 1, "high": 1}
    assert "intervals" not in parts["dataset"]["set"]


def test_breakdowns_cover_every_region_once():
    images = [image(str(i), dataset=f"d{i % 2}", modality="ct" if i else "") for i in range(4)]
    _, details, _ = recognise(
        table(images, [(i, "liver") for i in range(4)]), mask=["liver", "liver", "tumor", "liver"]
    )
    parts = details["kinds"]["mask"]
    assert {axis: sum(e["regions"] for e in parts[axis].values()) for axis in ("dataset", "modality", "area")} == {
        "dataset": 4,
        "modality": 4,
        "area": 4,
    }
    assert parts["dataset"]["d0"]["micro"] == 0.5 and parts["modality"]["unknown"]["micro"] == 1


def test_labels_of_the_training_are_told_from_others():
    found = encoded(table([image()], [(0, "liver"), (0, "tumor")]), mask=["liver", "liver"])
    _, details, _ = region_recognition.evaluate(found, ONTOLOGY, TEXT, IDS, replicates=0, seen={"liver"})
    parts = details["kinds"]["mask"]["training"]
    assert {name: entry["micro"] for name, entry in parts.items()} == {"label seen in training": 1, "label not seen": 0}


def test_differences_between_kinds_are_paired():
    images = [image(str(i)) for i in range(20)]
    rows = [(i, IDS[(i + j) % 3]) for i in range(20) for j in range(2)]
    _, details, _ = recognise(table(images, rows), replicates=100, mask=[label for _, label in rows])
    gain = details["differences"]["mask - none"]
    assert gain["within_image"]["estimate"] == pytest.approx(0.5) and gain["within_image"]["low"] > 0.4
    assert details["kinds"]["mask"]["intervals"]["micro"] == {"estimate": 1.0, "low": 1.0, "high": 1.0}


def test_no_regions_no_metrics():
    assert recognise(table([image()], [])) == ({}, {"kinds": {}, "differences": {}}, {})


def classify(images, image_embeddings, ids, text, rows=()):
    found = encoded(table(images, list(rows)))
    found.image[:] = image_embeddings
    return zero_shot.evaluate(found, text, ids, replicates=50)


def test_single_label_sets_are_a_choice_between_their_labels():
    ids = ("benign", "malignant", "liver")
    images = [image(str(i), labels=["benign"] if i < 6 else ["malignant"]) for i in range(8)]
    answers = [0, 0, 0, 0, 0, 1, 1, 0]
    metrics, details = classify(images, np.eye(3, 8)[answers], ids, np.eye(3, 8, dtype=np.float32))
    assert metrics["image/set/accuracy"] == pytest.approx(6 / 8)
    assert metrics["image/set/balanced_accuracy"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert 0 < metrics["image/auroc"] < 1
    interval = details["image"]["set"]["intervals"]["accuracy"]
    assert interval["low"] <= 6 / 8 <= interval["high"]
    assert details["image"]["set"]["labels"] == ["benign", "malignant"]
    assert details["image"]["set"]["intervals"].keys() == details["image"]["set"]["metrics"].keys()


def test_multi_label_sets_are_ranked_per_label():
    images = [image(str(i), labels=["benign", "liver"] if i < 6 else ["liver"] if i < 12 else []) for i in range(18)]
    scores = np.zeros((18, 8))
    scores[:6, 0] = 1  # benign is found, the liver is not
    metrics, details = classify(images, scores, ("benign", "liver"), np.eye(2, 8, dtype=np.float32))
    assert details["image"]["set"]["kind"] == "multi"
    assert metrics["image/set/auroc"] == pytest.approx((1 + 0.5) / 2)
    intervals = details["image"]["set"]["intervals"]
    assert intervals["auroc"] == {"estimate": 0.75, "low": 0.75, "high": 0.75}  # whoever is drawn
    assert intervals["map"]["low"] < intervals["map"]["estimate"] < intervals["map"]["high"]
    assert "image/set/accuracy" not in metrics


def test_groups_with_the_same_labels_are_asked_as_a_whole():
    """Slices of twelve examinations: one slice of three shows what the examination has, and that is enough."""
    images, scores = [], np.zeros((36, 8))
    for i in range(36):
        labels = ["benign"] if i // 3 < 6 else []
        images.append(image(str(i), group=f"exam {i // 3}", labels=labels))
        scores[i, 0] = float(bool(labels)) if i % 3 == 0 else 0.1
    metrics, details = classify(images, scores, ("benign", "liver"), np.eye(2, 8, dtype=np.float32))
    assert details["image"]["set"]["intervals"]["group_auroc"]["low"] == 1
    assert metrics["image/set/group_auroc"] == metrics["image/group_auroc"] == 1 > metrics["image/set/auroc"]
    images[0] = dataclasses.replace(images[0], image_labels=())
    metrics, _ = classify(images, scores, ("benign", "liver"), np.eye(2, 8, dtype=np.float32))
    assert "image/set/auroc" in metrics and "image/set/group_auroc" not in metrics


def test_presence_asks_region_labels_of_the_whole_image():
    images = [image(str(i)) for i in range(12)]
    rows = [(i, "liver") for i in range(6)]
    scores = np.zeros((12, 8))
    scores[:6, IDS.index("liver")] = 1
    metrics, details = classify(images, scores, IDS, TEXT, rows)
    assert {name: v["low"] for name, v in details["presence"]["set"]["intervals"].items()} == {"auroc": 1, "map": 1}
    assert metrics == dict.fromkeys(("presence/set/auroc", "presence/set/map", "presence/auroc", "presence/map"), 1.0)


def test_labels_in_too_few_images_are_not_ranked():
    images = [image(str(i)) for i in range(12)]
    assert classify(images, np.ones((12, 8)), IDS, TEXT, [(0, "liver")])[0] == {}


def test_cosines_between_regions_stay_within_their_image():
    embedding = unit(np.array([[1, 0], [0, 1], [1, 0], [1, 1]], float))
    found, of_image = context_retention.between_regions(embedding, np.array([0, 0, 1, 2]), np.arange(4))
    assert found.tolist() == [0.0] and of_image.tolist() == [0]
    alike, _ = context_retention.between_regions(embedding, np.array([0, 0, 1, 2]), np.array([5, 5, 5, 1]))
    assert not len(alike)  # regions of one label should be alike


def test_cosines_of_crowded_images_are_bounded():
    embedding = unit(np.random.default_rng(0).normal(size=(500, 4)))
    found, of_image = context_retention.between_regions(embedding, np.zeros(500, int), np.arange(500))
    assert len(of_image) == len(found)
    assert len(found) == context_retention.PAIR_REGIONS * (context_retention.PAIR_REGIONS - 1) / 2


def test_context_measures_the_empty_prompt_and_the_agreement_of_prompts():
    regions_table = table(
        [image("a", ["benign"]), image("b", ["malignant"])], [(0, "liver"), (0, "tumor"), (1, "liver")]
    )
    found = encoded(regions_table, mask=["liver", "tumor", "liver"], box=["liver", "tumor", "tumor"])
    found.empty[1] += 0.5
    ids = (*IDS, "benign", "malignant")
    metrics, details = context_retention.evaluate(found, np.eye(len(ids), 8, dtype=np.float32), ids)
    assert metrics["context/empty_prompt_max_difference"] == pytest.approx(0.5)
    assert metrics["context/mask_box/cosine_same_region"] == pytest.approx(2 / 3)
    assert metrics["context/mask/cosine_between_regions_p50"] == 0
    assert sum(details["histograms"]["mask"]["count"]) == 1


def test_retention_is_relative_to_the_global_accuracy():
    regions_table = table([image("a", ["liver"]), image("b", ["tumor"])], [(0, "liver"), (0, "liver"), (1, "liver")])
    found = encoded(regions_table, mask=["liver", "tumor", "tumor"])
    found.image[:] = answering(["liver", "tumor"])
    rows = {label: i for i, label in enumerate(IDS)}
    kept = context_retention.retention(context_retention.retained(found, found.regions["mask"], TEXT, rows))
    assert kept == {"image_accuracy": 0.75, "image_accuracy_global": 1.0, "image_accuracy_kept": 0.75}


def test_predictions_survive_the_disk(tmp_path):
    regions_table = table([image(str(i)) for i in range(6)], [(i, IDS[i % 2]) for i in range(6)])
    metrics, _, kinds = recognise(regions_table, mask=[IDS[0]] * 6)
    regions = region_recognition.describe_regions(regions_table, IDS)
    predictions.save(tmp_path, regions_table, regions, kinds)
    saved = predictions.load(tmp_path)
    assert saved.regions.ids == IDS and list(saved.kinds) == ["mask", "none"]
    for kind, answer in kinds.items():
        np.testing.assert_array_equal(answer.top, saved.kinds[kind].top)
        for name, values in answer.values.items():
            np.testing.assert_array_equal(values, saved.kinds[kind].values[name])
    np.testing.assert_array_equal(saved.regions.averaged, regions.averaged)


def test_region_embeddings_are_asked_for_modality_and_body_part():
    images = [
        dataclasses.replace(image(name), modality=modality, anatomy=part)
        for name, modality, part in (("a", "ct", "brain"), ("b", "mri", "brain"), ("c", "mri", ""), ("d", "", "brain"))
    ]
    table_of = table(images, [(0, "liver"), (0, "tumor"), (1, "liver"), (2, "liver"), (3, "liver")])
    asked = context_retention.questions(images, table_of.image_index)
    assert asked.keys() == {"modality"}  # every body part that is known is the same
    question = asked["modality"]
    assert question.lines == ["a CT scan", "an MRI scan"] and question.true.tolist() == [0, 0, 1, 1, -1]
    alone = context_retention.questions(images, [1])["modality"]
    assert alone.lines == question.lines and alone.true.tolist() == [1]  # those of other images are candidates
    classes = np.eye(2, 8, dtype=np.float32)
    answers = classes[[0, 1, 1, 0, 0]]  # half right, right, wrong, not asked
    found = encoded(table_of, mask=answers)
    found.regions["none"][:] = classes[[0, 0, 1, 1, 0]]
    metrics, _ = context_retention.evaluate(found, TEXT, IDS, {"modality": (classes, question)})
    assert metrics["context/mask/modality_accuracy"] == pytest.approx((0.5 + 0.5) / 2)
    assert metrics["context/none/modality_accuracy"] == 1.0
    unknown = {"modality": (classes, question._replace(true=np.full(5, -1)))}
    assert np.isnan(context_retention.evaluate(found, TEXT, IDS, unknown)[0]["context/mask/modality_accuracy"])


def test_region_embeddings_are_asked_for_their_side_by_the_name_with_either_side():
    ontology = shipped_ontology.load()
    labels = ["kidney_left", "kidney_left", "kidney_right", "liver", "lung_right", "lung_left", "femur_left"]
    asked = region_questions.questions(labels, ontology)
    assert asked.keys() == {"side"}  # of no finding is a host asked, and of the femur there is one side only
    question = asked["side"]
    names = ["left kidney", "left lung", "right kidney", "right lung"]
    assert sorted(question.lines) == names
    told = [question.lines[true] if true >= 0 else None for true in question.true]
    assert told == ["left kidney", "left kidney", "right kidney", None, "right lung", "left lung", None]
    assert region_questions.questions(labels[:2], ontology) == {}
    classes = np.eye(4, 8, dtype=np.float32)
    row = {name: classes[question.lines.index(name)] for name in names}
    # Of the left kidneys two are in one image, where one is right, and one in another; a lung is asked for the side of
    # a lung, whatever it is taken for.
    rows = [(0, "kidney_left"), (0, "kidney_left"), (0, "lung_right"), (1, "kidney_left"), (1, "kidney_right")]
    rows += [(1, "liver"), (1, "lung_left")]
    ids = sorted({label for _, label in rows})
    question = region_questions.questions([label for _, label in rows], ontology)["side"]
    answers = np.stack([row[name] for name in ("left kidney", "right kidney", *["left kidney"] * 5)])
    answers[[2, 6]] += 0.1 * row["right lung"]
    found = encoded(table([image("a"), image("b")], rows), mask=answers, crop=np.repeat(row["left kidney"][None], 7, 0))
    text = np.eye(len(ids), 8, dtype=np.float32)
    metrics, _ = context_retention.evaluate(found, text, ids, {"side": (classes, question)})
    left_kidney, right_kidney, left_lung, right_lung = (0.5 + 1) / 2, 0, 0, 1
    expected = np.mean([left_kidney, right_kidney, left_lung, right_lung])
    assert metrics["context/mask/side_accuracy"] == pytest.approx(expected)
    # One answer for all is right of one side of each structure.
    assert metrics["context/crop/side_accuracy"] == pytest.approx(0.5)


HOSTS = {
    "liver_tumor": "liver",
    "kidney_cyst_left": "kidney",
    "glioma": "brain",  # is a brain tumor
    "benign_breast_tumor": "breast",
    "lung_lesion": "lung",
    "pneumonia": "lung",
    "renal_cell_carcinoma": "kidney",
    "barretts_esophagus": "esophagus",
    "cyst": None,
    "bone_tumor": None,
    "foreign_body": None,
    "no_finding": None,
}


def test_the_host_of_a_finding_is_the_organ_that_its_names_speak_of():
    ontology = shipped_ontology.load()
    assert {label: region_questions.host(label, ontology) for label in HOSTS} == HOSTS
    question = region_questions.questions(["liver", "glioma", "cyst", "liver_tumor"], ontology)["host"]
    assert question.lines == ["a finding in the brain", "a finding in the liver"]
    assert question.true.tolist() == [-1, 0, -1, 1]
    for label, node in ontology.items():
        organ = region_questions.host(label, ontology) if node.kind == "finding" else None
        assert organ is None or (ontology[organ].kind == "anatomy" and not ontology[organ].laterality)


def test_cosines_and_what_is_kept_have_intervals_over_patients():
    rng = np.random.default_rng(0)
    images = [image(str(i), [IDS[i % 3]], group=str(i // 2)) for i in range(24)]
    rows = [(i, IDS[(i + j) % 4]) for i in range(24) for j in range(3)]
    made = {kind: unit(rng.normal(size=(len(rows), 8))) for kind in ("mask", "box")}
    found = encoded(table(images, rows), **made)
    question = context_retention.RegionQuestion.of([("CT", "") if i % 2 else ("MRI", "") for i, _ in rows])
    asked = {"modality": (np.eye(2, 8, dtype=np.float32), question)}
    metrics, details = context_retention.evaluate(found, TEXT, IDS, asked, replicates=200)
    names = {f"{kind}/{name}" for kind in made for name in ("cosine_between_regions_mean", "modality_accuracy")}
    names |= {f"{k}/image_accuracy{end}" for k in made for end in ("", "_global", "_kept")} | {"none/modality_accuracy"}
    assert details["context"].keys() == names | {"mask_box/cosine_same_region"}
    for name, interval in details["context"].items():
        assert interval["low"] < interval["estimate"] < interval["high"], name
        assert interval["estimate"] == pytest.approx(metrics[f"context/{name}"], abs=1e-6)
    without, _ = context_retention.evaluate(found, TEXT, IDS, asked)
    assert without == metrics
    patient = encoded(table([dataclasses.replace(i, group="a") for i in images], rows), **made)
    _, alone = context_retention.evaluate(patient, TEXT, IDS, asked, replicates=200)
    assert all(np.isnan(interval["low"]) for interval in alone["context"].values())  # nothing about other patients
