"""Labels as ontology nodes: one node per structure however a source spells it, with parents, side, names, definition.

`parents` means *is a*, never *part of*: what carries a node's label may also be called by any ancestor's name. That
is what allows `excluded` to keep ancestors and descendants out of each other's softmax denominators.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medp_clip_jax import label_names, sentences
from medp_clip_jax.errors import InputError

if TYPE_CHECKING:
    from medp_clip_jax.records import RegionExample

KINDS = ("anatomy", "cell", "device", "finding", "image", "other", "tissue")


@dataclasses.dataclass(frozen=True)
class Node:
    """One label: `id` is a slug, `name` the canonical phrase, `parents` the ids of what it is a kind of.

    `laterality` is "left", "right" or "" (no side, or either); `modalities` lists where it is usually seen;
    `definition` is one line without a full stop.
    """

    id: str
    name: str
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    kind: str = "anatomy"
    laterality: str = ""
    modalities: tuple[str, ...] = ()
    definition: str = ""


class Ontology(Mapping[str, Node]):
    """An immutable, validated mapping from node id to `Node`, in the order of the ids.

    Raises InputError naming the node when a parent is unknown, parents form a cycle, two nodes claim one name, or a
    name or parent contradicts the node's side.
    """

    def __init__(self, nodes: Iterable[Node], aliases: Mapping[str, Mapping[str, str]] | None = None):
        listed = sorted(nodes, key=lambda node: node.id)
        self._nodes = {node.id: node for node in listed}
        if len(self._nodes) != len(listed):
            twice = next(a.id for a, b in zip(listed, listed[1:], strict=False) if a.id == b.id)
            raise InputError(f"ontology node {twice!r}: defined twice; merge the two definitions")
        for node in listed:
            _check_node(node, self._nodes)
        self._ancestors: dict[str, frozenset[str]] = {}
        for node in listed:
            self._collect_ancestors(node.id, ())
        self._claims = _claims(listed)
        self._alias_data = {source: dict(sorted(table.items())) for source, table in sorted((aliases or {}).items())}
        self._aliases = self._read_aliases()

    @classmethod
    def load(cls, path: str | Path) -> Ontology:
        """Reads the file that `save` writes; InputError when it is absent or not such a file."""
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            records, aliases = content["nodes"], content["aliases"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a readable ontology ({error}); give a saved ontology.json") from None
        return cls([node_from_json(record, f"{path}") for record in records], aliases)

    def save(self, path: str | Path) -> None:
        """Writes JSON, one node per line in the order of the ids, so that two versions can be compared line by line."""
        lines = ",\n".join(json.dumps(node_to_json(node), ensure_ascii=False) for node in self.values())
        aliases = json.dumps(self._alias_data, ensure_ascii=False, indent=1)
        Path(path).write_text(f'{{"nodes": [\n{lines}\n],\n"aliases": {aliases}}}\n', "utf-8")

    def with_node(self, node: Node) -> Ontology:
        """Returns this ontology plus one node (see `draft`); InputError when it does not fit."""
        return Ontology([*self.values(), node], self._alias_data)

    def __getitem__(self, node_id: str) -> Node:
        return self._nodes[node_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def ancestors(self, node_id: str) -> frozenset[str]:
        """Ids of everything the node is a kind of, itself not included."""
        return self._ancestors[node_id]

    def resolve(self, label: str, text: str = "", source: str = "") -> str | None:
        """Finds the node a source means by `label`, or by `text` where the label is unknown; None when unsure.

        Case, punctuation, plural, word order, spelling and side words may differ, nothing else; `source` selects a
        table of names that only that source uses. `text` wins over a known label only where it names a special case of
        it. A side named in either is kept: `left ...` is a node of the left or None; label against text is None.
        """
        alias = self._alias_table(label_names.slug(source)).get(label_names.parse(label))
        if alias:
            return alias
        sides = {label_names.parse(words).side for words in (label, text)} - {""}
        found, second = self._find(label), self._find(text)
        if len(sides) > 1:
            return None
        if sides and second and self[second].laterality not in sides:
            second = None
        if found is None or (second is not None and found in self._ancestors[second]):
            found = second
        return None if found and sides and self[found].laterality not in sides else found

    def draft(self, label: str, text: str = "") -> Node:
        """Proposes a node for a label that `resolve` does not know, to be added by `with_node`.

        Its side is the one its words name and its parent the node its words end in, sides left out (`left thumb joint`
        is a `joint`), where that exists. InputError when the label has no letters or contradicts its text.
        """
        name = " ".join((text or label).replace("_", " ").split())
        node_id = label_names.slug(label) or label_names.slug(text)
        sides = {label_names.parse(words).side for words in (label, name)} - {""}
        if not node_id or len(sides) > 1:
            raise InputError(f"label {label!r} ({text!r}): expected a name with at most one side; correct the label")
        side = sides.pop() if sides else ""
        if side not in label_names.SIDES:
            side = ""
        elif not label_names.parse(name).side:
            name = f"{side} {name}"
        # Only running text ends in what the thing is: a slug may read `liver_tumor` or `tumor_liver`.
        parent = self._home(name, side, whole=not text)
        kind = self[parent].kind if parent else "other"
        return Node(node_id, name, parents=(parent,) if parent else (), kind=kind, laterality=side)

    def excluded(self, ids: Sequence[str]) -> np.ndarray:
        """Bool [labels, labels]: is the column an ancestor or descendant of the row? InputError if one is unknown."""
        row = {node_id: i for i, node_id in enumerate(ids)}
        matrix = np.zeros((len(ids), len(ids)), bool)
        for node_id, i in row.items():
            if node_id not in self._nodes:
                raise InputError(f"label {node_id!r} is not in the ontology; add a node for it")
            for ancestor in self._ancestors[node_id] & row.keys():
                matrix[i, row[ancestor]] = matrix[row[ancestor], i] = True
        return matrix

    def sentences(self, node_id: str) -> tuple[str, ...]:
        """All sentences for a node in fixed order, the name first: training variants and evaluation ensemble."""
        return sentences.of_node(self[node_id])

    def caption(self, example: RegionExample, rng: np.random.Generator | None = None) -> str:
        """The example's caption, else a sentence from modality, body part and labels; `rng` (or None) varies it."""
        return example.caption or sentences.of_example(self, example, rng)

    def _find(self, name: str) -> str | None:
        if name in self._nodes:
            return name
        found = self._claims.get(label_names.parse(name))
        if found:
            return found
        others = {self._claims[phrase] for phrase in label_names.other_readings(name) if phrase in self._claims}
        outer, inner = label_names.parenthesis(name)
        if inner:  # `name (other name)`: both must be known and agree, the more special one counts
            pair = {self._find(outer), self._find(inner)}
            others |= {a for a in pair if a and all(b == a or b in self._ancestors[a] for b in pair)}
        return others.pop() if len(others) == 1 else None

    def _alias_table(self, source: str) -> Mapping[label_names.Phrase, str]:
        """The table of the longest data set name that `source` begins with (`isic2017_cls` is an `isic`)."""
        names = [name for name in self._aliases if source.startswith(name) and not source[len(name) :][:1].isalpha()]
        return self._aliases[max(names, key=len)] if names else {}

    def _home(self, name: str, side: str, whole: bool) -> str | None:
        """The node that a name without its side is, or else (unless `whole`) the longest end of it is."""
        tails = label_names.tails(name)
        found = (self._claims.get(phrase) for phrase in (tails[:1] if whole else tails))
        return next((node_id for node_id in found if node_id and self[node_id].laterality in ("", side)), None)

    def _collect_ancestors(self, node_id: str, path: tuple[str, ...]) -> frozenset[str]:
        if node_id in path:
            raise InputError(f"ontology node {node_id!r}: a cycle of parents ({' > '.join((*path, node_id))})")
        if node_id not in self._ancestors:
            parents = self[node_id].parents
            above = [self._collect_ancestors(parent, (*path, node_id)) for parent in parents]
            self._ancestors[node_id] = frozenset(parents).union(*above)
        return self._ancestors[node_id]

    def _read_aliases(self) -> dict[str, dict[label_names.Phrase, str]]:
        tables: dict[str, dict[label_names.Phrase, str]] = {}
        for source, table in self._alias_data.items():
            tables[label_names.slug(source)] = {label_names.parse(name): node_id for name, node_id in table.items()}
            for name, node_id in table.items():
                side = label_names.parse(name).side
                if node_id not in self._nodes or side not in ("", self[node_id].laterality):
                    raise InputError(f"ontology alias {source}/{name!r}: no node {node_id!r} of that side; correct it")
        return tables


def node_from_json(record: Mapping, where: str) -> Node:
    """Builds a node from a JSON object whose keys are `Node` fields; InputError, naming `where`, if they are not."""
    fields = {field.name for field in dataclasses.fields(Node)}
    if not isinstance(record, Mapping) or not record.keys() <= fields or not record.keys() >= {"id", "name"}:
        raise InputError(f"{where}: expected id, name and others of {sorted(fields)}, got {str(record)[:80]}")
    for key, value in record.items():
        words = value if key in ("synonyms", "parents", "modalities") else [value]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{where}: node {record['id']!r}: {key} has the wrong type; got {value!r}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Node(**values)


def node_to_json(node: Node) -> dict:
    """The inverse of `node_from_json`; fields at their default are left out."""
    defaults = {field.name: field.default for field in dataclasses.fields(Node)}
    return {key: value for key, value in dataclasses.asdict(node).items() if value != defaults[key]}


def _check_node(node: Node, nodes: Mapping[str, Node]) -> None:
    where = f"ontology node {node.id!r}"
    if not node.id or label_names.slug(node.id) != node.id:
        raise InputError(f"{where}: an id holds lower-case letters, digits and underscores")
    if not node.name.strip() or node.kind not in KINDS or node.laterality not in ("", *label_names.SIDES):
        raise InputError(f"{where}: needs a name, a kind of {KINDS} and a laterality of left, right or empty")
    for parent in node.parents:
        if parent not in nodes:
            raise InputError(f"{where}: its parent {parent!r} does not exist; add it or correct the id")
        if nodes[parent].laterality not in ("", node.laterality):
            raise InputError(f"{where}: is {node.laterality or 'without side'} but its parent {parent!r} is not")
    for name in (node.id, node.name, *node.synonyms):
        side = label_names.parse(name).side
        if side in label_names.SIDES and side != node.laterality:
            raise InputError(f"{where}: its name {name!r} says {side} but its laterality is {node.laterality!r}")


def _claims(nodes: Iterable[Node]) -> dict[label_names.Phrase, str]:
    claims: dict[label_names.Phrase, str] = {}
    for node in nodes:
        for name in (node.id, node.name, *node.synonyms):
            phrase = label_names.parse(name)
            if claims.setdefault(phrase, node.id) != node.id:
                raise InputError(f"ontology node {node.id!r}: {name!r} already names {claims[phrase]!r}; keep one")
    return claims
