"""Every published evaluation set, on a tiny copy in its exact layout: found, built, and asked as it is defined."""

import dataclasses
import json
import os
import pathlib
import runpy
import subprocess
import sys
import types

import pytest
import tiny_run
from eval_set_cases import COPIES

import configs.evals
from data import ontology
from data.build import adapter_sources, build_corpus
from data.report import Report
from medp_clip_jax import eval_sets
from medp_clip_jax.errors import InputError

HOME = pathlib.Path(configs.evals.__file__).parent  # the tests may lie outside of the checkout
# Sets of which no number is published, or another one for each version.
UNCOUNTED = ("imed361m", "medmnist", "samed2d", "totalsegmentator_ct", "totalsegmentator_mri")
SETS = sorted(path.stem for path in HOME.glob("*.py") if path.stem != "__init__")


def definition(name, partial=True):
    return eval_sets.read(str(HOME / f"{name}.py"), partial)


def test_every_definition_has_a_tiny_copy():
    assert sorted(COPIES) == SETS


@pytest.mark.parametrize("name", SETS)
def test_a_copy_in_the_published_layout_is_built_as_defined(name, tmp_path):
    known, folder = definition(name), COPIES[name](tmp_path / "copy")
    assert known.page.startswith("https://") and eval_sets.missing(known, folder) == []
    corpus = eval_sets.build(known, str(folder), tmp_path / "cache")
    (source,) = corpus.sources
    records = corpus.source(source, known.split)
    assert len(records)
    if known.metrics[0].startswith("image/"):
        # Metrics are named after the source that the build makes.
        assert {metric.split("/")[1] for metric in known.metrics if metric.startswith("image/")} == {source}
        normal = name in ("mrnet", "nih_cxr14")  # whose images may be without any finding, which is no class
        assert all(record.image_labels for record in records) != normal and any(r.image_labels for r in records)
        assert "no_finding" not in corpus.image_label_counts(known.split) or not normal
        assert set(corpus.image_label_counts(known.split)) == set(known.sentences)
    if any(metric.startswith("region/") for metric in known.metrics):
        assert any(record.regions for record in records)
    assert known.templates or set(corpus.label_counts(known.split)) <= set(known.sentences)
    asked = eval_sets.Asked(corpus.ontology, known)
    assert all(asked.sentences(label) == texts for label, texts in known.sentences.items() if label in asked)
    other = next(label for label in asked if label not in known.sentences)
    templated = tuple(template.format(name=asked[other].name) for template in known.templates)
    assert asked.sentences(other) == (templated or corpus.ontology.sentences(other))


def test_groups_of_covid_ct_are_its_patients(monkeypatch, tmp_path):
    monkeypatch.setattr(eval_sets, "ensure_corpus", built_here)
    known, folder = definition("covid_ct"), COPIES["covid_ct"](tmp_path / "copy")
    records = eval_sets.build(known, str(folder), tmp_path / "cache").source("covid_ct", "test")
    groups = {record.image_id: record.group for record in records}
    assert groups == {
        "CT_COVID/b.png": "COVID-CT-MetaInfo/Patient 1",
        "CT_COVID/b%1.png": "COVID-CT-MetaInfo/Patient 1",
        "CT_NonCOVID/2.png": "NonCOVID-CT-MetaInfo/Patient 1",
        "CT_NonCOVID/3.jpg": "NonCOVID-CT-MetaInfo/Patient 1",
    }


def test_both_releases_of_isles_are_accepted(tmp_path):
    known, folder = definition("isles2022"), COPIES["isles2022"](tmp_path / "copy")
    session = folder / "rawdata/sub-strokecase0001/ses-0001"
    session.mkdir(parents=True)
    for volume in folder.glob("sub-*/ses-*/dwi/*.nii.gz"):
        volume.rename(session / volume.name)
    assert eval_sets.missing(known, folder) == []
    corpus = eval_sets.build(known, str(folder), tmp_path / "cache")
    found = {record.modality for record in corpus.source("isles2022", "test") if record.regions}
    assert found == {"mri (dwi)", "mri (adc)"}
    (session / "sub-strokecase0001_ses-0001_adc.nii.gz").unlink()
    assert ["diffusion coefficient" in line for line in eval_sets.missing(known, folder)] == [True]


def built_here(output, arguments):
    """`ensure_corpus` without a process of its own."""
    options = [word.removeprefix("--option=") for word in arguments if word.startswith("--option=")]
    stated = dict(word.removeprefix("--").split("=", 1) for word in arguments if not word.startswith("--option="))
    shipped, report = ontology.load(), Report()
    path = pathlib.Path(stated["input"])
    sources = adapter_sources(stated["source"], path, shipped, stated.get("split", ""), report, options)
    return build_corpus(output, sources, shipped, report)


MEDMNIST = runpy.run_path(str(HOME / "medmnist.py"))["SETS"]


@pytest.mark.parametrize("name", MEDMNIST)
def test_each_set_of_medmnist_is_built_as_defined(name, monkeypatch, tmp_path):
    monkeypatch.setattr(eval_sets, "ensure_corpus", built_here)
    known, names = eval_sets.read(f"{HOME / 'medmnist.py'}:{name}", partial=True), MEDMNIST[name][-1]
    assert all(f"/{name}/" in metric for metric in known.metrics)
    folder = COPIES["medmnist"](tmp_path / "copy", name, len(names))
    corpus = eval_sets.build(known, str(folder), tmp_path / "cache")
    slices = 3 if "3d" in name else 1
    assert corpus.image_label_counts("test") == dict.fromkeys(known.sentences, slices) and len(names) > 1
    records = corpus.source(name, "test")
    assert [record.image_labels for record in records] == [(label,) for label in names for _ in range(slices)]
    assert len({record.group for record in records}) == len(names)


def test_a_size_of_medmnist_is_chosen_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(eval_sets, "ensure_corpus", built_here)
    folder = COPIES["medmnist"](tmp_path / "copy")
    COPIES["medmnist"](folder, side=64)
    for name, side in (("pathmnist", 28), ("pathmnist_64", 64)):
        known = eval_sets.read(f"{HOME / 'medmnist.py'}:{name}", partial=True)
        corpus = eval_sets.build(known, str(folder), tmp_path / "cache")
        assert {record.width for record in corpus.source("pathmnist", "test")} == {side}
        assert known.metrics[0] == "image/pathmnist/accuracy" and known.name == f"{name}-partial"
    assert eval_sets.missing(eval_sets.read(f"{HOME / 'medmnist.py'}:pathmnist_224"), folder)
    for name, message in (("pathmist", "no set 'pathmist' of MedMNIST"), ("organmnist3d_128", "which is of 28 px, or")):
        with pytest.raises(InputError, match=message):
            eval_sets.read(f"{HOME / 'medmnist.py'}:{name}")


@pytest.mark.parametrize("name", SETS)
def test_what_is_missing_is_named_before_anything_is_built(name, tmp_path):
    known = definition(name)
    (tmp_path / "copy").mkdir()
    with pytest.raises(InputError) as raised:
        eval_sets.build(known, str(tmp_path / "copy"), tmp_path / "cache")
    for pattern, what, _ in known.files:
        assert what in str(raised.value) and pattern.split("|")[0] in str(raised.value)
    assert known.page in str(raised.value) and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", SETS)
def test_fewer_files_than_were_published_are_refused(name, monkeypatch, tmp_path):
    known, folder = definition(name, partial=False), COPIES[name](tmp_path / "copy")
    counts_nothing = {"count": lambda *_: 0, "label_counts": lambda *_: {}, "image_label_counts": lambda *_: {}}
    empty = types.SimpleNamespace(sources=("empty",), **counts_nothing)
    monkeypatch.setattr(eval_sets, "ensure_corpus", lambda *_: empty)
    counts = [(what, count) for _, what, count in known.files if count > 1]
    if not counts and not known.images:
        assert name in UNCOUNTED
        return
    with pytest.raises(InputError, match="complete the copy .* by --partial") as raised:
        eval_sets.build(known, str(folder), tmp_path / "cache")
    assert all(f"of {count} {what}" in str(raised.value) for what, count in counts)


def test_a_part_is_evaluated_under_its_own_name(tmp_path, capsys):
    whole, part, folder = definition("pcam", False), definition("pcam"), COPIES["pcam"](tmp_path / "copy")
    with pytest.raises(InputError, match="holds 4 of 32768 usable images of split 'test': complete the copy"):
        eval_sets.build(whole, str(folder), tmp_path / "cache")
    corpus = eval_sets.build(part, str(folder), tmp_path / "cache")
    assert corpus.directory.name.startswith("pcam-partial-") and corpus.count("pcam", "test") == 4
    assert "PatchCamelyon (partial): 4 of 32768 usable images" in capsys.readouterr().out
    assert eval_sets.headline(part, {}) == "PatchCamelyon (partial), split test"


def test_an_incomplete_copy_is_refused(tmp_path):
    known, folder = definition("nct_crc", partial=False), COPIES["nct_crc"](tmp_path / "copy")
    known = dataclasses.replace(known, images=0)
    (folder / "TUM/TUM-TCGA-AAICEQFN.tif").rename(folder / "TUM/notes.txt")
    with pytest.raises(InputError, match="holds nothing of colorectal_adenocarcinoma_epithelium"):
        eval_sets.build(known, str(folder), tmp_path / "cache")
    (folder / "TUM/notes.txt").rename(folder / "TUM/TUM-TCGA-AAICEQFN.tif")
    corpus = eval_sets.build(known, str(folder), tmp_path / "cache")
    assert corpus.image_label_counts("test")["colorectal_adenocarcinoma_epithelium"] == 1
    with pytest.raises(InputError, match="not a folder"):
        eval_sets.build(known, str(tmp_path / "nothing"), tmp_path / "cache")


def test_a_set_is_built_once_and_again_where_its_files_change(monkeypatch, tmp_path):
    known, folder = definition("busi"), COPIES["busi"](tmp_path / "copy")
    built = []

    def ensure(directory, arguments):
        built.append(directory)
        raise InputError("built")

    monkeypatch.setattr(eval_sets, "ensure_corpus", ensure)

    def build():
        with pytest.raises(InputError, match="built"):
            eval_sets.build(known, str(folder), tmp_path / "cache")

    image = folder / "Dataset_BUSI_with_GT/benign/benign (1).png"
    for change in (
        lambda: None,
        lambda: None,
        lambda: image.with_name(".DS_Store").touch(),
        lambda: image.with_name("benign (2).png").write_bytes(image.read_bytes()),
        lambda: os.utime(image, ns=(0, 0)),
        lambda: image.write_bytes(image.read_bytes() + b" "),
        lambda: image.unlink(),
        lambda: (folder / "splits.json").write_text("{}"),
    ):
        change()
        build()
    assert len(set(built[:3])) == 1 and len(set(built)) == len(built) - 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_eval():\n    return 1\n", "must return a ConfigDict"),
        ("get_sweep = 1\n", "expected a function get_eval"),
        (
            "import ml_collections\ndef get_eval():\n    return ml_collections.ConfigDict({'title': 'x'})\n",
            "leaves out page, licence",
        ),
        (
            "import ml_collections\ndef get_eval():\n    return ml_collections.ConfigDict(dict(title='x', page='x', "
            "licence='x', build=('x',), split='x', kinds=('none',), metrics=('x',), files=(('*.png',),)))\n",
            r"files: expected \(pattern, what it is\) or .* got \('\*.png',\)",
        ),
    ],
)
def test_a_file_that_is_no_definition_is_refused(text, message, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        eval_sets.read(str(tmp_path / "mine.py"))


def test_the_command_evaluates_a_set_and_reports_its_own_metrics(tmp_path):
    run, folder = tiny_run.write_run(tmp_path / "run"), COPIES["covid_ct"](tmp_path / "copy")
    command = [sys.executable, "-m", "medp_clip_jax.evaluate", f"--checkpoint={run}", f"--eval={HOME / 'covid_ct.py'}"]
    done = subprocess.run([*command, "--partial", f"--data={folder}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "COVID-CT (partial), split test" in done.stdout and "image/covid_ct/accuracy" in done.stdout
    found = json.loads((run / "evaluation/covid_ct-partial-test/results.json").read_text())
    assert found["data"]["name"].startswith("covid_ct-partial-")
    refused = subprocess.run([*command, f"--data={tmp_path}"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "not as COVID-CT is published" in refused.stderr and "CT_COVID.zip" in refused.stderr
