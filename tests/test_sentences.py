"""Sentences name their label first and only theirs; captions say modality, body part and what is seen."""

import hashlib
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

import data.ontology
from medp_clip_jax import sentences
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

SHIPPED = data.ontology.load()
GOLDEN = pathlib.Path(__file__).parent / "golden/sentences.txt"


@pytest.mark.short
def test_sentences_start_with_the_name_are_distinct_and_tell_labels_apart():
    owner = {}
    for node_id, node in SHIPPED.items():
        lines = SHIPPED.sentences(node_id)
        assert lines[0] == node.name and len(set(lines)) == len(lines) >= 4
        assert any(node.definition in line for line in lines)
        for line in lines:
            assert owner.setdefault(line.lower(), node_id) == node_id, line
    assert "the RV" not in SHIPPED.sentences("right_ventricle")


@pytest.mark.parametrize(
    ("modality", "phrase"),
    [
        ("ct", "a CT scan"), ("mri (t1)", "a T1 MRI scan"), ("mri (t2*)", "a T2* MRI scan"), ("mri", "an MRI scan"),
        ("mri (cardiac)", "a cardiac MRI scan"), ("mri (sagittal t1/t2)", "a sagittal MRI scan"),
        ("chest x-ray", "a chest X-ray"), ("colour fundus photography", "a fundus photograph"), ("OCT", "an OCT scan"),
        ("light microscopy (blood smear)", "a blood smear image"),
        ("fluorescence microscopy", "a fluorescence microscopy image"),
        ("histopathology", "a histology image"), ("ultrasound", "an ultrasound image"), ("cardiac ct", "a CT scan"),
        ("infrared thermography", "an infrared thermography image"), ("", "a medical image"),
    ],
)  # fmt: skip
def test_modalities_are_said_in_words(modality, phrase):
    assert sentences.scan(modality) == phrase


def example(caption="", modality="ct", anatomy="torso", view="", image_labels=(), labels=()):
    regions = tuple(SimpleNamespace(label=label) for label in labels)
    return SimpleNamespace(
        caption=caption,
        modality=modality,
        anatomy=anatomy,
        view=view,
        image_labels=tuple(image_labels),
        regions=regions,
    )


def test_captions():
    assert SHIPPED.caption(example(caption="as written", labels=["liver"])) == "as written"
    assert (
        SHIPPED.caption(example(labels=["liver", "spleen", "liver"])) == "a CT scan of the torso showing liver, spleen"
    )
    assert SHIPPED.caption(example(modality="mri", anatomy="brain", view="axial")) == "an axial MRI scan of the brain"
    assert SHIPPED.caption(example(modality="", anatomy="")) == "a medical image"
    lymphocyte = example(modality="", anatomy="", image_labels=["lymphocyte"], labels=["white_blood_cell"])
    assert SHIPPED.caption(lymphocyte) == "a medical image showing lymphocyte"
    many = example(image_labels=["pneumonia"], labels=[f"rib_left_{i}" for i in range(1, 13)])
    assert SHIPPED.caption(many).count(",") == sentences.MAX_LABELS - 1
    varied = {SHIPPED.caption(many, np.random.default_rng(seed)) for seed in range(20)}
    assert len(varied) > 10 and all("pneumonia" in text or "lung" in text or "pulmonary" in text for text in varied)
    assert SHIPPED.caption(many, np.random.default_rng(3)) == SHIPPED.caption(many, np.random.default_rng(3))


@pytest.mark.short
def test_known_sentences_never_change():
    """Published numbers came from them: what the ontology learns must not change what it already says."""
    golden = dict(line.split() for line in GOLDEN.read_text().splitlines())
    assert len(golden) == 993 and golden.keys() <= SHIPPED.keys()
    for node_id, digest in golden.items():
        assert hashlib.sha256("\n".join(SHIPPED.sentences(node_id)).encode()).hexdigest()[:12] == digest, node_id


def test_generated_sentences_take_turns_with_the_others_and_are_saved(tmp_path):
    plain = SHIPPED.sentences("liver")
    more = SHIPPED.with_sentences({"liver": ["the big one", "liver", "below the lung"]})
    lines = more.sentences("liver")
    assert (
        lines[0] == plain[0] and lines[1] == "the big one" and set(lines) == {*plain, "the big one", "below the lung"}
    )
    assert [line for line in lines if line in plain] == list(plain)
    assert more.sentences("spleen") == SHIPPED.sentences("spleen") and SHIPPED.sentences("liver") == plain
    more.save(tmp_path / "o.json")
    assert Ontology.load(tmp_path / "o.json").sentences("liver") == lines
    with pytest.raises(InputError, match="nowhere"):
        SHIPPED.with_sentences({"nowhere": ["x"]})
