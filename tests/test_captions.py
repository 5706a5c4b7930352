"""Described captions say what a view shows and where in the image, and never mistake that for a side of the patient."""

import numpy as np
import pytest
import tiny_corpus
from hypothesis import given
from hypothesis import strategies as st

import data.ontology
from medp_clip_jax import captions, positions, sentences
from medp_clip_jax.input import train_dataset
from medp_clip_jax.records import Region, RegionExample

SHIPPED = data.ontology.load()
WHOLE = (0, 0, 90, 90)


def example(*regions, modality="ct", anatomy="", view="axial", image_labels=(), caption=""):
    made = tuple(Region(label, box, b"", 1.0) for label, box in regions)
    return RegionExample(b"", 90, 90, "d", "i", "g", modality, anatomy, view, caption, tuple(image_labels), made)


@pytest.mark.short
@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0, 0, 10, 10), "in the upper left of the image"), ((80, 0, 90, 10), "in the upper right of the image"),
        ((40, 40, 50, 50), "in the center of the image"), ((40, 80, 50, 90), "at the bottom of the image"),
        ((0, 0, 90, 90), "filling most of the image"), ((0, 80, 90, 90), "across the bottom of the image"),
        ((0, 0, 10, 90), "along the left of the image"), ((0, 40, 10, 50), "on the left of the image"),
    ],
)  # fmt: skip
def test_places_are_said_in_words(box, words):
    assert positions.phrase(box, WHOLE) == words


BOX = st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(1, 90), st.integers(1, 90)).map(
    lambda b: (b[0], b[1], min(90, b[0] + b[2]), min(90, b[1] + b[3]))
)


@given(BOX, st.integers(1, 5), st.integers(-50, 50))
def test_places_follow_scale_shift_and_mirror(box, scale, shift):
    words = positions.phrase(box, WHOLE)
    assert words.endswith("of the image")
    moved = [edge * scale + shift for edge in box]
    assert positions.phrase(moved, [edge * scale + shift for edge in WHOLE]) == words
    swap = {"left": "right", "right": "left"}
    mirrored = " ".join(swap.get(word, word) for word in words.split())
    assert positions.phrase(box, WHOLE, mirrored=True) == mirrored
    assert positions.phrase((90 - box[2], box[1], 90 - box[0], box[3]), WHOLE) == mirrored


@pytest.mark.short
def test_captions_tell_places_findings_first_and_the_shared_body_part():
    made = example(("kidney_left", (70, 40, 80, 50)), ("liver", (5, 5, 40, 45)), ("liver_tumor", (10, 30, 20, 40)))
    assert SHIPPED.caption(made, style="described") == (
        "an axial CT scan of the abdomen showing liver tumor on the left of the image, "
        "left kidney on the right of the image and liver in the upper left of the image"
    )
    assert SHIPPED.caption(made) == "an axial CT scan showing kidney_left".replace(
        "kidney_left", "left kidney, liver"
    ) + (", liver tumor")
    cells = example(*[("lymphocyte", (i, i, i + 5, i + 5)) for i in range(0, 50, 10)], modality="blood smear", view="")
    assert SHIPPED.caption(cells, style="described") == "a blood smear image with lymphocyte in several places"
    scope = example(("polyp", (0, 0, 90, 90)), modality="colonoscopy", anatomy="colon", view="")
    told = SHIPPED.caption(scope, style="described")
    assert told == "a colonoscopy image of the colon with polyp filling most of the image"
    assert (
        SHIPPED.caption(example(modality="mri", anatomy="brain"), style="described") == "an axial MRI scan of the brain"
    )
    assert SHIPPED.caption(example(caption="as written"), style="described") == "as written"


def test_what_the_view_does_not_show_is_not_told():
    made = example(("liver", (0, 0, 20, 20)), ("spleen", (60, 60, 80, 80)), image_labels=["pneumonia"])
    told = SHIPPED.caption(made, style="described", view=(50, 50, 90, 90))
    assert "spleen in the center of the image" in told and "liver" not in told and "pneumonia" in told
    left = SHIPPED.caption(made, style="described", view=WHOLE)
    right = SHIPPED.caption(made, style="described", view=WHOLE, mirrored=True)
    assert "liver in the upper left" in left and "liver in the upper right" in right


def test_wording_varies_and_content_does_not():
    made = example(("liver", (0, 0, 20, 20)), ("spleen", (60, 60, 80, 80)), ("stomach", (40, 0, 50, 10)))
    told = {SHIPPED.caption(made, np.random.default_rng(seed), "described") for seed in range(30)}
    assert len(told) > 10
    for text in told:
        assert all(place in text for place in ("upper left", "lower right", "at the top"))
        assert sum(any(name in text for name in sentences.names(SHIPPED[label])) for label in ("liver", "spleen")) == 2
    many = example(*[(f"rib_left_{i}", (i, i, i + 5, i + 5)) for i in range(1, 13)])
    text = SHIPPED.caption(many, style="described")
    assert text.count("of the image") == captions.PLACED and text.count("rib") == sentences.MAX_LABELS


def test_the_input_tells_what_the_view_shows():
    rng = np.random.default_rng(0)
    records = [tiny_corpus.random_example(rng, f"i{i}") for i in range(8)]
    corpus = tiny_corpus.corpus({"s": {"train": records}})
    texts = {}
    for style in captions.STYLES:
        config = tiny_corpus.config(caption=style)
        config.model.text.context = 200
        told = train_dataset(corpus, config, tiny_corpus.tokenizer, tiny_corpus.bank())
        texts[style] = [told[i] for i in range(config.train.steps)]
    for plain, described in zip(texts["labels"], texts["described"], strict=True):
        assert (plain["image"] == described["image"]).all() and (plain["label"] == described["label"]).all()
    words = tiny_corpus.tokenizer(["of the image"], 12)[0].tolist()

    def places(batches):
        rows = np.concatenate([batch["text"] for batch in batches])
        return sum(any(row[i : i + 12].tolist() == words for i in range(188)) for row in rows)

    assert places(texts["labels"]) == 0 and places(texts["described"]) > 10
    ids = {style: {int(i) for batch in texts[style] for i in batch["text_id"]} for style in texts}
    assert len(ids["described"]) > len(ids["labels"])  # what lies elsewhere is another content
