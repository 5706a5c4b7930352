"""What the tables of a page rest on, as JSON files to commit, and the page made from them.

`medp_clip_jax.sweep --evidence=FOLDER` keeps of each finished cell its metrics, configuration, seed, commit, data
checksum and machine in FOLDER/NAME.json, of an evaluation its fields, and which regions it named
(`evaluators/outcomes.py`), with the paired differences that follow. A sweep takes the cells that are kept there for
finished, its own and those of other sweeps with the same configuration or fields (`finished`), so that it can be gone
on with from a fresh clone. A page NAME.template.md in the folder above has lines such as

    <!-- table: baselines_phantoms region/mask/macro region/box/macro -->

    <!-- differences: baselines_phantoms macro -->

    <!-- curve: scaling_data_phantoms region/mask/macro cost/train_regions -->

    <!-- datasets: baselines_regions micro MedP-CLIP/mask; trained on crops/crop -->

    <!-- labels: baselines_regions MedP-CLIP/mask; trained on crops/crop -->

in place of tables: the name of the evidence, then the metrics to show (those of the sweep if none is named), the
metric whose paired differences to the first setting are shown, a metric and what it depends on, or a metric and
the rows, with a kind of prompt each, that are shown data set by data set; labels are those that macro averages.
`medp_clip_jax.sweep --page=NAME.template.md` writes NAME.md beside it, the same from the same files.
"""

import json
import math
import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections

from medp_clip_jax import results, sweep_table, sweep_views
from medp_clip_jax.errors import InputError
from medp_clip_jax.statistics import Interval
from medp_clip_jax.sweep_match import Asked, difference, said

FOLDER, SUFFIX = "evidence", ".template.md"
DIRECTIVE = re.compile(r"^<!-- (table|differences|curve|datasets|labels): +(\S+) *(.*?) *-->$", re.MULTILINE)
HEAD = "<!-- Made from {name} and {folder}/ by `python -m medp_clip_jax.sweep --page`; change those, not this. -->\n"


def keep(path: pathlib.Path, definition: str, table: sweep_table.Table, cells: Collection[str] = ()) -> int:
    """Writes the table of the sweep that `definition` describes, whole or not at all.

    What is there stays where it has more of the sweep's `cells` than the table: how many, 0 where it was replaced.
    """
    before = len(set(kept(path)) & set(cells))
    if before > len(table.contents):
        return before
    rows = [
        {"setting": [list(pair) for pair in row.setting], "cells": row.cells, "differences": row.differences}
        for row in table.rows
    ]
    content = {
        "sweep": definition,
        "metrics": table.metrics,
        "cells_in_all": table.cells,
        "reference": table.reference,
        "rows": rows,
    }
    regions, listed = {}, {}
    for name, cell in sorted(table.contents.items()):
        listed[name] = cell
        if cell.get("outcomes"):  # the regions of all cells are the same ones, as a rule
            stored = cell["outcomes"]["regions"]
            regions[stored["keys"]] = stored
            listed[name] = {**cell, "outcomes": {**cell["outcomes"], "regions": stored["keys"]}}
    head = json.dumps(results.plain(content), indent=1, allow_nan=False).removesuffix("\n}")
    parts = [
        head,
        *(f' "{title}": {{\n{_lines(part)}\n }}' for title, part in (("regions", regions), ("cells", listed))),
    ]
    partial = path.with_suffix(".partial")
    partial.write_text(",\n".join(parts) + "\n}\n")
    os.replace(partial, path)
    return 0


def _lines(part: dict[str, Any]) -> str:
    return ",\n".join(f" {json.dumps(name)}: {json.dumps(results.plain(value))}" for name, value in part.items())


def kept(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The cells that `keep` wrote, by name; none where there is no file.

    Raises:
      InputError: the file is none of these.
    """
    return _content(path)["cells"] if path.is_file() else {}


def finished(path: pathlib.Path, wanted: Mapping[str, Asked]) -> dict[str, dict[str, Any]]:
    """The cells of `wanted` (`sweep_match.asked`) that are kept as they are wanted, for the place they ran in.

    They may be another sweep's, kept in another file of the same folder.
    """
    files = (path, *sorted(set(path.parent.glob("*.json")) - {path}))
    trained = any(isinstance(each, ml_collections.ConfigDict) for each in wanted.values())
    cells = [(said(cell, trained), cell) for file in files for cell in kept(file).values()]
    found = {}
    for name, each in wanted.items():
        if cell := next((cell for what, cell in cells if difference(what, each) is None), None):
            found[name] = cell
    return found


def read(path: pathlib.Path) -> sweep_table.Table:
    """The table that `keep` wrote.

    Raises:
      InputError: the file is not there, or is none of these.
    """
    content = _content(path)
    rows = [_row(row, content["cells"]) for row in content["rows"]]
    return sweep_table.Table(rows, content["metrics"], content["cells_in_all"], content["cells"], content["reference"])


def _content(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if missing := {"rows", "metrics", "cells_in_all", "reference", "regions", "cells"} - set(content):
            raise ValueError(f"no {min(missing)}")
        for cell in content["cells"].values():
            if cell.get("outcomes"):
                cell["outcomes"]["regions"] = content["regions"][cell["outcomes"]["regions"]]
        return content
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: not readable ({error}): expected a file of medp_clip_jax.sweep --evidence"
        ) from error


def _row(row: dict[str, Any], cells: dict[str, Any]) -> sweep_table.Row:
    values: dict[str, list[float]] = {}
    for name in row["cells"]:
        for metric, value in cells[name]["metrics"].items():
            if value is not None:
                values.setdefault(metric, []).append(value)
    setting = tuple((field, value) for field, value in row["setting"])
    differences = {
        metric: {kind: Interval(*(math.nan if x is None else x for x in found)) for kind, found in each.items()}
        for metric, each in row["differences"].items()
    }
    return sweep_table.Row(setting, row["cells"], values, differences)


def write_page(template: str) -> pathlib.Path:
    """Writes the page of a template beside it, and returns where.

    Raises:
      InputError: the template has another name or is not there, or a table that it names is not.
    """
    path = pathlib.Path(template)
    if not path.name.endswith(SUFFIX) or not path.is_file():
        raise InputError(f"--page={template}: expected a file NAME{SUFFIX}")
    page = path.with_name(path.name.removesuffix(SUFFIX) + ".md")
    page.write_text(render(path), "utf-8")
    return page


def render(template: pathlib.Path) -> str:
    """The page of a template, with its tables; InputError where one is not there. How to read a sweep's tables is said
    below the first of them."""
    noted: set[str] = set()

    def filled(place: re.Match) -> str:
        kind, name, words = place[1], place[2], place[3]
        table = read(template.parent / FOLDER / f"{name}.json")
        metric, _, rest = words.partition(" ")
        if kind == "differences" and table.rows:
            return sweep_views.differences(table, metric).rstrip("\n")
        if kind == "curve" and (len(table.rows) > 2 or len(table.contents) == table.cells):
            return sweep_views.curve(table, metric, rest.strip()).rstrip("\n")
        if kind == "datasets" and table.rows:
            return sweep_views.by_dataset(table, metric, [each.strip() for each in rest.split(";")]).rstrip("\n")
        if kind == "labels" and table.rows:
            return sweep_views.by_label(table, [each.strip() for each in words.split(";")]).rstrip("\n")
        columns = words.split() if kind in ("table", "curve") else []
        text = sweep_table.markdown(sweep_table.showing(table, columns), name not in noted).rstrip("\n")
        noted.add(name)
        return text

    return HEAD.format(name=template.name, folder=FOLDER) + DIRECTIVE.sub(filled, template.read_text("utf-8"))
