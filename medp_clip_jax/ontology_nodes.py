"""One node of the ontology: its fields, how it is written as JSON, and what is checked of it alone."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from medp_clip_jax import label_names
from medp_clip_jax.errors import InputError

KINDS = ("anatomy", "cell", "device", "finding", "image", "other", "tissue")
BODY_PARTS = (
    "abdomen", "breast", "chest", "eye", "head", "lower limb", "mouth", "neck", "pelvis", "skin", "spine",
    "upper limb", "whole body",
)  # fmt: skip
# Terminologies that a node may name its concept in -> how an identifier looks.
SYSTEMS = {
    "SCT": r"\d{6,18}",  # SNOMED CT, under the designator that DICOM uses for it
    "RADLEX": r"RID\d+",
    "UBERON": r"\d{7}",
    "FMA": r"\d+",
}


@dataclasses.dataclass(frozen=True)
class Node:
    """One label: `id` is a slug, `name` the canonical phrase, `parents` the ids of what it is a kind of.

    `laterality` is "left", "right" or "" (no side, or either); `modalities` lists where it is usually seen;
    `definition` is one line without a full stop; `body_part` is one of BODY_PARTS, "" where it occurs in several;
    `xrefs` are identifiers of exactly this concept elsewhere, as "SYSTEM:code" with one of SYSTEMS.
    """

    id: str
    name: str
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    kind: str = "anatomy"
    laterality: str = ""
    modalities: tuple[str, ...] = ()
    definition: str = ""
    body_part: str = ""
    xrefs: tuple[str, ...] = ()

    def code(self, system: str) -> str:
        """The node's identifier in a terminology, such as "64033007" in "SCT"; "" where none is stated."""
        start = f"{system}:"
        return next((xref[len(start) :] for xref in self.xrefs if xref.startswith(start)), "")


_LISTS = ("synonyms", "parents", "modalities", "xrefs")


def node_from_json(record: Mapping, where: str) -> Node:
    """Builds a node from a JSON object whose keys are `Node` fields; InputError, naming `where`, if they are not."""
    fields = {field.name for field in dataclasses.fields(Node)}
    if not isinstance(record, Mapping) or not record.keys() <= fields or not record.keys() >= {"id", "name"}:
        raise InputError(f"{where}: expected id, name and others of {sorted(fields)}, got {str(record)[:80]}")
    for key, value in record.items():
        words = value if key in _LISTS else [value]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{where}: node {record['id']!r}: {key} has the wrong type; got {value!r}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Node(**values)


def node_to_json(node: Node) -> dict:
    """The inverse of `node_from_json`; fields at their default are left out."""
    defaults = {field.name: field.default for field in dataclasses.fields(Node)}
    return {key: value for key, value in dataclasses.asdict(node).items() if value != defaults[key]}


def check_node(node: Node, nodes: Mapping[str, Node]) -> None:
    """Raises InputError naming the node where its fields, side or parents contradict each other or `nodes`."""
    where = f"ontology node {node.id!r}"
    if not node.id or label_names.slug(node.id) != node.id:
        raise InputError(f"{where}: an id holds lower-case letters, digits and underscores")
    if not node.name.strip() or node.kind not in KINDS or node.laterality not in ("", *label_names.SIDES):
        raise InputError(f"{where}: needs a name, a kind of {KINDS} and a laterality of left, right or empty")
    if node.body_part not in ("", *BODY_PARTS):
        raise InputError(f"{where}: its body_part {node.body_part!r} is none of {', '.join(BODY_PARTS)}")
    for parent in node.parents:
        if parent not in nodes:
            raise InputError(f"{where}: its parent {parent!r} does not exist; add it or correct the id")
        if nodes[parent].laterality not in ("", node.laterality):
            raise InputError(f"{where}: is {node.laterality or 'without side'} but its parent {parent!r} is not")
    for name in (node.id, node.name, *node.synonyms):
        side = label_names.parse(name).side
        if side in label_names.SIDES and side != node.laterality:
            raise InputError(f"{where}: its name {name!r} says {side} but its laterality is {node.laterality!r}")
    systems = [xref.partition(":")[0] for xref in node.xrefs]
    for system, xref in zip(systems, node.xrefs, strict=True):
        if system not in SYSTEMS or not re.fullmatch(SYSTEMS[system], xref.partition(":")[2]):
            raise InputError(f"{where}: xref {xref!r}: expected SYSTEM:code with one of {', '.join(SYSTEMS)}")
        if systems.count(system) > 1:
            raise InputError(f"{where}: names two concepts of {system}: keep the one that is exactly this node")


def claims(nodes: Iterable[Node]) -> dict[label_names.Phrase, str]:
    """Every spelling -> the one node it names; InputError where two nodes claim one name or one identifier."""
    found: dict[label_names.Phrase, str] = {}
    codes: dict[str, str] = {}
    for node in nodes:
        for name in (node.id, node.name, *node.synonyms):
            phrase = label_names.parse(name)
            if found.setdefault(phrase, node.id) != node.id:
                raise InputError(f"ontology node {node.id!r}: {name!r} already names {found[phrase]!r}; keep one")
        for xref in node.xrefs:
            if codes.setdefault(xref, node.id) != node.id:
                raise InputError(f"ontology node {node.id!r}: {xref} already identifies {codes[xref]!r}; keep one")
    return found
