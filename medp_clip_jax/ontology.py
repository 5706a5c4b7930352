"""Labels as ontology nodes: one node per structure however a source spells it, with parents, side, names, definition.

`parents` means *is a*, never *part of*: what carries a node's label may also be called by any ancestor's name. That
is what allows `excluded` to keep ancestors and descendants out of each other's softmax denominators.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medp_clip_jax import captions, label_names, sentences
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology_nodes import KINDS, Node, check_node, claims, node_from_json, node_to_json

if TYPE_CHECKING:
    from medp_clip_jax.records import RegionExample

__all__ = ["KINDS", "Node", "Ontology", "Table", "node_from_json", "node_to_json"]

Table = Mapping[str, str | None]  # a source's label -> the node it means, None where it is left out on purpose


class Ontology(Mapping[str, Node]):
    """An immutable, validated mapping from node id to `Node`, in the order of the ids.

    `aliases` are the label tables of sources, `generated` further sentences of nodes (see `generated_text`). Raises
    InputError naming the node when a parent is unknown, parents form a cycle, two nodes claim one name or identifier,
    a name or parent contradicts the node's side, or a table names an absent node or one of another side.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        aliases: Mapping[str, Table] | None = None,
        generated: Mapping[str, Sequence[str]] | None = None,
    ):
        listed = sorted(nodes, key=lambda node: node.id)
        self._nodes = {node.id: node for node in listed}
        if len(self._nodes) != len(listed):
            twice = next(a.id for a, b in zip(listed, listed[1:], strict=False) if a.id == b.id)
            raise InputError(f"ontology node {twice!r}: defined twice; merge the two definitions")
        for node in listed:
            check_node(node, self._nodes)
        self._ancestors: dict[str, frozenset[str]] = {}
        for node in listed:
            self._collect_ancestors(node.id, ())
        self._claims = claims(listed)
        self._alias_data = {source: dict(table) for source, table in sorted((aliases or {}).items())}
        self._aliases = self._read_aliases()
        self._generated = {node_id: tuple(lines) for node_id, lines in sorted((generated or {}).items()) if lines}
        if unknown := self._generated.keys() - self._nodes.keys():
            raise InputError(f"generated sentences of {min(unknown)!r}: the ontology has no such node; leave them out")

    @classmethod
    def load(cls, path: str | Path) -> Ontology:
        """Reads the file that `save` writes; InputError when it is absent or not such a file."""
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            records, aliases = content["nodes"], content["aliases"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a readable ontology ({error}); give a saved ontology.json") from None
        nodes = [node_from_json(record, f"{path}") for record in records]
        return cls(nodes, aliases, content.get("generated"))

    def save(self, path: str | Path) -> None:
        """Writes JSON, one node per line in the order of the ids, so that two versions can be compared line by line."""
        lines = ",\n".join(json.dumps(node_to_json(node), ensure_ascii=False) for node in self.values())
        aliases = json.dumps(self._alias_data, ensure_ascii=False, indent=1)
        more = f',\n"generated": {json.dumps(self._generated, ensure_ascii=False, indent=1)}' if self._generated else ""
        Path(path).write_text(f'{{"nodes": [\n{lines}\n],\n"aliases": {aliases}{more}}}\n', "utf-8")

    def with_node(self, node: Node) -> Ontology:
        """Returns this ontology plus one node (see `draft`); InputError when it does not fit."""
        return Ontology([*self.values(), node], self._alias_data, self._generated)

    def with_sentences(self, generated: Mapping[str, Sequence[str]]) -> Ontology:
        """Returns this ontology with further sentences of some nodes, in place of those it had; saved with it."""
        return Ontology(self.values(), self._alias_data, generated)

    @property
    def tables(self) -> Mapping[str, Table]:
        """The label tables by source name."""
        return self._alias_data

    @property
    def generated(self) -> dict[str, tuple[str, ...]]:
        """The generated sentences by node id."""
        return dict(self._generated)

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
        table = self._alias_table(label_names.slug(source))
        if label_names.parse(label) in table:
            return table[label_names.parse(label)]
        sides = {label_names.parse(words).side for words in (label, text)} - {""}
        found, second = self._find(label), self._find(text)
        if len(sides) > 1:
            return None
        if sides and second and self[second].laterality not in sides:
            second = None
        if found is None or (second is not None and found in self._ancestors[second]):
            found = second
        return None if found and sides and self[found].laterality not in sides else found

    def with_table(self, *sources: str) -> str:
        """The first of these source names that has a label table, else the first."""
        return next((name for name in sources if self._alias_table(label_names.slug(name))), sources[0])

    def left_out(self, label: str, source: str) -> bool:
        """Whether the source's table says that the label is no structure (`background`), so that it needs no node."""
        return self._alias_table(label_names.slug(source)).get(label_names.parse(label), "") is None

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
        """All sentences for a node in fixed order, the name first: training variants and evaluation ensemble.

        Generated ones, where the ontology has any, take turns with those of the templates.
        """
        return sentences.interleaved(sentences.of_node(self[node_id]), self._generated.get(node_id, ()))

    def caption(
        self,
        example: RegionExample,
        rng: np.random.Generator | None = None,
        style: str = "labels",
        view: Sequence[float] | None = None,
        mirrored: bool = False,
    ) -> str:
        """The example's caption, else a composed sentence; `rng` (or None) varies its wording, never its content.

        `style` is "labels" (modality, body part and labels of the image) or "described" (what the `view`, mirrored or
        not, shows, and where: see `captions.described`).
        """
        if example.caption:
            return example.caption
        if style == "described":
            return captions.described(self, example, rng, view, mirrored)
        return sentences.of_example(self, example, rng)

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

    def _alias_table(self, source: str) -> Mapping[label_names.Phrase, str | None]:
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

    def _read_aliases(self) -> dict[str, dict[label_names.Phrase, str | None]]:
        tables: dict[str, dict[label_names.Phrase, str | None]] = {}
        for source, table in self._alias_data.items():
            read = tables.setdefault(label_names.slug(source), {})
            for name, node_id in table.items():
                where, phrase = f"ontology alias {source}/{name!r}", label_names.parse(name)
                if read.setdefault(phrase, node_id) != node_id:
                    raise InputError(f"{where}: stands for {read[phrase]!r} and {node_id!r}; keep one")
                if node_id is None:
                    continue
                if node_id not in self._nodes or phrase.side not in ("", self[node_id].laterality):
                    raise InputError(f"{where}: no node {node_id!r} of that side; correct it")
        return tables
