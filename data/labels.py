"""Which labels the ontology does not know: `python -m data.labels INPUT [--source=NAME]`.

INPUT is a corpus, a folder of the region schema (or a folder of such folders), or a text file with one label a line.
Each label that is not found is printed with how often it occurs and the nodes that are spelled most alike. These are
suggestions to look at: nothing is ever mapped by similarity. To settle one, add a node or a synonym to
data/ontology/*.jsonl, or the label to the table of its source in data/ontology/sources.
"""

import collections
import dataclasses
import difflib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from data import ontology as shipped_ontology
from medp_clip_jax import label_names
from medp_clip_jax.corpus import MANIFEST, Corpus, open_corpus
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.ontology import Ontology

LEAST_ALIKE = 0.7  # of a suggestion, in [0, 1]


@dataclasses.dataclass(frozen=True)
class Unmapped:
    """A label without a node: the source that has it, how many regions and images carry it, nodes spelled alike."""

    source: str
    label: str
    text: str
    count: int
    candidates: tuple[tuple[str, float], ...]  # (node id, likeness in [0, 1]), best first


def candidates(ontology: Ontology, label: str, text: str = "", most: int = 3) -> tuple[tuple[str, float], ...]:
    """The nodes spelled most like a label or its phrase, with their likeness, best first; never of another side.

    Likeness is the larger one of the share of common words and of common letters in order (difflib's ratio).
    """
    wanted = [label_names.parse(words) for words in (label, text) if words.strip()]
    found: dict[str, float] = {}
    for node in ontology.values():
        for name in (node.name, *node.synonyms):
            phrase = label_names.parse(name)
            for want in wanted:
                if want.side == phrase.side or not want.side:
                    found[node.id] = max(found.get(node.id, 0.0), _likeness(want.words, phrase.words))
    order = sorted(found.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
    return tuple((node_id, round(score, 2)) for node_id, score in order[:most] if score >= LEAST_ALIKE)


def _likeness(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    common = len(set(a) & set(b)) / max(1, len(set(a) | set(b)))
    matcher = difflib.SequenceMatcher(None, " ".join(a), " ".join(b), autojunk=False)
    if matcher.real_quick_ratio() <= max(common, LEAST_ALIKE) or matcher.quick_ratio() <= max(common, LEAST_ALIKE):
        return common
    return max(common, matcher.ratio())


def of_corpus(corpus: Corpus, shipped: Ontology) -> list[Unmapped]:
    """Labels of a corpus that `shipped` lacks: the build made them nodes of their own. Most frequent first."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for source, entry in corpus.manifest["sources"].items():
        for split in entry["splits"].values():
            for field in ("labels", "image_labels"):
                counts.update({(source, label): n for label, n in split[field].items() if label not in shipped})
    names = {label: corpus.ontology[label].name if label in corpus.ontology else "" for _, label in counts}
    return _listed({(source, label, names[label]): n for (source, label), n in counts.items()}, shipped)


def of_labels(found: Iterable[tuple[str, str, str]], shipped: Ontology) -> list[Unmapped]:
    """Those of (source, label, text) that `shipped` neither resolves nor leaves out by a table; frequent ones first."""
    counts = collections.Counter(found)
    return _listed(
        {
            (source, label, text): count
            for (source, label, text), count in counts.items()
            if shipped.resolve(label, text, source) is None and not shipped.left_out(label, source)
        },
        shipped,
    )


def _listed(counts: Mapping[tuple[str, str, str], int], shipped: Ontology) -> list[Unmapped]:
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Unmapped(*key, count, candidates(shipped, key[1], key[2])) for key, count in order]


def of_path(path: pathlib.Path, source: str, shipped: Ontology) -> list[Unmapped]:
    """The unmapped labels of a corpus, of folders of the region schema, or of a text file with one label a line.

    `source` picks the table (of folders: their own names, where it is empty). InputError where `path` is neither.
    """
    if (path / MANIFEST).is_file():
        return of_corpus(open_corpus(path), shipped)
    if path.is_file():
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error}): give a UTF-8 file with one label a line") from error
        return of_labels(((source, line.strip(), "") for line in lines if line.strip()), shipped)
    tables = sorted({*path.glob("*.jsonl"), *path.glob("*/*.jsonl")})
    if not any(table.name == "images.jsonl" for table in tables):
        raise InputError(
            f"{path}: expected a corpus, a folder with images.jsonl (or folders of these), or a text file of labels"
        )
    return of_labels((row for table in tables for row in _rows(table, source)), shipped)


def _rows(table: pathlib.Path, source: str) -> Iterable[tuple[str, str, str]]:
    for line in table.read_text("utf-8", errors="replace").splitlines():
        try:
            row: Any = json.loads(line)
        except ValueError:
            continue  # the build reports damaged lines
        if not isinstance(row, dict):
            continue
        name = source or str(row.get("dataset") or table.parent.resolve().name)
        if table.name == "annotations.jsonl":
            yield from ((name, *pair) for pair in [(_text(row, "label"), _text(row, "label_text"))] if any(pair))
        elif table.name == "images.jsonl":
            stated = row.get("image_labels") or []
            for label in stated if isinstance(stated, list) else [stated]:
                if isinstance(label, str) and label.strip():
                    yield name, label.strip(), ""


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value.strip() if isinstance(value, str) else ""


def as_text(unmapped: Sequence[Unmapped]) -> str:
    """The report for the screen: one line per label, its suggestions behind it."""
    if not unmapped:
        return "every label is a node of the ontology, or left out by a table"
    lines = [
        f"{len(unmapped)} labels are not in the ontology; suggestions are spelled alike, and may mean other things"
    ]
    for item in unmapped:
        told = ", ".join(f"{node_id} ({score:.2f})" for node_id, score in item.candidates) or "nothing spelled alike"
        text = f" ({item.text})" if item.text and item.text != item.label else ""
        lines.append(f"{item.count:8,}  {item.source or '-'}: {item.label}{text}  ?  {told}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Prints the report about the path given, as text or JSON lines."""
    if len(argv) != 2:
        raise InputError("expected one path: python -m data.labels CORPUS_OR_FOLDER_OR_FILE [--source=NAME]")
    path = pathlib.Path(argv[1])
    if not path.exists():
        raise InputError(f"{path}: no such file or directory: give a corpus, a folder or a text file of labels")
    found = of_path(path, flags.FLAGS.source, shipped_ontology.load())
    if flags.FLAGS.json:
        for item in found:
            print(json.dumps(dataclasses.asdict(item), ensure_ascii=False))
    else:
        print(as_text(found))


if __name__ == "__main__":
    flags.DEFINE_string("source", "", "Name of the data set, which picks its table; of folders: their own by default.")
    flags.DEFINE_bool("json", False, "Print one JSON object per label instead of text.")
    run_cli(main)
