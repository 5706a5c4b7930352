"""A small folder of real files and the ontology of its labels, for the tests of building and reading."""

import json

import numpy as np
from PIL import Image

from data.build import build_corpus, folder_sources
from data.report import Report
from medp_clip_jax.ontology import Node, Ontology

ONTOLOGY = Ontology(
    [
        Node("organ", "organ"),
        Node("liver", "liver", parents=("organ",)),
        Node("spleen", "spleen", synonyms=("lien",), parents=("organ",)),
        Node("no_finding", "no finding", kind="finding"),
    ]
)
SIZE = (40, 30)  # width, height


def write_folder(path, images=6, dataset=None):
    """Images 0..n-1 in groups of two; image i has a liver mask, a spleen in an instance map and a liver box."""
    name = dataset or path.name
    (path / "images").mkdir(parents=True)
    (path / "masks").mkdir()
    rows, regions = [], []
    for i in range(images):
        pixels = np.random.default_rng(i).integers(0, 255, SIZE[::-1], np.uint8)
        Image.fromarray(pixels).save(path / f"images/{i}.png")
        mask = np.zeros(SIZE[::-1], np.uint8)
        mask[5:15, 4 : 12 + i] = 255
        Image.fromarray(mask).save(path / f"masks/{i}.png")
        instances = np.zeros(SIZE[::-1], np.uint16)
        instances[20:25, 20:30], instances[26:29, 1:3] = 7, 300
        Image.fromarray(instances).save(path / f"masks/{i}_instances.png")
        rows.append(
            {
                "dataset": name, "image_id": f"i{i}", "image": f"images/{i}.png", "width": SIZE[0], "height": SIZE[1],
                "modality": "ct", "anatomy": "abdomen", "group": f"p{i // 2}", "image_labels": ["no finding"],
            }
        )  # fmt: skip
        regions += [
            {"image_id": f"i{i}", "label": "liver", "mask": f"masks/{i}.png", "mask_value": None, "box": None},
            {"image_id": f"i{i}", "label": "lien", "mask": f"masks/{i}_instances.png", "mask_value": 300},
            {"image_id": f"i{i}", "label": "liver", "mask": None, "box": [1, 2, 21, 12]},
        ]
    write_lines(path / "images.jsonl", rows)
    write_lines(path / "annotations.jsonl", regions)
    return path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def change_line(path, number, **values):
    """Changes fields of one row of a JSON-lines file."""
    rows = read_lines(path)
    rows[number] |= values
    write_lines(path, rows)


def build(directory, output, only="train", strict=False, ontology=ONTOLOGY):
    report = Report(strict)
    return build_corpus(output, folder_sources(directory, ontology, only, report), ontology, report)
