"""How names are written: the rules under which two spellings are the same label.

Only rewritings that never change the meaning are applied (case, punctuation, word order, plural, British spelling,
sides); there is no similarity score anywhere: a name either is another one's spelling or it is not.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

SIDES = ("left", "right")

_BRITISH = (
    ("tumour", "tumor"),
    ("haem", "hem"),
    ("oedem", "edem"),
    ("oesoph", "esoph"),
    ("foet", "fet"),
    ("grey", "gray"),
    ("colour", "color"),
    ("leuco", "leuko"),
    ("caec", "cec"),
    ("naev", "nev"),
    ("fibre", "fiber"),
    ("ischaem", "ischem"),
    ("anaem", "anem"),
)
_SAME_WORD = {
    "disk": "disc", "nuclei": "nucleus", "metastases": "metastasis", "stenoses": "stenosis", "atria": "atrium",
    "ganglia": "ganglion", "thalami": "thalamus", "hippocampi": "hippocampus", "bronchi": "bronchus", "septa": "septum",
    "nevi": "nevus", "femora": "femur", "humeri": "humerus", "teeth": "tooth", "feet": "foot", "foci": "focus",
    "calculi": "calculus", "thrombi": "thrombus", "emboli": "embolus", "prostheses": "prosthesis", "mitoses": "mitosis",
    "glomeruli": "glomerulus", "polypi": "polyp",
    "lenses": "len", "first": "1", "second": "2", "third": "3", "fourth": "4", "fifth": "5", "sixth": "6",
    "seventh": "7", "eighth": "8", "ninth": "9", "tenth": "10", "eleventh": "11", "twelfth": "12",
}  # fmt: skip
_NEGATIONS = frozenset("free healthy no non normal not without".split())
_IGNORED = frozenset("a an and at both bilateral from in of on s side sided the".split())


class Phrase(NamedTuple):
    """A name without its spelling: `side` is "left", "right", "" or "both sides named" and `words` are sorted."""

    side: str
    words: tuple[str, ...]


def slug(text: str) -> str:
    """Turns any text into an id of lower-case ASCII letters, digits and underscores; empty if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "_".join(re.findall(r"[a-z0-9]+", plain.lower()))


def singular(word: str) -> str:
    """Strips a plural ending. The result need not be English (`pancrea`), it need only be the same for both forms."""
    if len(word) <= 3:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("ae"):
        return word[:-1]
    if word.endswith(("sses", "xes", "ches", "shes", "uses")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _word(word: str) -> str:
    for british, american in _BRITISH:
        word = word.replace(british, american)
    word = _SAME_WORD.get(word, word)
    word = re.sub(r"^(\d+)(st|nd|rd|th)$", r"\1", word)
    word = re.sub(r"^th(?=\d+$)", "t", word)  # Th12 is how much of Europe writes T12
    word = re.sub(r"^([a-z]*)0+(?=\d)", r"\1", word)
    return _SAME_WORD.get(singular(word), singular(word))


def words_of(name: str) -> list[str]:
    """The words of a name in their order, each in its normal form (lower case, singular, American), side words kept."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKD", name))
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold().replace("+", " positive ")
    return [_word(word) for word in re.findall(r"[^\W_]+", text)]


def _phrase(words: Iterable[str]) -> Phrase:
    words = tuple(words)
    sides = {word for word in words if word in SIDES}
    side = "".join(sides) if len(sides) < 2 else "both sides named"
    return Phrase(side, tuple(sorted(word for word in words if word not in SIDES and word not in _IGNORED)))


@functools.lru_cache(maxsize=65536)
def parse(name: str) -> Phrase:
    """Reduces a name to its side and its sorted words: `Left kidney` and `kidneys_left` are one phrase."""
    return _phrase(words_of(name))


@functools.lru_cache(maxsize=65536)
def other_readings(name: str) -> tuple[Phrase, ...]:
    """Readings to try when the plain one is unknown: `L kidney`, `rt_lung`, `leftkidney`, `liver_mask`.

    They are guesses, safe only because the caller accepts one only where it is exactly the name of a node of that side.
    """
    words = words_of(name)
    readings = [words]
    letters = {"l": "left", "lt": "left", "r": "right", "rt": "right"}
    if not any(word in SIDES for word in words):
        readings.append([letters.get(word, word) for word in words])
        for side in SIDES:
            readings.append([part for w in words for part in ((side, w[len(side) :]) if w.startswith(side) else (w,))])
    suffixes = ("mask", "seg", "segmentation", "roi", "label")
    readings += [reading[:-1] for reading in readings if len(reading) > 1 and reading[-1] in suffixes]
    return tuple(dict.fromkeys(_phrase(reading) for reading in readings[1:]))


def parenthesis(name: str) -> tuple[str, str]:
    """Splits `name (other name)` into its two parts; the second is empty where there is none."""
    match = re.fullmatch(r"([^()]+)\(([^()]+)\)\s*", name)
    return (match[1], match[2]) if match else (name, "")


def tails(name: str) -> list[Phrase]:
    """The name without its sides, then its ever shorter ends, since English puts what a thing is at the end.

    What follows a preposition is cut off (`fracture of the wrist` is a fracture); a negated name has no tails.
    """
    words = [word for word in words_of(name) if word not in SIDES]
    if _NEGATIONS.intersection(words):
        return []
    cut = next(
        (i for i, word in enumerate(words) if word in ("around", "at", "from", "in", "near", "of", "on", "to", "with")),
        None,
    )
    return [_phrase(words), *(_phrase(words[i:cut]) for i in range(len(words[:cut])))]
