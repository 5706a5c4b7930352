"""From the labels of a folder to nodes of the ontology."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data.report import Report
from data.sources.pictures import BadRecord
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Node, Ontology

Row = Mapping[str, Any]
Label = tuple[str, str]  # the label as the source writes it, and its phrase ("" without one)


def slug(row: Row) -> str:
    """The label of an annotation, its phrase where there is no label, "" where there is neither."""
    return next(
        (row[key].strip() for key in ("label", "label_text") if isinstance(row.get(key), str) and row[key].strip()), ""
    )


def of_region(row: Row) -> Label:
    text = row.get("label_text")
    return slug(row), text.strip() if isinstance(text, str) else ""


def of_image(row: Row) -> tuple[Label, ...]:
    stated = row.get("image_labels") or ()
    stated = stated if isinstance(stated, list) else [stated]
    return tuple((label.strip(), "") for label in stated if isinstance(label, str) and label.strip())


def of_name(name: str) -> Label:
    """The label of a source that has only names: running text is its own phrase."""
    return name, name if " " in name.strip() else ""


def wanted(rows: Iterable[tuple[Row, Sequence[Row]]]) -> dict[Label, str]:
    """Every label that images with their annotations need -> where it stands first, in order of appearance."""
    found: dict[Label, str] = {}
    for row, annotations in rows:
        for label in of_image(row):
            found.setdefault(label, row["place"])
        for annotation in annotations:
            found.setdefault(of_region(annotation), annotation["place"])
    return found


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Labels of a source as node ids; `refused` are those that cannot become a node, with the reason."""

    ids: Mapping[Label, str]
    refused: Mapping[Label, str]
    nodes: tuple[Node, ...]  # the needed ones outside the shipped ontology, parents before children

    def node(self, name: str) -> str:
        """The node id of a plain name; BadRecord if it cannot be one."""
        label = of_name(name)
        if label not in self.ids:
            raise BadRecord("label cannot be used", self.refused.get(label, f"{name!r} is no label of this source"))
        return self.ids[label]


def resolve(found: Mapping[Label, str], ontology: Ontology, shipped: Ontology, source: str, report: Report) -> Resolved:
    """Resolves labels in `ontology`, which is `shipped` plus what earlier sources added; unknown ones become nodes."""
    ids: dict[Label, str] = {}
    refused: dict[Label, str] = {}
    for (label, text), place in found.items():
        if ontology.left_out(label, source):
            refused[label, text] = "the table of this source in data/ontology/sources leaves it out"
            continue
        node_id = ontology.resolve(label, text, source)
        if node_id is None or (report.strict and node_id not in shipped):
            try:
                node = ontology.draft(label, text) if node_id is None else ontology[node_id]
                ontology, node_id = ontology.with_node(node) if node_id is None else ontology, node.id
            except InputError as error:
                if report.strict:
                    raise InputError(f"{place}: label cannot be used: {error}") from error
                refused[label, text] = str(error)
                continue
            report.new_label(place, label, node_id)
        ids[label, text] = node_id
    return Resolved(ids, refused, missing_nodes(ids.values(), ontology, shipped))


def missing_nodes(ids: Iterable[str], ontology: Ontology, shipped: Ontology) -> tuple[Node, ...]:
    """The nodes of `ontology` that these labels and their ancestors need and `shipped` lacks, parents before
    children."""
    needed = {node_id for label in ids for node_id in (label, *ontology.ancestors(label)) if node_id not in shipped}
    return tuple(
        ontology[node_id] for node_id in sorted(needed, key=lambda node_id: (len(ontology.ancestors(node_id)), node_id))
    )
