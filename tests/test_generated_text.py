"""Generated sentences are kept with their origin, asked for once, and used only where they name their label."""

import json

import pytest
from tiny_train import tiny_config

import data.ontology
from medp_clip_jax import generated_text
from medp_clip_jax.corpus import ensure_corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.preparation import prepare

SHIPPED = data.ontology.load()
LABELS = ("kidney_left", "liver")


def echo(asked):
    return [f"The {request.name} as seen on {request.modality or 'images'}." for request in asked]


def test_answers_are_stored_once_with_their_origin(tmp_path):
    path = tmp_path / "more.jsonl"
    asked = generated_text.requests(SHIPPED, LABELS)
    assert generated_text.extend(path, SHIPPED, asked, echo, "echo@1") == len(asked) > 2
    before = path.read_bytes()
    assert generated_text.extend(path, SHIPPED, asked, echo, "echo@1") == 0 and path.read_bytes() == before
    assert generated_text.extend(path, SHIPPED, asked, echo, "echo@2") == len(asked)
    entry = json.loads(before.splitlines()[0])
    assert entry["generator"] == "echo" and entry["version"] == "1" and entry["date"] and entry["request_hash"]
    assert entry["request"]["laterality"] == "left" and entry["request"]["name"] == "left kidney"
    lines = generated_text.read(path, SHIPPED)
    assert set(lines) == set(LABELS) and len(set(lines["liver"])) == len(lines["liver"])
    more = SHIPPED.with_sentences(lines)
    assert set(lines["liver"]) <= set(more.sentences("liver")) and more.sentences("liver")[0] == "liver"


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("", "empty"), (None, "empty"), ("an organ", "does not name"), ("the right kidney", "another side"),
        ("left kidney\nand more", "longer"), ("left kidney " * 30, "longer"), ("the left kidney, in CT", ""),
        ("the left renal organ", ""), ("Left kidneys", ""),
    ],
)  # fmt: skip
def test_sentences_must_name_their_label_and_side(sentence, reason):
    found = generated_text.problem(sentence, SHIPPED["kidney_left"])
    assert (reason in found) if reason else found == ""


def test_unusable_answers_stay_in_the_file_and_out_of_use(tmp_path):
    path = tmp_path / "more.jsonl"
    asked = generated_text.requests(SHIPPED, ["liver"])
    generated_text.extend(path, SHIPPED, asked, lambda asked: ["something else"] * len(asked), "bad")
    assert all(json.loads(line)["rejected"] for line in path.read_text().splitlines())
    assert generated_text.read(path, SHIPPED) == {}


def test_a_generator_that_fails_is_named(tmp_path):
    asked = generated_text.requests(SHIPPED, ["liver"])
    with pytest.raises(InputError, match="bad.*expected"):
        generated_text.extend(tmp_path / "a", SHIPPED, asked, lambda asked: [], "bad")
    with pytest.raises(InputError, match="bad.*failed"):
        generated_text.extend(tmp_path / "a", SHIPPED, asked, lambda asked: 1 / 0, "bad")
    with pytest.raises(InputError, match="module:function"):
        generated_text.find("nowhere.at:all")
    with pytest.raises(InputError, match="cannot be read"):
        generated_text.read(tmp_path / "none", SHIPPED)
    (tmp_path / "b").write_text('{"node": "liver"}\n')
    with pytest.raises(InputError, match="b:1"):
        generated_text.read(tmp_path / "b", SHIPPED)


def test_the_generator_without_a_model_is_usable_for_every_label():
    asked = generated_text.requests(SHIPPED, SHIPPED, variants=2)
    lines = generated_text.modality_sentences(asked)
    wrong = [
        line for line, request in zip(lines, asked, strict=True) if generated_text.problem(line, SHIPPED[request.node])
    ]
    assert wrong == []
    owner = {}
    for line, request in zip(lines, asked, strict=True):
        assert owner.setdefault(line, request.node) == request.node


def test_labels_that_the_ontology_lacks_are_passed_over(tmp_path):
    path = tmp_path / "more.jsonl"
    generated_text.extend(path, SHIPPED, generated_text.requests(SHIPPED, LABELS), echo, "echo")
    small = Ontology([SHIPPED["organ"], SHIPPED["liver"]])
    assert set(generated_text.read(path, small)) == {"liver"}


@pytest.mark.slow
def test_a_run_keeps_the_sentences_that_it_started_with(tmp_path):
    config = tiny_config(tmp_path / "corpus", tmp_path / "run")
    path = tmp_path / "more.jsonl"
    path.touch()
    config.input.generated_text = str(path)
    corpus = ensure_corpus(config.data.corpus, config.data.build)
    label = corpus.labels[0]
    asked = generated_text.requests(corpus.ontology, [label])
    generated_text.extend(path, corpus.ontology, asked, echo, "echo@1")
    first = prepare(config)
    kept = first.corpus.ontology.generated[label]
    assert kept and set(kept) <= set(first.corpus.ontology.sentences(label))
    generated_text.extend(path, corpus.ontology, asked, generated_text.modality_sentences, "templates@1")
    again = prepare(config)
    assert again.corpus.ontology.generated[label] == kept
    assert (again.labels.tokens == first.labels.tokens).all()
