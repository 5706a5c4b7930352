"""The cells of a sweep as its file defines them: their fields, their folders' names, and which make up a row."""

import dataclasses
import hashlib
import itertools
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections

from configs import common
from medp_clip_jax import definitions, results
from medp_clip_jax.errors import InputError

FIELDS = ("config", "settings", "grid", "cells", "metrics", "pooled", "curves")
SEED, SETTING = "seed", "setting"  # fields of a cell: seeds are put together, and a setting's title names its row
EVALUATOR = "evaluator"  # a field of evaluations: the command, one of those below
FILES = {  # the evaluation commands, and where each writes its numbers
    "evaluate": results.FILE,
    "robustness": "robustness.json",
    "linear_probe": "linear_probe.json",
    "falsification": "falsification.json",
    "interactive_segmentation": "segmentation_{protocol}.json",
    "text_to_mask": "text_to_mask.json",
}
LONGEST = 120  # characters of a cell's name, which is a folder


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A grid: the cells' fields by name, how they are run, and what is shown of them."""

    config: str  # of trainings; "" for evaluations
    cells: dict[str, dict[str, Any]]
    metrics: tuple[str, ...] = ()
    grid: tuple[str, ...] = ()  # its fields, which tell the rows of one setting apart
    pooled: tuple[str, ...] = ()  # fields besides the seed that do not
    curves: tuple[tuple[str, str], ...] = ()  # a metric, and what it is plotted against

    def row(self, name: str) -> tuple[tuple[str, Any], ...]:
        """What tells the row of a cell from others: a setting's title and the fields of the grid, of cells without a
        title all fields, without those that are pooled. Fields of the grid that are the same everywhere tell nothing.
        """
        cell = self.cells[name]
        telling = list(cell)
        if SETTING in cell:
            several = (f for f in self.grid if len({repr(each.get(f)) for each in self.cells.values()}) > 1)
            telling = [SETTING, *(field for field in several if field in cell)]
        return tuple((field, cell[field]) for field in telling if field not in (SEED, *self.pooled))


def read_sweep(path: str) -> Sweep:
    """Reads `get_sweep()` of a file, `FILE` or `FILE:ARGUMENT`.

    Raises:
      InputError: there is no such file or function, or what it returns is not a sweep.
    """
    found = definitions.read(path, "get_sweep", FIELDS, "config")
    grid = found.get("grid", ())
    for pair in grid:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], (tuple, list)) and pair[1]):
            raise InputError(f"{path}: grid: expected pairs such as ('seed', (0, 1, 2)), got {pair!r}")
    fields_of_grid = tuple(name for name, _ in grid)
    for pair in found.get("settings", ()):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Mapping)):
            raise InputError(
                f"{path}: settings: expected pairs such as ('late', {{'model.fusion': 'late'}}), got {pair!r}"
            )
        if both := set(pair[1]) & set(fields_of_grid):
            raise InputError(f"{path}: settings: {pair[0]!r} sets {min(both)}, a field of the grid: leave one out")
    settings = [({SETTING: title}, dict(fields)) for title, fields in found.get("settings", ())]
    chosen = [dict(zip(fields_of_grid, one, strict=True)) for one in itertools.product(*(v for _, v in grid))]
    cells = [(title | cell, fields) for cell in chosen for title, fields in settings or [({}, {})] if title or cell]
    telling = {SETTING, SEED, *fields_of_grid}
    for cell in found.get("cells", ()):
        naming = telling if SETTING in cell else cell
        cells.append(({field: cell[field] for field in cell if field in naming}, dict(cell)))
    if not cells:
        raise InputError(f"{path}: the sweep has no cells; give it a grid such as (('seed', (0, 1, 2)),)")
    named = {cell_name(cell): cell | fields for cell, fields in cells}
    if len(named) < len(cells):
        raise InputError(f"{path}: {len(cells) - len(named)} cells are there twice")
    config = found.get("config", "")
    if not config and (bare := [name for name, cell in named.items() if "checkpoint" not in cell]):
        raise InputError(f"{path}: {bare[0]}: expected a config to train, or a checkpoint to evaluate")
    for name, cell in named.items():
        if not config and cell.get(EVALUATOR, "evaluate") not in FILES:
            raise InputError(f"{path}: {name}: expected an evaluator among {', '.join(FILES)}")
    pooled = tuple(found.get("pooled", ()))
    if unknown := [field for field in pooled if not any(field in cell for cell in named.values())]:
        raise InputError(f"{path}: pooled: expected fields of the cells, such as 'data.corpus', got {unknown[0]!r}")
    curves = tuple(found.get("curves", ()))
    if wrong := [pair for pair in curves if not (isinstance(pair, (tuple, list)) and len(pair) == 2)]:
        raise InputError(f"{path}: curves: expected pairs of a metric and a cost, got {wrong[0]!r}")
    return Sweep(config, named, tuple(found.get("metrics", ())), fields_of_grid, pooled, curves)


def cell_name(cell: Mapping[str, Any]) -> str:
    """A folder's name for a cell: `fusion=late,seed=0`."""
    name = ",".join(f"{name}={value}" for name, value in zip(short(cell), cell.values(), strict=True))
    plain = re.sub(r"[^A-Za-z0-9=,._+-]+", "_", name)
    if plain == name and len(name) <= LONGEST:
        return name
    return f"{plain[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def short(fields: Collection[str]) -> list[str]:
    """Fields by their last word where that tells them apart: `fusion` for `model.fusion`."""
    words = [field.rsplit(".", 1)[-1] for field in fields]
    return [word if words.count(word) == 1 else field for word, field in zip(words, fields, strict=True)]


def arguments(sweep: Sweep, cell: Mapping[str, Any], folder: pathlib.Path) -> tuple[str, list[str]]:
    """The module that runs a cell, and its arguments."""
    fields = {field: value for field, value in cell.items() if field not in (SETTING, EVALUATOR)}
    if sweep.config:
        given = [f"--config.{field}={value}" for field, value in fields.items()]
        return "medp_clip_jax.train", [f"--config={sweep.config}", *given, f"--config.workdir={folder}"]
    shown = {name: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for name, v in fields.items()}
    evaluator = cell.get(EVALUATOR, "evaluate")
    module = f"medp_clip_jax.{'' if evaluator == 'evaluate' else 'evaluators.'}{evaluator}"
    return module, [*(f"--{name}={value}" for name, value in shown.items()), f"--output={folder}"]


def result_file(cell: Mapping[str, Any]) -> str:
    """The file in a cell's folder that is there once the cell has finished."""
    return FILES[cell.get(EVALUATOR, "evaluate")].format(protocol=cell.get("protocol", "center"))


def configurations(sweep: Sweep) -> dict[str, ml_collections.ConfigDict]:
    """The configuration that each cell trains with; none of evaluations.

    Raises:
      InputError: the file of `config` cannot be read, or a cell has a field that it has not.
    """
    found = {}
    for name, cell in sweep.cells.items() if sweep.config else ():
        found[name] = definitions.read(sweep.config, "get_config", tuple(common.get_config()), "config").lock()
        fields = {field: value for field, value in cell.items() if field != SETTING}
        try:
            found[name].update_from_flattened_dict(fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{name}: not fields of {sweep.config}: {error}") from error
    return found
