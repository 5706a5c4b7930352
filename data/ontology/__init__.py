"""The shipped ontology as data: one JSON object per node and line in `*.jsonl`, one file per field of medicine.

`aliases.json` holds, per data set, the names that mean something only there (`malignant` in a breast data set).
"""

import json
from pathlib import Path

from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology, node_from_json


def load(directory: str | Path = Path(__file__).parent) -> Ontology:
    """Reads and validates the node files and aliases of a directory; InputError naming the file and line at fault."""
    directory = Path(directory)
    nodes = []
    for path in sorted(directory.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.strip():
                nodes.append(node_from_json(_parse(line, f"{path}:{number}"), f"{path}:{number}"))
    if not nodes:
        raise InputError(f"{directory}: holds no node files (*.jsonl); give a directory with an ontology")
    aliases = directory / "aliases.json"
    return Ontology(nodes, _parse(aliases.read_text("utf-8"), str(aliases)) if aliases.exists() else {})


def _parse(text: str, where: str) -> dict:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error}); correct the line") from None
