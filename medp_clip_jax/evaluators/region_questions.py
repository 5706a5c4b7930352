"""What a region can be asked besides its name: on which side of the body it lies, and in which organ a finding lies.

Both answers follow from the label, so that no annotation is needed. The side is asked by the structure's own name with
either side (`left kidney`, `right kidney`), which is how sides are told in training; chambers of the heart, which are
no pair, are asked so, too. The host is the organ that a finding's names, or those of what it is a kind of, speak of
(a `liver tumor` lies in the liver, a `glioma` is a `brain tumor`). Findings that occur in many organs have no host.
"""

from collections.abc import Sequence

from medp_clip_jax import label_names
from medp_clip_jax.evaluators.context_retention import RegionQuestion
from medp_clip_jax.ontology import Ontology

NOWHERE = ("", "whole body")  # body parts of what is no single organ, such as bone


def questions(labels: Sequence[str], ontology: Ontology) -> dict[str, RegionQuestion]:
    """What regions of these `labels` can be asked: `side`, of structures with a label of either side among them, and
    `host`, where findings have two hosts at least."""
    structure = {
        label: label_names.parse(ontology[label].name).words for label in set(labels) if ontology[label].laterality
    }
    sides: dict[tuple[str, ...], set[str]] = {}
    for label, words in structure.items():
        sides.setdefault(words, set()).add(ontology[label].laterality)
    paired = {label: words for label, words in structure.items() if len(sides[words]) > 1}
    hosts = {label: host(label, ontology) for label in set(labels) if ontology[label].kind == "finding"}
    told = {
        "side": {label: (ontology.sentences(label)[0], " ".join(words)) for label, words in paired.items()},
        "host": {label: (f"a finding in the {ontology[organ].name}", "") for label, organ in hosts.items() if organ},
    }
    found = {name: RegionQuestion.of([sentence.get(label) for label in labels]) for name, sentence in told.items()}
    return {name: question for name, question in found.items() if len(question.lines) > 1}


def host(label: str, ontology: Ontology) -> str | None:
    """The organ that a finding lies in, without its side: what its name speaks of, else one of its synonyms, else that
    of what it is a kind of, where that is one."""
    node = ontology[label]
    spoken = [organ for name in (node.name, *node.synonyms) if (organ := _organ(name, ontology))]
    above = {organ for parent in node.parents if (organ := host(parent, ontology))}
    return spoken[0] if spoken else above.pop() if len(above) == 1 else None


def _organ(name: str, ontology: Ontology) -> str | None:
    """The organ that the most words of a name, side by side, are the name of; the first of equals."""
    words = [word for word in label_names.words_of(name) if word not in label_names.SIDES]
    for size in range(len(words), 0, -1):
        for start in range(len(words) - size + 1):
            found = ontology.resolve(" ".join(words[start : start + size]))
            if found and ontology[found].kind == "anatomy" and ontology[found].body_part not in NOWHERE:
                return found
    return None
