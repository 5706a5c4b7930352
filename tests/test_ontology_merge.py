"""Old runs meet newer ontologies: what was renamed keeps its meaning, what was lost is brought along."""

import json

from medp_clip_jax import evaluate, ontology_merge
from medp_clip_jax.ontology import Node, Ontology

NEW = Ontology(
    [
        Node("lesion", "lesion", kind="finding"),
        Node("flibber", "flibber", ("flibber lesion",), ("lesion",), kind="finding", xrefs=("FMA:1",)),
        Node("wing", "wing"),
    ]
)
OLD = Ontology(
    [
        Node("lesion", "lesion", kind="finding"),
        Node("flibber_lesion", "flibber lesion", (), ("lesion",), kind="finding"),
        Node("flibber_lesion_small", "small flibber", (), ("flibber_lesion",), kind="finding", xrefs=("FMA:1",)),
        Node("feather", "feather", ("wings", "plume")),
    ]
)


def test_a_renamed_node_is_the_new_one_and_its_children_hang_below_it():
    both, renamed = ontology_merge.merged(NEW, OLD)
    assert renamed == {"flibber_lesion": "flibber"}
    assert set(both) == {*NEW, "flibber_lesion_small", "feather"}
    assert both["flibber_lesion_small"].parents == ("flibber",)
    assert both["flibber_lesion_small"].xrefs == ()  # given to another node since
    assert both["feather"].synonyms == ("plume",)  # `wings` names another node now
    assert set(evaluate.merge_ontologies(NEW, OLD)) == set(both)
    assert dict(evaluate.merge_ontologies(NEW, NEW)) == dict(NEW)


def test_sides_never_meet():
    left = Ontology([Node("x", "x"), Node("x_left", "left x", parents=("x",), laterality="left")])
    right = Ontology([Node("x", "x"), Node("x_right", "right x", parents=("x",), laterality="right")])
    both, renamed = ontology_merge.merged(left, right)
    assert renamed == {} and both["x_right"].laterality == "right" and both["x_right"].parents == ("x",)


def test_what_a_run_saw_is_told_in_new_ids(tmp_path):
    trained = {"labels": ["flibber_lesion", "lesion"], "train_regions": {"flibber_lesion": 3, "lesion": 0}}
    (tmp_path / "labels.json").write_text(json.dumps(trained))
    OLD.save(tmp_path / "ontology.json")
    both = evaluate.merge_ontologies(NEW, OLD)
    found = evaluate.read_trained(tmp_path, both)
    assert found == {"labels": ["flibber", "lesion"], "train_regions": {"flibber": 3, "lesion": 0}}
    assert evaluate.seen_labels(found) == {"flibber"}
    assert evaluate.read_trained(tmp_path) == trained


def test_generated_sentences_come_along():
    old = OLD.with_sentences({"flibber_lesion": ["a flibber"], "feather": ["soft"]})
    both, _ = ontology_merge.merged(NEW, old)
    assert "a flibber" in both.sentences("flibber") and "soft" in both.sentences("feather")
    mine = NEW.with_sentences({"flibber": ["mine"]})
    both, _ = ontology_merge.merged(mine, old)
    assert "mine" in both.sentences("flibber") and "a flibber" not in both.sentences("flibber")
