"""The model that comes with the package: there without a network, small, of permitted sources only, and able."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import corpus_cases
import numpy as np
import pytest

import medp_clip_jax as medp
from configs import release_small
from data.phantoms import phantom_examples
from medp_clip_jax import hub, records
from medp_clip_jax.evaluators.encode import encode_labels
from medp_clip_jax.ontology import Ontology

FOLDER = hub.SHIPPED / hub.DEFAULT


@pytest.fixture(scope="module")
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", None)  # whoever opens a connection fails
        return medp.load(hub.DEFAULT)


def test_it_is_small_and_of_permitted_sources_only():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 64e6
    sources = {*release_small.ALLOWED, "phantoms"}
    assert set(json.loads((FOLDER / "labels.json").read_text())["sources"]) == sources
    card = (FOLDER / "README.md").read_text()
    assert set(re.findall(r"^\| (\w+) \| [\d,]+ \| [\d,]+ \|", card, re.MULTILINE)) == sources


def test_no_path_of_the_machine_that_made_it_is_in_it():
    for path in FOLDER.glob("*.json"):
        assert not re.search(r'"/(home|root|work|tmp|mnt)/', path.read_text()), path


def test_the_wheel_takes_it_along():
    from setuptools import find_packages

    root = pathlib.Path(medp.__file__).parents[1]
    assert "medp_clip_jax" in find_packages(root)
    patterns = re.search(r"package_data=(.*)", (root / "setup.py").read_text())[1]
    assert "releases/*/*" in patterns and not [path for path in FOLDER.iterdir() if path.is_dir()]


def test_it_names_regions_of_phantoms_that_it_never_saw(loaded):
    """By mask and box, of the labels of phantoms; by chance one of 22 is right."""
    model, params, processor = loaded
    examples = list(phantom_examples("shipped", 24, seed=1, size=160))
    names = sorted({region.label for example in examples for region in example.regions})
    ontology = Ontology.load(FOLDER / "ontology.json")
    text = encode_labels(model, params, processor.tokenizer, ontology, names, model.config.text.context)
    images = processor.images([records.decode_image(example.image) for example in examples])
    features = model.encode_image(params, images)
    most = max(len(example.regions) for example in examples)
    target = np.full((len(examples), most), -1)
    masks, boxes = np.zeros((*target.shape, 160, 160), np.uint8), np.zeros((*target.shape, 4), np.float32)
    for row, example in enumerate(examples):
        for column, region in enumerate(example.regions):
            target[row, column] = names.index(region.label)
            masks[row, column] = 255 * records.decode_mask(region.rle, 160, 160)
            boxes[row, column] = region.box
        boxes[row, len(example.regions) :] = (0, 0, 160, 160)  # what follows is not counted
        masks[row, len(example.regions) :] = 255
    right = {}
    for kind, prompts in {
        "mask": medp.RegionPrompts.from_masks(masks),
        "box": medp.RegionPrompts.from_boxes(boxes, image_size=(160, 160)),
    }.items():
        found = np.asarray(model.encode_regions(params, features, prompts)) @ np.asarray(text).T
        right[kind] = (found.argmax(-1) == target)[target >= 0].mean()
    assert min(right.values()) > 0.7, right


def test_a_folder_that_it_never_saw_needs_no_code_and_no_configuration(tmp_path):
    folder = corpus_cases.write_folder(tmp_path / "own")
    lines = corpus_cases.read_lines(folder / "annotations.jsonl")
    lines = [line | {"label": line["label"].replace("lien", "spleen")} for line in lines]
    lines[0]["label"] = "Zenker diverticulum"  # in nobody's ontology
    corpus_cases.write_lines(folder / "annotations.jsonl", lines)
    command = [sys.executable, "-m", "medp_clip_jax.evaluate", "--data", "own"]
    root = pathlib.Path(medp.__file__).parents[1]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    seen = {"liver", "spleen"} & set(json.loads((FOLDER / "labels.json").read_text())["labels"])
    assert seen == {"liver", "spleen"}
    assert "1 of 3 labels were not seen in training: zenker_diverticulum\n" in done.stdout
    assert json.loads((tmp_path / "evaluation/own-test/results.json").read_text())["metrics"]


def test_every_label_of_it_has_sentences_of_its_own():
    ontology = Ontology.load(FOLDER / "ontology.json")
    trained = json.loads((FOLDER / "labels.json").read_text())["labels"]
    said = {sentence: label for label in trained for sentence in ontology.sentences(label)}
    assert set(said.values()) == set(trained) and len(trained) == 100
