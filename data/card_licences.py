"""What a licence text permits, as far as its family says; the text of the source always stands beside it."""

import dataclasses
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Licence:
    """A family of licences: may the data be passed on, used commercially, and under which duties."""

    name: str
    share: str
    commercial: str
    duties: str


UNKNOWN = Licence("unknown", "ask the source", "ask the source", "not stated in a form known here")
# The first pattern that matches counts: the stricter ones of a family come first.
FAMILIES = (
    (r"cc[ -]?by[ -]nc[ -]nd", Licence("CC BY-NC-ND", "unchanged only", "no", "name the source; no adapted copies")),
    (r"cc[ -]?by[ -]nc[ -]sa", Licence("CC BY-NC-SA", "yes", "no", "name the source; same licence for adapted copies")),
    (r"cc[ -]?by[ -]nc", Licence("CC BY-NC", "yes", "no", "name the source")),
    (r"cc[ -]?by[ -]sa", Licence("CC BY-SA", "yes", "yes", "name the source; same licence for adapted copies")),
    (r"cc[ -]?by[ -]nd", Licence("CC BY-ND", "unchanged only", "yes", "name the source; no adapted copies")),
    (r"\bcc[ -]?by\b", Licence("CC BY", "yes", "yes", "name the source")),
    (r"\bcc0\b|public domain", Licence("CC0", "yes", "yes", "none")),
    (r"\bagpl|\bgpl|\blgpl", Licence("GPL", "yes", "yes", "same licence for adapted copies; keep notices")),
    (r"apache", Licence("Apache-2.0", "yes", "yes", "keep notices")),
    (r"\bmit\b", Licence("MIT", "yes", "yes", "keep the notice")),
    (r"\bbsd", Licence("BSD", "yes", "yes", "keep the notice")),
)
_DOUBT = re.compile(r"from memory|verify|check|not stated|none in mirror|not in this mirror|unknown", re.IGNORECASE)


def family(text: str) -> Licence:
    """The family that a licence text names, `UNKNOWN` where it names none of those known here."""
    low = text.lower().replace("_", "-")
    return next((licence for pattern, licence in FAMILIES if re.search(pattern, low)), UNKNOWN)


def text_of(provenance: Mapping[str, str]) -> str:
    """The licence as the source states it, "" where it does not."""
    return next((provenance[key] for key in ("licence", "license", "licence_stated") if provenance.get(key)), "")


def doubts(provenance: Mapping[str, str]) -> str:
    """The words with which the source says that its licence is not certain, "" where it has none."""
    basis = provenance.get("basis") or provenance.get("licence_basis") or ""
    stated = text_of(provenance)
    words = [text for text in (basis, stated, provenance.get("redistribution", "")) if _DOUBT.search(text)]
    return "; ".join(dict.fromkeys(words)) or ("" if stated else "no licence stated")


# What a source's own words say about who annotated, where it has no key for it. First match counts.
_ANNOTATORS = (
    (r"manual[/ ]+semi-?automatic|semi-?automatic", "mixed"),
    (r"masks are model output|model'?s? (output|predictions?)|pseudo-?labels?", "model"),
    (r"manual masks|manually|(drawn|annotated|assigned) by|first observer", "human"),
)
KINDS = ("human", "model", "mixed", "unknown")


def annotation(provenance: Mapping[str, str]) -> tuple[str, bool]:
    """Who annotated (human, model, mixed or unknown), and whether the source says so itself in its `annotation`.

    Where it does not, words of its description decide, and else it is unknown.
    """
    stated = str(provenance.get("annotation", "")).strip().lower()
    if stated in KINDS and stated != "unknown":
        return stated, True
    words = protocol(provenance)
    return next((kind for pattern, kind in _ANNOTATORS if re.search(pattern, words, re.IGNORECASE)), "unknown"), False


def protocol(provenance: Mapping[str, str]) -> str:
    """How the annotations came to be, in the source's own words, "" where it says nothing."""
    keys = ("annotation_protocol", "real", "conversion", "caveats")
    return "; ".join(provenance[key] for key in keys if provenance.get(key))
