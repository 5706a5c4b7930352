"""The options that the adapters of 2-D formats share: what the files themselves do not say."""

import re
from collections.abc import Mapping

from data.sources.files import shown
from medp_clip_jax.errors import InputError

COMMON = {
    "name": "name of the source in the corpus; default: what the data set calls itself, else the folder",
    "modality": "modality of all images, such as ct, mri (t1) or chest x-ray",
    "anatomy": "body part of all images",
    "view": "view of all images, such as axial",
    "licence": "licence of the data, kept as provenance",
    "origin": "where the data come from, kept as provenance",
    "annotation": "who made the labels: human, model, mixed or unknown; kept as provenance",
    "check": "files (default): changed images and masks are noticed, by size and time; tables: only changed tables",
    "flips": "yes: mirroring keeps the meaning of all images; no. Default: yes for microscopy, dermoscopy, histology",
}
GROUP = {
    "group": "regular expression, searched in an image's id: its first group (or all of it) is the patient or volume",
}
FRAME = {
    "exif": "stored (default): coordinates are those of the pixels as stored, where sizes do not tell; shown: as shown",
}
ENCODING = {"encoding": "encoding of the tables, such as cp1252; default: UTF-8"}
MIRRORABLE = ("microscopy", "dermoscopy", "histopathology", "histology")


def choice(options: Mapping[str, str], key: str, allowed: tuple[str, ...]) -> str:
    """The value of an option that has few: the first of them where it is not given; InputError otherwise."""
    value = options.get(key, allowed[0])
    if value not in allowed:
        raise InputError(f"--option={key}={value}: expected one of {', '.join(allowed)}")
    return value


def number(options: Mapping[str, str], key: str, default: float) -> float:
    """A number of 0 or more; InputError otherwise."""
    try:
        value = float(options.get(key, default))
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise InputError(f"--option={key}={options[key]}: expected a number of 0 or more")
    return value


def pattern(options: Mapping[str, str], key: str, default: str = "") -> re.Pattern[str] | None:
    """A regular expression, None where there is none; InputError if it is not one."""
    text = options.get(key, default)
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise InputError(f"--option={key}={text}: not a regular expression ({error})") from error


def group_of(expression: re.Pattern[str] | None, text: str, default: str) -> str:
    """What the expression finds in `text`: its first group, else all it matched, else `default`."""
    found = expression.search(text) if expression else None
    if not found:
        return default
    return (found[1] if found.re.groups and found[1] is not None else found[0]) or default


def flips(options: Mapping[str, str], modality: str) -> bool:
    """Whether mirroring keeps the meaning: as the option says, else by the modality."""
    if "flips" in options:
        return choice(options, "flips", ("yes", "no")) == "yes"
    return any(word in modality.lower() for word in MIRRORABLE)


def source_name(options: Mapping[str, str], default: str) -> str:
    """The name of the source, fit to be one of a folder; InputError if nothing is left of it."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", options.get("name") or shown(default)).strip("_.-")
    if not name:
        raise InputError(f"no source can be named {default!r}: give --option=name=NAME")
    return name


def provenance(options: Mapping[str, str], **known: str) -> dict[str, str]:
    """What is known of the data set: the facts that the adapter knows, and those that the options state instead."""
    if "annotation" in options:
        choice(options, "annotation", ("unknown", "human", "model", "mixed"))
    stated = {key: options[key] for key in ("licence", "origin", "annotation") if options.get(key)}
    return {key: value for key, value in (known | stated).items() if value}
