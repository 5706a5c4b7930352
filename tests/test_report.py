"""The report: one file that shows what was measured, needs nothing else, and cannot be broken by names."""

import html.parser
import re

import numpy as np
import pytest
import tiny_corpus
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medp_clip_jax import report, results
from medp_clip_jax.errors import InputError
from medp_clip_jax.eval_input import eval_table
from medp_clip_jax.evaluators import calibration, context_retention, region_recognition, retrieval, zero_shot
from medp_clip_jax.evaluators.encode import Encoded
from medp_clip_jax.report import charts, gallery
from medp_clip_jax.results import NOTICE

IDS = tuple(tiny_corpus.ONTOLOGY)
ACCURACIES = ("micro_before", "micro_after", "within_image_before", "within_image_after")


class Tags(html.parser.HTMLParser):
    """Checks that elements are closed in order and collects the attributes that load something."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    return tags


def evaluated(tmp_path, images=10, seed=0):
    """Everything `write_report` wants, for random embeddings of a corpus in memory."""
    rng = np.random.default_rng(seed)
    labels = (("nodule",), ("cell",))
    records = [
        tiny_corpus.random_example(rng, f"<b>{i}", 2, dataset=f"set{i % 2}", image_labels=labels[i // 2 % 2])
        for i in range(images)
    ]
    corpus = tiny_corpus.corpus({"tiny": {"test": records}})
    corpus.directory = tmp_path
    (tmp_path / "corpus.json").write_text("{}")
    table = eval_table(corpus, "test")

    def unit(*shape):
        x = rng.normal(size=shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    text, image = unit(len(IDS), 8), unit(images, 8)
    kinds = {kind: unit(len(table.label), 8) for kind in ("mask", "box", "point", "crop")}
    encoded = Encoded(table, image, kinds | {"none": image[table.image_index]}, image)
    metrics, details, answers = region_recognition.evaluate(
        encoded, corpus.ontology, text, IDS, replicates=20, seen={"liver"}
    )
    more, image_details = zero_shot.evaluate(encoded, text, IDS, 20)
    context, context_details = context_retention.evaluate(encoded, text, IDS)
    found, found_details, _ = retrieval.evaluate(encoded, text, IDS, 20)
    sensitive = {
        f"sensitivity/{kind}/{way}/{name}": float(rng.random())
        for kind in ("mask", "box", "point")
        for way in ("jitter", "wrong")
        for name in (*(f"cosine_{part}" for part in ("mean", "p5", "p50", "p95")), *ACCURACIES)
    } | {"sensitivity/point/wrong/within_image_before": float("nan")}
    sure, sure_details = calibration.evaluate(encoded, corpus.ontology, text, IDS, 10.0, 20)
    heading = results.header(corpus, "test", tiny_corpus.config(), results.origin(None, {}), {}, results.words({}))
    content = results.collect(
        heading,
        table,
        metrics | more | context | found | sure | sensitive,
        details | image_details | context_details | found_details | sure_details,
        {"liver"},
    )
    return content, corpus, table, answers


def test_one_file_without_network_or_script(tmp_path):
    content, corpus, table, answers = evaluated(tmp_path)
    path = report.write_report(tmp_path, content, corpus, table, answers, IDS, corpus.ontology)
    text = path.read_text()
    tags = parsed(text)
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in tags.sources)
    assert "<script" not in text and "@import" not in text and "url(" not in text
    assert text.count(NOTICE) == 2
    assert "<b>" not in text  # image ids are escaped
    anchors = re.findall(r'href="(#\w+)"', text)
    assert anchors and all(f'id="{anchor[1:]}"' in text for anchor in anchors)


def test_numbers_and_pictures_are_those_of_the_results(tmp_path):
    content, corpus, table, answers = evaluated(tmp_path)
    text = report.write_report(tmp_path, content, corpus, table, answers, IDS, corpus.ontology).read_text()
    assert text.count("sloppy</td>") == text.count("wrong place</td>") == 3  # a row per kind and way
    assert "<small>%</small>" in text and results.percent(content["metrics"]["region/mask/micro"]) + "<small>%" in text
    right = int(answers["mask"].values["micro"].sum())
    assert text.count("✓ right") <= right and text.count("✗ wrong") > 0
    assert "not in training" in text  # only the liver was seen


def test_training_curves_skip_damaged_lines(tmp_path):
    assert report.training(tmp_path) == "" and report.training(None) == ""
    lines = [
        '{"step": 1, "loss": 3.0}',
        '{"step": 2, "loss": NaN}',
        '{"step": 3, "loss": 2.0, "region/mask/macro": 0.5}',
        '{"st',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    text = report.training(tmp_path)
    parsed(text)
    assert text.count("<polyline") == 2 and "Validation" in text and "nan" not in text


def test_a_split_without_regions_still_has_a_report(tmp_path):
    content, corpus, table, _ = evaluated(tmp_path)
    content["details"] |= {"kinds": {}, "differences": {}, "histograms": {}, "presence": {}}
    text = report.write_report(tmp_path, content, corpus, table, {}, IDS, corpus.ontology).read_text()
    parsed(text)
    assert 'id="regions"' not in text and 'id="images"' in text


def test_unwritable_output_is_named(tmp_path):
    content, corpus, table, answers = evaluated(tmp_path)
    with pytest.raises(InputError, match="absent/report.html: cannot be written"):
        report.write_report(tmp_path / "absent", content, corpus, table, answers, IDS, corpus.ontology)


def test_pictures_are_chosen_by_seed_from_different_images(tmp_path):
    _, _, table, answers = evaluated(tmp_path, images=30)
    regions = region_recognition.describe_regions(table, IDS)
    chosen = gallery.choose(answers["mask"], regions, 8, seed=0)
    assert chosen == gallery.choose(answers["mask"], regions, 8, seed=0)
    assert chosen != gallery.choose(answers["mask"], regions, 8, seed=1)
    assert len(set(regions.image[chosen])) == len(chosen) == 8
    assert sum(answers["mask"].values["micro"][chosen]) == 4
    assert sorted(regions.dataset[chosen]) == ["set0"] * 4 + ["set1"] * 4


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_outline_encloses_the_mask(mask):
    """Each row's pixels are told inside from outside by the vertical edges left of them."""
    toggles = np.zeros((mask.shape[0], mask.shape[1] + 1), int)
    for x, y, length in re.findall(r"M(\d+) (\d+)v(\d+)", gallery.outline(mask)):
        toggles[int(y) : int(y) + int(length), int(x)] += 1
    np.testing.assert_array_equal(toggles.cumsum(1)[:, :-1] % 2 == 1, mask)


@example(0.0, 5e-324)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_few_and_cover_the_range(low, span):
    ticks = charts.nice_ticks(low, low + span)
    assert 1 <= len(ticks) <= 9
    if span > 1e-3:
        assert ticks[0] <= low + 1e-6 * span + 1e-9 and ticks[-1] >= low + span - 1e-6 * span - 1e-9


def test_a_confusion_matrix_says_what_was_counted():
    text = charts.confusion(np.array([[3, 1, 0], [0, 0, 2]]), ["a<", "b"], ["a<", "b", "other"])
    parsed(text)
    assert "a&lt; → b: 1 of 4" in text and "b → other: 2 of 2" in text
