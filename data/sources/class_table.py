"""What classes are called: by pixel value, by colour or by a short name, from a file or from the command line."""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from data.sources import tables
from data.sources.files import shown
from medp_clip_jax.errors import InputError

# Names of what is no region; a class mapped to "" is known and left out, too.
BACKGROUND = frozenset(
    ("background", "_background_", "bg", "void", "ignore", "ignored", "unlabeled", "unlabelled", "none")
)
_NAMES = ("name", "classname", "class", "label", "category", "labelname", "text")
_VALUES = ("value", "id", "index", "pixelvalue", "pixel", "classid", "labelid", "classindex", "folder", "code", "key")
_COLOURS = ("color", "colour", "hex", "rgb", "colorrgb")


@dataclasses.dataclass(frozen=True)
class Classes:
    """Class names by pixel value, by colour (24 bits, red first) and by the name that folders and files use; "" is
    left out."""

    values: Mapping[int, str]
    colours: Mapping[int, str]
    names: Mapping[str, str]

    def labels(self) -> list[str]:
        """All labels, each once, in their order."""
        found = [*self.values.values(), *self.colours.values(), *self.names.values()]
        return list(dict.fromkeys(label for label in found if label))


def read_classes(stated: str, folder: pathlib.Path, encoding: str = "") -> Classes:
    """The table that an option states: the path of a JSON, CSV, TSV or labelmap.txt file, as it is or below `folder`,
    or the classes themselves, as `1=liver,2=spleen`, `#ff0000=liver` or `yes=brain tumor,no=`. InputError if it cannot
    be read."""
    if not stated:
        return Classes({}, {}, {})
    if "=" in stated:
        pairs: Iterable[tuple[Any, Any]] = [
            tuple(part.split("=", 1)) if "=" in part else (part, None) for part in stated.split(",") if part.strip()
        ]
        return _classes(pairs, f"--option=classes={stated}")
    path = next((path for path in (folder / stated, pathlib.Path(stated)) if path.is_file()), None)
    if path is None:
        raise InputError(f"--option=classes={stated}: no such file in {shown(folder)} or here, and no value=name pair")
    if path.suffix.lower() == ".json":
        return _classes(_json_pairs(tables.read_json(path, encoding), path), shown(path))
    if path.suffix.lower() == ".txt":
        return _classes(_labelmap(path, encoding), shown(path))
    return _classes(_csv_pairs(path, encoding), shown(path))


def _classes(pairs: Iterable[tuple[Any, Any]], place: str) -> Classes:
    values: dict[int, str] = {}
    colours: dict[int, str] = {}
    names: dict[str, str] = {}
    for key, name in pairs:
        if not isinstance(name, str):
            raise InputError(f"{place}: {key!r}: expected the name of a class, got {name!r}")
        name = "" if re.sub(r"\W+", "", name.lower()) in BACKGROUND else name.strip()
        colour = _colour(key)
        kind: dict[Any, str]
        kind, key = (colours, colour) if colour is not None else _number(key, values, names)
        if kind.setdefault(key, name) != name:
            raise InputError(f"{place}: {key!r} is both {kind[key]!r} and {name!r}: give it one name")
    if not values and not colours and not names:
        raise InputError(f"{place}: holds no classes: give a value or colour, and a name, for each")
    return Classes(values, colours, names)


def _number(key: Any, values: dict[int, str], names: dict[str, str]) -> tuple[dict[Any, str], Any]:
    text = str(key).strip()
    return (values, int(text)) if re.fullmatch(r"\d+", text) else (names, text)


def _colour(key: Any) -> int | None:
    """A colour as 24 bits: from (r, g, b), "r,g,b" or "#rrggbb"; None if it is something else."""
    if isinstance(key, str):
        if re.fullmatch(r"\s*#[0-9a-fA-F]{6}\s*", key):
            return int(key.strip()[1:], 16)
        parts: list[Any] = (
            re.findall(r"\d+", key) if re.fullmatch(r"[\s\[(]*\d+(\s*[,;]\s*\d+){2}[\s\])]*", key) else []
        )
    else:
        parts = list(key) if isinstance(key, list | tuple) else []
    if len(parts) < 3 or not all(str(part).isdigit() and int(part) < 256 for part in parts):
        return None
    red, green, blue = (int(part) for part in parts[:3])
    return red << 16 | green << 8 | blue


def _json_pairs(content: Any, path: pathlib.Path) -> list[tuple[Any, Any]]:
    """From {"1": "liver"}, {"liver": 1}, {"liver": [255, 0, 0]}, a list of objects, or one of these under `labels`,
    `classes` or `categories`."""
    if isinstance(content, Mapping):
        inner = next((content[key] for key in ("labels", "classes", "categories") if key in content), None)
        if isinstance(inner, Mapping | list):
            return _json_pairs(inner, path)
        return [_ordered(key, value) for key, value in content.items()]
    if isinstance(content, list) and all(isinstance(row, Mapping) for row in content):
        return [pair for row in content for pair in _row_pairs(row, path)]
    raise InputError(f"{shown(path)}: expected an object of values and names, or a list of objects")


def _ordered(key: str, value: Any) -> tuple[Any, Any]:
    """Either side may be the name."""
    if isinstance(value, str) and not (_colour(value) is not None or value.isdigit()):
        return key, value
    return value, key


def _row_pairs(row: Mapping[str, Any], path: pathlib.Path) -> list[tuple[Any, Any]]:
    name = tables.cell(row, tables.column(row, _NAMES, path, "the class's name"))
    red = tables.find_column(row, ("r", "red"))
    if red:
        others = [tables.find_column(row, names) for names in (("g", "green"), ("b", "blue"))]
        return [(",".join(tables.cell(row, key) for key in (red, *others)), name)]
    key = tables.find_column(row, _COLOURS) or tables.find_column(row, _VALUES)
    if key is None:
        raise InputError(
            f"{shown(path)}: no column of values or colours: expected one of {', '.join(_VALUES)}, or r, g, b"
        )
    return [(row[key], name)]


def _csv_pairs(path: pathlib.Path, encoding: str) -> list[tuple[Any, Any]]:
    with tables.open_text(path, encoding) as file:
        reader = csv.DictReader(file, delimiter="," if path.suffix.lower() == ".csv" else "\t", skipinitialspace=True)
        return [pair for row in reader if any(row.values()) for pair in _row_pairs(row, path)]


def _labelmap(path: pathlib.Path, encoding: str) -> list[tuple[Any, Any]]:
    """From the labelmap.txt of CVAT's segmentation masks (`name:r,g,b:parts:actions`), or lines of `value name`."""
    pairs: list[tuple[Any, Any]] = []
    with tables.open_text(path, encoding) as file:
        for line in file:
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.strip().split(":")
            value, _, name = line.strip().replace("\t", " ").partition(" ")
            pairs.append((fields[1], fields[0]) if len(fields) > 1 else (value, name.strip()))
    return pairs
