"""Further sentences about labels from any text generator, kept with their origin; nothing generated is used unless
`config.input.generated_text` names the file.

    python -m medp_clip_jax.generated_text --generator=MODULE:FUNCTION --output=FILE.jsonl [--ontology=ontology.json]

A generator is a callable from a list of `Request` to a list of as many sentences. Each answer is a line of the file
with the request, the generator's name and version, the date and the hash of what it was asked, so that a second call
asks only for what is new. Answers that do not name their label, or name the other side, stay in the file, marked, and
are not used.
"""

import dataclasses
import datetime
import hashlib
import importlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags

from medp_clip_jax import label_names, sentences
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.ontology import Node, Ontology

LONGEST = 200  # characters of a sentence
BATCH = 256  # requests per call of a generator


@dataclasses.dataclass(frozen=True)
class Request:
    """What a generator is told about one sentence: the label as the ontology knows it, the modality to speak of ("" for
    none), and the number of the variant, from 0."""

    node: str
    name: str
    synonyms: tuple[str, ...]
    definition: str
    kind: str
    laterality: str
    body_part: str
    is_a: tuple[str, ...]  # names of the direct parents
    modality: str
    variant: int

    def digest(self, generator: str, version: str) -> str:
        """Hash of all that decides the answer."""
        content = json.dumps([generator, version, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


Generator = Callable[[Sequence[Request]], Sequence[str]]


def requests(ontology: Ontology, ids: Iterable[str], variants: int = 1) -> list[Request]:
    """One request per label, modality that it is usual in (or none), and variant."""
    found = []
    for node_id in ids:
        node = ontology[node_id]
        parents = tuple(ontology[parent].name for parent in node.parents)
        for modality in node.modalities or ("",):
            for variant in range(variants):
                facts = (node.name, node.synonyms, node.definition, node.kind, node.laterality, node.body_part)
                found.append(Request(node_id, *facts, parents, modality, variant))
    return found


def modality_sentences(asked: Sequence[Request]) -> list[str]:
    """The generator that needs no model: templates by modality and kind, with the side spelled out as the patient's."""
    lines = []
    for request in asked:
        scan = sentences.scan(request.modality)
        names = (request.name, *(name for name in request.synonyms if len(name) > 3))
        name = names[request.variant % len(names)]
        side = f", on the {request.laterality} side of the patient" if request.laterality else ""
        form = {
            "finding": f"{name} seen on {scan}{side}",
            "device": f"{scan} with a {name} in place{side}",
            "cell": f"a {name} in {scan}",
            "tissue": f"{name} in {scan}",
            "image": f"{scan}: {name}",
        }
        lines.append(form.get(request.kind, f"the {name} on {scan}{side}"))
    return lines


def problem(sentence: Any, node: Node) -> str:
    """Why a sentence cannot stand for a node, "" where it can."""
    if not isinstance(sentence, str) or not sentence.strip():
        return "empty"
    if "\n" in sentence or len(sentence) > LONGEST:
        return f"longer than one line of {LONGEST} characters"
    words = label_names.words_of(sentence)
    others = set(label_names.SIDES) - {node.laterality}
    own = {word for name in (node.name, *node.synonyms) for word in label_names.words_of(name)}
    if others & set(words) - own:
        return "names another side than the label"
    spoken = " " + " ".join(words) + " "
    if not any(f" {' '.join(label_names.words_of(name))} " in spoken for name in (node.name, *node.synonyms)):
        return "does not name the label"
    return ""


def extend(path: pathlib.Path, ontology: Ontology, asked: Sequence[Request], generator: Generator, origin: str) -> int:
    """Asks for what the file at `path` lacks, appends the answers, and returns how many were new.

    `origin` is "name" or "name@version" of the generator. InputError where the file is damaged, or the generator fails
    or returns another number of answers.
    """
    name, _, version = origin.partition("@")
    known = {entry["request_hash"] for entry in _entries(path)} if path.is_file() else set()
    new = [request for request in asked if request.digest(name, version) not in known]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    path.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        try:
            answers = list(generator(batch))
        except Exception as error:  # any callable may stand here, so anything may go wrong in it
            raise InputError(f"generator {origin}: failed ({error!r}); {start} answers are in {path}") from error
        if len(answers) != len(batch):
            raise InputError(f"generator {origin}: expected {len(batch)} sentences, got {len(answers)}")
        with path.open("a", encoding="utf-8") as file:
            for request, answer in zip(batch, answers, strict=True):
                text = re.sub(r"\s+", " ", answer).strip().rstrip(".") if isinstance(answer, str) else answer
                entry = {
                    "node": request.node,
                    "sentence": text,
                    "generator": name,
                    "version": version,
                    "date": date,
                    "request_hash": request.digest(name, version),
                    "request": dataclasses.asdict(request),
                    "rejected": problem(text, ontology[request.node]),
                }
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return len(new)


def read(path: str | pathlib.Path, ontology: Ontology) -> dict[str, tuple[str, ...]]:
    """The usable sentences of a file by node, in its order; labels that the ontology lacks are passed over.

    Each is checked again, as the ontology may have changed. InputError where the file is absent or damaged.
    """
    found: dict[str, dict[str, None]] = {}
    for entry in _entries(pathlib.Path(path)):
        node = ontology.get(entry["node"])
        if node is not None and not entry.get("rejected") and not problem(entry["sentence"], node):
            found.setdefault(node.id, {})[entry["sentence"]] = None
    return {node_id: tuple(lines) for node_id, lines in found.items()}


def _entries(path: pathlib.Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): name a file of generated sentences") from error
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            _ = entry["node"], entry["sentence"], entry["generator"], entry["request_hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}:{number}: not a generated sentence ({error!r}): remove the line, or the file"
            ) from error
        entries.append(entry)
    return entries


def find(name: str) -> Generator:
    """The callable that "module:function" names; InputError where there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--generator={name}: expected module:function, got {error}") from error
    if not callable(found):
        raise InputError(f"--generator={name}: is no function")
    return found


def main(argv: Sequence[str]) -> None:
    """Fills the output file for the labels given, or all of the ontology."""
    values = flags.FLAGS
    if len(argv) > 1 or not values.output or not values.ontology:
        raise InputError("expected --ontology=ontology.json (of a corpus or run) and --output=FILE.jsonl")
    ontology, path = Ontology.load(values.ontology), pathlib.Path(values.output)
    if unknown := sorted(set(values.labels) - ontology.keys()):
        raise InputError(f"--labels: {unknown[0]!r} is no node of {values.ontology}")
    asked = requests(ontology, values.labels or ontology, values.variants)
    origin = values.generator.split("@")[0] + f"@{values.generator_version}"
    new = extend(path, ontology, asked, find(values.generator), origin)
    entries = _entries(path)
    rejected = sum(bool(entry.get("rejected")) for entry in entries)
    print(f"{path}: {new:,} new of {len(entries):,} sentences, {rejected:,} not usable")


if __name__ == "__main__":
    builtin = "medp_clip_jax.generated_text:modality_sentences"
    flags.DEFINE_string("generator", builtin, "module:function from a list of requests to a list of sentences.")
    flags.DEFINE_string("generator_version", "1", "Its version, part of what is stored; another one asks anew.")
    flags.DEFINE_string("ontology", None, "The ontology.json of a corpus or a run.")
    flags.DEFINE_string("output", None, "File of JSON lines to write or extend; config.input.generated_text names it.")
    flags.DEFINE_list("labels", [], "Node ids; all of the ontology if not given.")
    flags.DEFINE_integer("variants", 1, "Sentences per label and modality.", lower_bound=1)
    run_cli(main)
