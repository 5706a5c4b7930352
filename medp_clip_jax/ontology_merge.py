"""Two ontologies as one: that of a run and that of a corpus which has learned since, or the other way round."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from medp_clip_jax import label_names
from medp_clip_jax.ontology import Node, Ontology


def merged(first: Ontology, second: Ontology) -> tuple[Ontology, dict[str, str]]:
    """`first` plus what only `second` has, and the ids of `second` that `first` names otherwise -> their id there.

    A node of `second` is another spelling of one in `first` where its id or name names that one, and their sides agree;
    it is then left out, and its children hang below the one it stands for. Of the others those synonyms are left out
    that `first` has given to another node. Generated sentences of `second` come along where `first` has none.
    """
    renamed: dict[str, str] = {}
    kept: dict[str, Node] = {}
    claimed = {label_names.parse(name): node.id for node in first.values() for name in _names(node)}
    for node_id in sorted(second, key=lambda node_id: (len(second.ancestors(node_id)), node_id)):
        node = second[node_id]
        if node_id in first:
            continue
        owner = claimed.get(label_names.parse(node.name)) or claimed.get(label_names.parse(node_id))
        if owner is not None:
            renamed[node_id] = owner
            continue
        synonyms = tuple(name for name in node.synonyms if label_names.parse(name) not in claimed)
        codes = {xref for other in (*first.values(), *kept.values()) for xref in other.xrefs}
        above = dict.fromkeys(renamed.get(parent, parent) for parent in node.parents)
        sides = {parent: (first.get(parent) or kept[parent]).laterality for parent in above}
        parents = tuple(parent for parent in above if sides[parent] in ("", node.laterality))
        node = dataclasses.replace(
            node, synonyms=synonyms, parents=parents, xrefs=tuple(x for x in node.xrefs if x not in codes)
        )
        claimed |= {label_names.parse(name): node_id for name in _names(node)}
        kept[node_id] = node
    generated = {renamed.get(node_id, node_id): lines for node_id, lines in second.generated.items()}
    return Ontology([*first.values(), *kept.values()], first.tables, generated | first.generated), renamed


def translated(trained: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The content of a run's labels.json under the new ids; counts add up where two labels have become one."""
    found = dict(trained)
    if "labels" in found:
        found["labels"] = sorted({renamed.get(label, label) for label in found["labels"]})
    if found.get("train_regions") is not None:
        counts: dict[str, int] = {}
        for label, count in found["train_regions"].items():
            label = renamed.get(label, label)
            counts[label] = counts.get(label, 0) + count
        found["train_regions"] = counts
    return found


def _names(node: Node) -> tuple[str, ...]:
    return node.id, node.name, *node.synonyms
