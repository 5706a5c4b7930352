"""Published evaluation sets: how each lies on disk, what is asked of it, by which sentences, and what counts.

A set is a file with `get_eval()` (see `configs/evals/` and docs/evals.md). The data stay where they are: a folder that
somebody has downloaded is checked against the layout, built into a corpus beside the results, and evaluated.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from medp_clip_jax import definitions, prompt_kinds, results
from medp_clip_jax.corpus import Corpus, ensure_corpus, stamps
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

SPLITS = ("splits.json", "../splits.json")  # which a build follows, too
FIELDS = ("title", "page", "licence", "files", "build", "split", "kinds", "metrics", "sentences")


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """What a definition says; `name` is that of its file, or the argument that the file is given."""

    name: str
    title: str
    page: str  # where it is described or found
    licence: str
    files: tuple[tuple[str, str], ...]  # pattern below the folder (or several, with "|" between them), what it is
    build: tuple[str, ...]  # arguments of `python -m data.build` besides --input and --output
    split: str
    kinds: tuple[str, ...]  # prompt kinds and reference rows, as in `eval.kinds`
    metrics: tuple[str, ...]  # names in results.json that are reported of this set; the first is the usual one
    sentences: Mapping[str, tuple[str, ...]]  # label -> what it is asked by, in place of the ontology's sentences


def read(path: str) -> EvalSet:
    """Reads `get_eval()` of a file, `FILE` or `FILE:ARGUMENT`; InputError where it is no definition."""
    found = definitions.read(path, "get_eval", FIELDS, "eval").to_dict()
    needed = [field for field in FIELDS if field not in ("sentences",) and not found.get(field)]
    if needed:
        raise InputError(f"{path}: get_eval() leaves out {', '.join(needed)}")
    if unknown := sorted(set(found["kinds"]) - set(prompt_kinds.EVALUATED)):
        raise InputError(f"{path}: kinds: expected some of {', '.join(prompt_kinds.EVALUATED)}, got {unknown[0]!r}")
    found["sentences"] = {label: tuple(texts) for label, texts in found.get("sentences", {}).items()}
    file, _, argument = path.partition(":")
    name = argument or pathlib.Path(file).stem
    return EvalSet(name, **{field: tuple(v) if isinstance(v, list) else v for field, v in found.items()})


def missing(known: EvalSet, folder: pathlib.Path) -> list[str]:
    """What of the layout is not in the folder, a line each."""
    return [
        f"{pattern.replace('|', ' or ')}: {what}"
        for pattern, what in known.files
        if next(_matching(folder, pattern), None) is None
    ]


def _matching(folder: pathlib.Path, pattern: str) -> Iterator[pathlib.Path]:
    """What is below the folder and fits a pattern of the layout, or one of several; hidden files do not count."""
    found = (path for one in pattern.split("|") for path in folder.glob(one))
    return (path for path in found if not path.name.startswith("."))


def build(known: EvalSet, data: str, cache: pathlib.Path) -> Corpus:
    """The set as a corpus, built below `cache` from the folder `data` unless it is there already, of these very files.

    Raises:
      InputError: the folder lacks something of the layout, which the message names; the build fails; or a label that
        the definition has sentences for does not occur in what was built.
    """
    folder = pathlib.Path(data)
    if not folder.is_dir():
        raise InputError(f"--data={data}: not a folder; expected {known.title} (see {known.page})")
    if lines := missing(known, folder):
        listed = "; ".join(lines)
        raise InputError(f"{folder}: not as {known.title} is published ({known.page}); there is no {listed}")
    arguments = [*known.build, f"--input={folder.resolve()}"]
    names = {str(path.relative_to(folder)) for pattern, _ in known.files for path in _matching(folder, pattern)}
    state = [*arguments, *stamps(folder, names | set(SPLITS))]
    digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:8]
    corpus = ensure_corpus(cache / f"{known.name}-{digest}", arguments)
    occurs = {*corpus.label_counts(known.split), *corpus.image_label_counts(known.split)}
    if absent := sorted(known.sentences.keys() - occurs):
        raise InputError(f"{folder}: split {known.split!r} holds nothing of {', '.join(absent)}; is the copy complete?")
    return corpus


class Asked(Ontology):
    """An ontology whose labels are asked by the sentences of an evaluation set, where that has any."""

    def __init__(self, ontology: Ontology, sentences: Mapping[str, tuple[str, ...]]):
        super().__init__(ontology.values(), ontology.tables, ontology.generated)
        self._asked = dict(sentences)

    def sentences(self, node_id: str) -> tuple[str, ...]:
        """See `Ontology.sentences`."""
        return self._asked.get(node_id) or super().sentences(node_id)


def headline(known: EvalSet, metrics: Mapping[str, Any]) -> str:
    """The set's own metrics as text, a line each; those of kinds that were not asked for are left out."""
    lines = [f"{name:<44} {results.percent(metrics[name])}" for name in known.metrics if name in metrics]
    return "\n".join([f"{known.title}, split {known.split}", *lines])
