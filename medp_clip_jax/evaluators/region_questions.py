"""What a region can be asked besides its name: on which side of the body it lies, and in which organ a finding lies.

Both answers follow from the label, so that no annotation is needed: the side is that of its node; the host is the organ
that a finding's names, or those of what it is a kind of, speak of (a `liver tumor` lies in the liver, a `glioma` is a
`brain tumor`). Findings that occur in many organs have no host.
"""

from collections.abc import Sequence

import numpy as np

from medp_clip_jax import label_names
from medp_clip_jax.ontology import Ontology

NOWHERE = ("", "whole body")  # body parts of what is no single organ, such as bone


def questions(labels: Sequence[str], ontology: Ontology) -> dict[str, tuple[list[str], np.ndarray]]:
    """What regions of these `labels` can be asked: sentences, and which of them is true of each region, int [regions],
    -1 where none is known. `side` and `host`, each only where it has two answers at least."""
    side = {label: ontology[label].laterality for label in set(labels)}
    hosts = {label: host(label, ontology) for label in side if ontology[label].kind == "finding"}
    told = {
        "side": {label: f"a structure on the {word} side of the body" for label, word in side.items() if word},
        "host": {label: f"a finding in the {ontology[organ].name}" for label, organ in hosts.items() if organ},
    }
    found = {}
    for name, sentence in told.items():
        lines = sorted(set(sentence.values()))
        if len(lines) > 1:
            true = [lines.index(sentence[label]) if label in sentence else -1 for label in labels]
            found[name] = (lines, np.array(true, np.int64))
    return found


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
