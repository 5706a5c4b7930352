"""Published evaluation sets: how each lies on disk, what is asked of it, by which sentences, and what counts.

A set is a file with `get_eval()` (see `configs/evals/` and docs/evals.md). The data stay where they are: a folder that
somebody has downloaded is checked against the layout, built into a corpus beside the results, and evaluated.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medp_clip_jax import definitions, prompt_kinds, results
from medp_clip_jax.corpus import Corpus, ensure_corpus, stamps
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

SPLITS = ("splits.json", "../splits.json")  # which a build follows, too
OPTIONAL = ("images", "sentences", "templates")
FIELDS = ("title", "page", "licence", "files", "build", "split", "kinds", "metrics", *OPTIONAL)


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """What a definition says; `name` is that of its file, or the argument that the file is given."""

    name: str
    title: str
    page: str  # where it is described or found
    licence: str
    files: tuple[tuple[str, str, int], ...]  # pattern below the folder (or several, with "|"), what it is, how many
    build: tuple[str, ...]  # arguments of `python -m data.build` besides --input and --output
    split: str
    kinds: tuple[str, ...]  # prompt kinds and reference rows, as in `eval.kinds`
    metrics: tuple[str, ...]  # names in results.json that are reported of this set; the first is the usual one
    images: int = 0  # that the split holds as it is published; 0 where no source says it
    sentences: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # label -> what it is asked by
    templates: tuple[str, ...] = ()  # sentences of the labels without, with {name} for what the ontology calls them
    partial: bool = False  # whether fewer files and images than were published are accepted, and named so


def read(path: str, partial: bool = False) -> EvalSet:
    """Reads `get_eval()` of a file, `FILE` or `FILE:ARGUMENT`; InputError where it is no definition.

    With `partial` a part of the set will do, which name and title then say, and with them all results.
    """
    found = definitions.read(path, "get_eval", FIELDS, "eval").to_dict()
    needed = [field for field in FIELDS if field not in OPTIONAL and not found.get(field)]
    if needed:
        raise InputError(f"{path}: get_eval() leaves out {', '.join(needed)}")
    if unknown := sorted(set(found["kinds"]) - set(prompt_kinds.EVALUATED)):
        raise InputError(f"{path}: kinds: expected some of {', '.join(prompt_kinds.EVALUATED)}, got {unknown[0]!r}")
    found["files"] = [_layout(path, entry) for entry in found["files"]]
    if bare := [template for template in found.get("templates", ()) if "{name}" not in template]:
        raise InputError(f"{path}: templates: expected {{name}} in each, got {bare[0]!r}")
    found["sentences"] = {label: tuple(texts) for label, texts in found.get("sentences", {}).items()}
    file, _, argument = path.partition(":")
    name = argument or pathlib.Path(file).stem
    known = EvalSet(name, **{field: tuple(v) if isinstance(v, list) else v for field, v in found.items()})
    if partial:
        return dataclasses.replace(known, name=f"{name}-partial", title=f"{known.title} (partial)", partial=True)
    return known


def _layout(path: str, entry: Any) -> tuple[str, str, int]:
    """An entry of `files` with its count, which is 1 where it has none."""
    pattern, what, count = (*entry, 1)[:3] if isinstance(entry, (tuple, list)) and len(entry) in (2, 3) else ("", "", 0)
    if not (isinstance(pattern, str) and isinstance(what, str) and isinstance(count, int) and pattern and count > 0):
        raise InputError(
            f"{path}: files: expected (pattern, what it is) or (pattern, what it is, count), got {entry!r}"
        )
    return pattern, what, count


def missing(known: EvalSet, folder: pathlib.Path) -> list[str]:
    """What of the layout is not in the folder, a line each."""
    return [
        f"{pattern.replace('|', ' or ')}: {what}"
        for pattern, what, _ in known.files
        if next(_matching(folder, pattern), None) is None
    ]


def _matching(folder: pathlib.Path, pattern: str) -> Iterator[pathlib.Path]:
    """What is below the folder and fits a pattern of the layout, or one of several; hidden files do not count."""
    found = (path for one in pattern.split("|") for path in folder.glob(one))
    return (path for path in found if not path.name.startswith("."))


def build(known: EvalSet, data: str, cache: pathlib.Path) -> Corpus:
    """The set as a corpus, built below `cache` from the folder `data` unless it is there already, of these very files.

    Raises:
      InputError: the folder lacks something of the layout, which the message names; it holds fewer files, the split
        fewer images, or nothing of a label that is asked, and the set is not `partial`; or the build fails.
    """
    folder = pathlib.Path(data)
    if not folder.is_dir():
        raise InputError(f"--data={data}: not a folder; expected {known.title} (see {known.page})")
    if lines := missing(known, folder):
        listed = "; ".join(lines)
        raise InputError(f"{folder}: not as {known.title} is published ({known.page}); there is no {listed}")
    names = [{str(path.relative_to(folder)) for path in _matching(folder, pattern)} for pattern, _, _ in known.files]
    counted = zip(names, known.files, strict=True)
    _check_whole(
        known, folder, [f"{len(some)} of {count} {what}" for some, (_, what, count) in counted if len(some) < count]
    )
    arguments = [*known.build, f"--input={folder.resolve()}"]
    state = [*arguments, *stamps(folder, set(SPLITS).union(*names))]
    digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:8]
    corpus = ensure_corpus(cache / f"{known.name}-{digest}", arguments)
    images = sum(corpus.count(source, known.split) for source in corpus.sources)
    occurs = {*corpus.label_counts(known.split), *corpus.image_label_counts(known.split)}
    fewer = [f"{images} of {known.images} usable images of split {known.split!r}"] if images < known.images else []
    _check_whole(known, folder, [*fewer, *(f"nothing of {label}" for label in sorted(known.sentences.keys() - occurs))])
    return corpus


def _check_whole(known: EvalSet, folder: pathlib.Path, fewer: Sequence[str]) -> None:
    """Says what the copy holds less of than was published; InputError unless a part is meant."""
    if fewer and not known.partial:
        raise InputError(
            f"{folder}: holds {'; '.join(fewer)}: complete the copy of {known.title} ({known.page}), or evaluate the "
            "part that is there by --partial, which the results are then called"
        )
    if fewer:
        print(f"{known.title}: {'; '.join(fewer)}")


class Asked(Ontology):
    """An ontology whose labels are asked as an evaluation set asks them: by its sentences, else by its templates."""

    def __init__(self, ontology: Ontology, known: EvalSet):
        super().__init__(ontology.values(), ontology.tables, ontology.generated)
        self._known = known

    def sentences(self, node_id: str) -> tuple[str, ...]:
        """See `Ontology.sentences`, whose sentences are those of labels that the set says nothing of."""
        templated = tuple(text.replace("{name}", self[node_id].name) for text in self._known.templates)
        return self._known.sentences.get(node_id) or templated or super().sentences(node_id)


def headline(known: EvalSet, metrics: Mapping[str, Any]) -> str:
    """The set's own metrics as text, a line each; those of kinds that were not asked for are left out."""
    lines = [f"{name:<44} {results.percent(metrics[name])}" for name in known.metrics if name in metrics]
    return "\n".join([f"{known.title}, split {known.split}", *lines])
