"""Whether a finished cell is the one that a sweep asks for, and not one of an earlier definition under the same name.

A training says what it was in the configuration of its results.json. An evaluation's is that of the model's training,
so that its fields are kept beside what it writes, in `arguments.json`.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from medp_clip_jax import results
from medp_clip_jax.config import first_difference, over_defaults
from medp_clip_jax.errors import InputError
from medp_clip_jax.sweep_cells import SETTING, Sweep, configurations, result_file

PLACE = ("workdir", "compile_cache")  # where a cell ran
ARGUMENTS = "arguments.json"
Asked = ml_collections.ConfigDict | dict[str, Any]


def asked(sweep: Sweep) -> dict[str, Asked]:
    """By cell, the configuration of a training, or the fields of an evaluation.

    Raises:
      InputError: the file of `config` cannot be read, or a cell has a field that it has not.
    """
    if sweep.config:
        return dict(configurations(sweep))
    return {name: _fields(cell) for name, cell in sweep.cells.items()}


def note(folder: pathlib.Path, sweep: Sweep, name: str) -> None:
    """Keeps the fields of an evaluation in its folder, before it starts."""
    if not sweep.config:
        (folder / ARGUMENTS).write_text(json.dumps(_fields(sweep.cells[name]), indent=1) + "\n")


def noted(folder: pathlib.Path) -> dict[str, Any] | None:
    """The fields that `note` kept; None where there are none."""
    try:
        return dict(json.loads((folder / ARGUMENTS).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def said(cell: Mapping[str, Any], trained: bool) -> Asked | None:
    """What a finished cell says that it was: the `config` of a training over the defaults, so that fields that came
    into being since then count with theirs, or the `fields` of an evaluation. None where it does not say, or says what
    this version has not."""
    if not trained:
        return cell.get("fields")
    try:
        return over_defaults(cell["config"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def difference(found: Asked | None, wanted: Asked) -> str | None:
    """In words, the first thing in which what a cell was (`said`) is not what is asked for, None where it is.

    The place that a training ran in does not count.
    """
    if found is None:
        return "it does not tell what it was asked"
    if isinstance(wanted, ml_collections.ConfigDict):
        name = first_difference(found, wanted, PLACE)
    else:
        name = next((name for name in {**found, **wanted} if found.get(name) != wanted.get(name)), None)
    return name and f"{name} was {_value(found, name)} and is {_value(wanted, name)}"


def finished(sweep: Sweep, output: pathlib.Path) -> list[str]:
    """The cells with results in `output`.

    Raises:
      InputError: one of them is of another configuration than the sweep has for it now.
    """
    found = [name for name in sweep.cells if (output / name / result_file(sweep.cells[name])).is_file()]
    wanted = asked(sweep) if found else {}
    for name in found:
        folder = output / name
        cell = {"config": _config(folder)} if sweep.config else {"fields": noted(folder)}
        if different := difference(said(cell, bool(sweep.config)), wanted[name]):
            raise InputError(
                f"{folder}: finished, but not as the sweep has it now ({different}): remove the folder, or name "
                "another --output"
            )
    return found


def _fields(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {field: results.plain(value) for field, value in cell.items() if field != SETTING}


def _config(folder: pathlib.Path) -> Any:
    path = folder / results.FILE
    try:
        return json.loads(path.read_text()).get("config")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not readable ({error}): remove it, and start the sweep again") from error


def _value(found: Asked, path: str) -> Any:
    value: Any = found
    for name in path.split(".") if isinstance(found, ml_collections.ConfigDict) else (path,):
        if name not in value:
            return "not given"
        value = value[name]
    return value
