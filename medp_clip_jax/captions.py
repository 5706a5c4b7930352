"""Composed captions that say more than a list of labels: what is visible where, in sentences that suit the modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medp_clip_jax import positions, sentences

if TYPE_CHECKING:
    from medp_clip_jax.ontology import Node
    from medp_clip_jax.records import Region, RegionExample

STYLES = ("labels", "described")
PLACED = 3  # labels of a caption that are said to lie somewhere
_VISIBLE = 0.5  # share of a region's box that must lie in the view
# Words of a modality -> templates; the first match counts, the last row is for all others.
_TEMPLATES = (
    (("microscop", "histo", "patholog", "smear"), ("{scan}{part} with {labels}", "{labels} in {scan}{part}")),
    (
        ("scop", "fundus", "photo"),
        ("{scan}{part} with {labels}", "{scan}{part}, {labels} visible", "{labels} seen in {scan}{part}"),
    ),
    ((), ("{scan}{part} showing {labels}", "{labels} on {scan}{part}", "{scan}{part} with {labels}")),
)
_FIRST = ("image", "finding", "device", "cell", "tissue", "other", "anatomy")  # kinds in the order they are told


def described(
    ontology: Mapping[str, Node],
    example: RegionExample,
    rng: np.random.Generator | None = None,
    view: Sequence[float] | None = None,
    mirrored: bool = False,
) -> str:
    """One sentence about what a view of an image shows: modality, plane, body part, labels, and where they lie.

    `view` (x0, y0, x1, y1) in px is what is seen, mirrored or not; the whole image if None. Regions outside it are not
    told, image labels always. The body part is the example's, else that which all labels share. At most
    `sentences.MAX_LABELS` labels, the first `PLACED` with a single region with its place in the image. With `rng` the
    order, names and template vary, the content does not.
    """
    view = (0, 0, example.width, example.height) if view is None else view
    regions: dict[str, list[Region]] = {}
    for region in example.regions:
        if _share(region.box, view) >= _VISIBLE:
            regions.setdefault(region.label, []).append(region)
    present = list(dict.fromkeys((*example.image_labels, *regions)))
    implied = frozenset().union(*(ontology.ancestors(label) for label in present))
    told = sorted(
        (label for label in present if label not in implied),
        key=lambda label: (label not in example.image_labels, _FIRST.index(ontology[label].kind), label),
    )[: sentences.MAX_LABELS]
    single = [label for label in told if len(regions.get(label, ())) == 1][:PLACED]
    places = {label: positions.phrase(regions[label][0].box, view, mirrored) for label in single}
    image = sentences.with_view(sentences.scan(example.modality), example.view)
    body = example.anatomy or _shared_part([ontology[label] for label in told])
    part = f" of {sentences.body_part(body)}" if body else ""
    if not told:
        return image + part
    templates = next(lines for words, lines in _TEMPLATES if not words or _any(words, example.modality))
    if rng is None:
        template, order = templates[0], list(range(len(told)))
    else:
        template, order = templates[rng.integers(len(templates))], rng.permutation(len(told)).tolist()
    words = [_told(ontology[told[i]], len(regions.get(told[i], ())), places.get(told[i], ""), rng) for i in order]
    return template.format(scan=image, part=part, labels=_list(words))


def _told(node: Node, count: int, place: str, rng: np.random.Generator | None) -> str:
    name = node.name if rng is None else sentences.varied(node, rng)
    if place:
        return f"{name} {place}"
    return f"{name} in several places" if count > 1 else name


def _share(box: Sequence[float], view: Sequence[float]) -> float:
    width = min(box[2], view[2]) - max(box[0], view[0])
    height = min(box[3], view[3]) - max(box[1], view[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(0.0, width) * max(0.0, height) / area if area > 0 else 0.0


def _shared_part(nodes: Sequence[Node]) -> str:
    parts = {node.body_part for node in nodes} - {""}
    return parts.pop() if len(parts) == 1 else ""


def _any(words: Sequence[str], modality: str) -> bool:
    return any(word in modality.lower() for word in words)


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
