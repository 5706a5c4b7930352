"""Text for labels, by kind, and for images; names come first because sentences may be truncated."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medp_clip_jax.ontology import Node
    from medp_clip_jax.records import RegionExample

# The start of a word in a source's modality -> how a sentence says it. The first match counts: special ones first.
MODALITIES = {
    "mri (cardiac": "a cardiac MRI scan",
    "cardiac mr": "a cardiac MRI scan",
    "chest x-ray": "a chest X-ray",
    "mammograph": "a mammogram",
    "radiograph": "an X-ray",
    "x-ray": "an X-ray",
    "xray": "an X-ray",
    "fundus": "a fundus photograph",
    "optical coherence": "an OCT scan",
    "oct": "an OCT scan",
    "dermoscop": "a dermoscopy image",
    "dermatoscop": "a dermoscopy image",
    "colonoscop": "a colonoscopy image",
    "laparoscop": "a laparoscopy image",
    "endoscop": "an endoscopy image",
    "echocardio": "an echocardiogram",
    "ultraso": "an ultrasound image",
    "blood smear": "a blood smear image",
    "fluorescence": "a fluorescence microscopy image",
    "brightfield": "a brightfield microscopy image",
    "electron": "an electron microscopy image",
    "histo": "a histology image",
    "patholog": "a histology image",
    "microscop": "a microscopy image",
    "angiogra": "an angiogram",
    "cbct": "a cone-beam CT scan",
    "pet": "a PET scan",
    "t2*": "a T2* MRI scan",
    "mri (sagittal": "a sagittal MRI scan",
    "flair": "a FLAIR MRI scan",
    "t1": "a T1 MRI scan",
    "t2": "a T2 MRI scan",
    "mr": "an MRI scan",
    "ct": "a CT scan",
}
_TEMPLATES = {
    "anatomy": ("the {name}", "a medical image showing the {name}", "the region of the {name}"),
    "cell": ("a {name}", "a microscopy image of a {name}", "one {name} under the microscope"),
    "device": ("a {name}", "a medical image with a {name}", "a visible {name}"),
    "finding": ("{name} in a medical image", "a finding of {name}", "signs of {name}"),
    "image": ("{name} of a patient sample", "an example of {name}"),
    "other": ("the {name}", "a medical image showing {name}"),
    "tissue": ("{name} in a medical image", "an area of {name}", "a sample with {name}"),
}
_CAPTIONS = ("{scan}{part} showing {labels}", "{labels} in {scan}{part}", "{scan}{part}: {labels}")
MAX_LABELS = 8


def scan(modality: str) -> str:
    """A source's modality as a phrase with its article: `mri (t1)` -> `a T1 MRI scan`; `a medical image` if empty."""
    text = modality.strip().lower()
    if not text:
        return "a medical image"
    found = next((phrase for start, phrase in MODALITIES.items() if re.search(rf"\b{re.escape(start)}", text)), None)
    return found or f"{'an' if text[0] in 'aeiou' else 'a'} {text} image"


def names(node: Node) -> tuple[str, ...]:
    """The names a sentence may use: abbreviations of up to three letters are for look-up only."""
    return (node.name, *(synonym for synonym in node.synonyms if len(synonym) > 3))


def of_node(node: Node) -> tuple[str, ...]:
    """All sentences of a node, without duplicates: each template with each name; every prefix is a balanced sample."""
    templates, known = _TEMPLATES[node.kind], names(node)
    lines = list(known)
    if node.definition:
        lines.insert(1, f"{node.name}: {node.definition}")
    for turn in range(len(templates)):
        for offset, name in enumerate(known):
            template = templates[(turn + offset) % len(templates)]
            lines.append(template.format(name=name))
    return tuple(dict.fromkeys(lines))


def interleaved(lines: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """`lines` with `more` in turn after each, the first of `lines` in front, without duplicates."""
    pairs = itertools.zip_longest(lines, more)
    return tuple(dict.fromkeys(line for pair in pairs for line in pair if line))


def of_example(ontology: Mapping[str, Node], example: RegionExample, rng: np.random.Generator | None) -> str:
    """One sentence from modality, view, body part and at most `MAX_LABELS` labels, image labels before region labels.

    An ancestor of another present label says nothing new and is left out. With `rng` order, template and names vary.
    """
    present = list(dict.fromkeys((*example.image_labels, *(region.label for region in example.regions))))
    implied = frozenset().union(*(ontology.ancestors(label) for label in present))
    present = [label for label in present if label not in implied]
    of_image = [label for label in present if label in example.image_labels][:MAX_LABELS]
    of_regions = sorted(label for label in present if label not in example.image_labels)
    if rng is not None:
        of_regions = [of_regions[i] for i in rng.permutation(len(of_regions))]
    chosen = (of_image + of_regions)[:MAX_LABELS]
    template, words = _CAPTIONS[0], [ontology[label].name for label in chosen]
    if rng is not None:
        chosen = [chosen[i] for i in rng.permutation(len(chosen))]
        template = _CAPTIONS[rng.integers(len(_CAPTIONS))]
        words = [varied(ontology[label], rng) for label in chosen]
    part = f" of {body_part(example.anatomy)}" if example.anatomy else ""
    image = with_view(scan(example.modality), example.view)
    if not words:
        return image + part
    return template.format(scan=image, part=part, labels=", ".join(words))


def varied(node: Node, rng: np.random.Generator) -> str:
    """The node's name, half of the time one drawn from all of its names."""
    known = names(node)
    return known[rng.integers(len(known))] if rng.random() < 0.5 else node.name


def body_part(anatomy: str) -> str:
    """A body part with its article, where it takes one."""
    without_article = ("s", "blood", "tissue", "skin")
    return anatomy if anatomy.endswith(without_article) or anatomy.startswith("the ") else f"the {anatomy}"


def with_view(image: str, view: str) -> str:
    """A phrase of `scan` with its plane: `a CT scan` and `axial` make `an axial CT scan`."""
    plane = view.strip().lower()
    if plane not in ("axial", "coronal", "sagittal") or plane in image:
        return image
    return f"{'an' if plane == 'axial' else 'a'} {plane} {image.split(' ', 1)[1]}"
