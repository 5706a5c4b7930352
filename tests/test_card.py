"""The card's numbers are the corpus's, it names what is unknown, and no picture of an image is in it."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from corpus_cases import build, write_folder
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import box_region, example

from data import card, card_charts, card_facts, card_licences, card_quality, card_render
from medp_clip_jax.errors import InputError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("card")
    first = write_folder(root / "in/first")
    (first / "SOURCE.md").write_text(
        "- **licence_stated**: CC BY-NC 4.0\n- **caveats**: few | odd patients\n- **real**: manual masks\n"
    )
    (write_folder(root / "in/second", images=3) / "SOURCE.md").write_text("- **title**: Second\n")
    return build(root / "in", root / "corpus")


def report(**changes):
    """A curation report as `data.curation.summary` describes it."""
    rule = {"rule": "tiny", "of": "region", "action": "drop", "settings": {}, "found": 3, "dropped": 3, "flagged": 0}
    rest = {"by_source": {"first": 2, "second": 1}, "by_modality": {}, "by_label": {}, "pairs": [], "examples": []}
    between = {"rule": "near", "of": "between images", "action": "flag", "found": 4, "pairs": [["first", "second", 4]]}
    before = {"images": 9, "regions": 27, "splits": {}}
    balance = {"temperature": 0.5, "most": 8.0, "before": {"ct": {"liver": 9}}, "after": {"ct": {"liver": 3.0}}}
    return {
        "format": 1, "config": {"near": {"distance": 4, "difference": 4.0}}, "before": before,
        "after": {**before, "regions": 24}, "rules": [{**rule, **rest}, {**rule, **rest, **between}],
        "evaluation": [{"directory": "held_out", "images": 5}], "balance": balance, **changes,
    }  # fmt: skip


def written(corpus, folder, curation=None):
    sections = card.make_sections(corpus, curation, 0.5, 100)
    paths = card.write_card(corpus, folder, sections, card.FORMATS)
    return {path.name: path.read_text() for path in paths}


@pytest.mark.short
def test_numbers_licences_and_unknowns_are_told(corpus, tmp_path):
    found = written(corpus, tmp_path)
    text = found["data_card.md"]
    assert "9 images" in text and "27 regions" in text and "2 region labels" in text
    assert re.search(r"\| first \| ct \| 6 \| 18 \| 12 \| 3 \| 2 \| train 6 \|", text)
    assert "CC BY-NC 4.0 | yes | no | name the source" in text and "not stated | ask the source" in text
    assert "few \\| odd patients" in text and "human*" in text and "| unknown |" in text
    assert "have not been looked for" in text
    assert "<script" not in found["data_card.html"] and "Known biases" in found["data_card.html"]


def test_no_picture_of_an_image_is_in_it(corpus, tmp_path):
    for name, content in written(corpus, tmp_path, report()).items():
        assert "data:image" not in content and "<image" not in content and "<img" not in content, name
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {".svg"}


def test_every_chart_is_a_file_that_stands_alone(corpus, tmp_path):
    found = written(corpus, tmp_path, report())
    links = re.findall(r"\]\(images/([^)]+)\)", found["data_card.md"])
    assert len(links) == len(set(links)) >= 10 and set(links) == {name for name in found if name.endswith(".svg")}
    for name in links:
        root = ET.fromstring(found[name])
        colours = set(re.findall(r"var\((--[a-z]+)\)", found[name]))
        assert root.tag.endswith("svg") and all(f"{colour}:" in found[name] for colour in colours)


def test_what_curation_found_is_told(corpus, tmp_path):
    text = written(corpus, tmp_path, report())["data_card.md"]
    assert "drops 0 and 3" in text and "| tiny | region of a few pixels | region | 3 | dropped |" in text
    assert "held_out (5 images)" in text and "| near | first | second | 4 |" in text and "near-duplicate: 4;" in text
    rules = card_quality.RULES
    from data.curation import config as curation

    assert {key for key, value in curation.get_config().items() if "action" in str(value)} <= rules.keys()


def test_reports_that_cannot_be_read_are_named(corpus, tmp_path):
    assert card.read_curation(None, corpus) is None
    for content in ("{", "[]", '{"format": 0}'):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(InputError, match=r"c\.json"):
            card.read_curation(tmp_path / "c.json", corpus)
    (tmp_path / "c.json").write_text(json.dumps(report()))
    assert card.read_curation(tmp_path / "c.json", corpus)["before"]["images"] == 9


@pytest.mark.parametrize(
    ("text", "name", "commercial"),
    [
        ("CC BY-SA 4.0 (MSD)", "CC BY-SA", "yes"), ("CC BY-NC-SA 4.0", "CC BY-NC-SA", "no"),
        ("cc_by_4.0", "CC BY", "yes"),
        ("CC0 1.0 public domain (data and fixes)", "CC0", "yes"), ("GPL-3.0 (repository LICENSE)", "GPL", "yes"),
        ("MIT (repository LICENSE)", "MIT", "yes"), ("Apache-2.0 repository", "Apache-2.0", "yes"),
        ("", "unknown", "ask the source"), ("permitted for research", "unknown", "ask the source"),
    ],
)  # fmt: skip
def test_families_of_licences(text, name, commercial):
    found = card_licences.family(text)
    assert (found.name, found.commercial) == (name, commercial)


@pytest.mark.parametrize(
    ("provenance", "kind"),
    [
        ({"annotation": "mixed"}, ("mixed", True)), ({"real": "MASKS ARE MODEL OUTPUT, not manual"}, ("model", False)),
        ({"caveats": "boxes drawn by radiologists"}, ("human", False)), ({"real": "real CT"}, ("unknown", False)),
        ({"annotation": "unknown", "real": "manual masks"}, ("human", False)), ({}, ("unknown", False)),
    ],
)  # fmt: skip
def test_who_annotated_is_read_and_not_guessed(provenance, kind):
    assert card_licences.annotation(provenance) == kind


@pytest.mark.short
def test_traits_of_regions():
    small = box_region("liver", (0, 0, 4, 4))
    assert set(card_facts.region_traits(small, 448, 448)) == {"regions", "box", "small", "thin"}
    whole = box_region("liver", (0, 0, 100, 100))
    assert set(card_facts.region_traits(whole, 100, 100)) == {"regions", "box", "large"}
    walk = card_facts.Walk()
    walk.add("s", example([small, whole]))
    assert walk.regions == 2 == sum(sum(row) for row in walk.areas.values())


@given(st.dictionaries(st.text(max_size=3), st.floats(0.01, 10), min_size=1, max_size=8))
def test_the_effective_number_is_that_of_equal_classes(weights):
    total = sum(weights.values())
    number = card_facts.effective({key: value / total for key, value in weights.items()})
    assert 1 - 1e-9 <= number <= len(weights) + 1e-9
    equal = card_facts.effective(dict.fromkeys(weights, 1 / len(weights)))
    assert abs(equal - len(weights)) < 1e-9


def test_balance_follows_the_mixture(corpus):
    found = card_facts.balance(corpus, 0.0)
    assert found["before"]["sources"]["shares"] == {"first": 6 / 9, "second": 3 / 9}
    assert found["after"]["sources"]["shares"] == {"first": 0.5, "second": 0.5}
    for way in found.values():
        assert all(abs(sum(entry["shares"].values()) - 1) < 1e-9 for entry in way.values())


@given(st.lists(st.tuples(st.text(max_size=40), st.integers(0, 10**7)), max_size=40))
def test_charts_survive_any_names_and_numbers(items):
    clean = [("".join(c for c in name if c.isprintable()), value) for name, value in items]
    for svg in (card_charts.bars(clean, "x"), card_render.bar_chart("a", "b", clean).svg):
        ET.fromstring(card_charts.standalone(svg))
    values = [value for _, value in clean]
    for svg in (card_charts.columns([name for name, _ in clean], values, "x"), card_charts.log_curve(values, "x")):
        ET.fromstring(card_charts.standalone(svg))


@pytest.mark.slow
def test_the_command_makes_contact_sheets_only_when_asked(corpus, tmp_path):
    command = [sys.executable, "-m", "data.card", str(corpus.directory), f"--output={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    assert not (tmp_path / "contact_sheets").exists()
    subprocess.run([*command, "--pictures=2"], check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "contact_sheets").iterdir()} == {"first.jpg", "second.jpg"}
    assert "contact_sheets" not in (tmp_path / "data_card.md").read_text()
    wrong = subprocess.run([*command, "--formats=pdf"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --formats")
