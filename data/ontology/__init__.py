"""The shipped ontology as data: one JSON object per node and line in `*.jsonl`, one file per field of medicine.

`sources/*.json` holds a table per source: its labels in its own order, each with the node it means there, or null where
it is left out on purpose (`background`). A table may also hold names that mean something only there (`malignant` in a
breast data set).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medp_clip_jax.errors import InputError
from medp_clip_jax.label_names import slug
from medp_clip_jax.ontology import Ontology, node_from_json

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class SourceTable:
    """What the labels of one source mean: `labels` in its order -> node id, None where left out.

    `sources` are the beginnings of the names of data sets that it holds for, `documentation` is where the list stands,
    `numbers` maps the values of its label maps to labels, where it has such.
    """

    sources: tuple[str, ...]
    title: str
    documentation: str
    labels: Mapping[str, str | None]
    numbers: Mapping[int, str]


def load(directory: str | Path = HERE) -> Ontology:
    """Reads and validates the node files and tables of a directory; InputError naming the file and line at fault."""
    directory = Path(directory)
    nodes = []
    for path in sorted(directory.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.strip():
                nodes.append(node_from_json(_parse(line, f"{path}:{number}"), f"{path}:{number}"))
    if not nodes:
        raise InputError(f"{directory}: holds no node files (*.jsonl); give a directory with an ontology")
    return Ontology(nodes, {name: table.labels for name, table in tables(directory).items()})


def tables(directory: str | Path = HERE) -> Mapping[str, SourceTable]:
    """The table of each source name in `directory/sources`; InputError naming the file for what is wrong in one."""
    found: dict[str, SourceTable] = {}
    for path in sorted(Path(directory).glob("sources/*.json")):
        table = read_table(path)
        for name in table.sources:
            if found.setdefault(slug(name), table) is not table:
                raise InputError(f"{path}: {name!r} has a table in another file, too; keep one")
    return found


def read_table(path: Path) -> SourceTable:
    """Reads one table; InputError naming the file where a label stands twice, or a field is absent or of no use."""
    record = _parse(path.read_text("utf-8"), str(path))
    if not isinstance(record, dict):
        raise InputError(f"{path}: expected a JSON object, got {str(record)[:60]}")
    fields = {"sources": list, "title": str, "documentation": str, "labels": dict}
    optional = {"others": dict, "first_number": int, "notes": str}
    for key, kind in (fields | optional).items():
        if key in record and not isinstance(record[key], kind) or key in fields and key not in record:
            raise InputError(f"{path}: {key}: expected a {kind.__name__}, got {str(record.get(key))[:60]}")
    if unknown := record.keys() - fields.keys() - optional.keys():
        raise InputError(f"{path}: unknown field {min(unknown)!r}: expected {', '.join(fields | optional)}")
    labels, others = record["labels"], record.get("others", {})
    if both := labels.keys() & others.keys():
        raise InputError(f"{path}: label {min(both)!r} stands in labels and in others; keep one")
    for label, node in {**labels, **others}.items():
        if not label.strip() or not isinstance(node, str | None):
            raise InputError(f"{path}: label {label!r}: expected the id of a node or null, got {node!r}")
    first = record.get("first_number")
    numbers = {} if first is None else {first + i: label for i, label in enumerate(labels)}
    sources = tuple(record["sources"])
    return SourceTable(sources, record["title"], record["documentation"], {**labels, **others}, numbers)


def _parse(text: str, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{where}: {twice!r} stands twice; keep one")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error}); correct the line") from None
