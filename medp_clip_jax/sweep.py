"""Runs a grid of trainings or evaluations, and keeps one table of what came out.

    python -m medp_clip_jax.sweep --config=configs/sweeps/baselines_phantoms.py --output=sweeps/baselines_phantoms

The file's `get_sweep()` returns an `ml_collections.ConfigDict` with

* `grid`: pairs (field, values); a cell is one value of each. For trainings fields are those of the configuration, such
  as `model.fusion`; for evaluations they are the flags of `medp_clip_jax.evaluate`, such as `checkpoint` and `data`.
* `settings`: pairs (title, fields) that the grid is crossed with, for rows with a name and several fields; the others
  are compared with the first one. Optional.
* `config`: the configuration file of trainings; evaluations have none.
* `cells`: further cells, each a dict of fields. Optional.
* `metrics`: names in results.json to show, the first ranks. Optional.

Cells run here one after the other (`--jobs` at a time), or as a job each: `--submit="sbatch launch/slurm/train.sbatch"`
is called with the arguments of the training. A cell is finished when it has its results.json, and what is finished is
never done again: start an interrupted sweep once more, and trainings go on from their last checkpoint. The table is
written anew after each cell, and by `--collect` alone. `--evidence=docs/evidence` keeps what the table rests on as a
file to commit, whose cells are finished too, and `--page=docs/results.template.md` writes the page of all such files
(see `evidence`).
"""

import dataclasses
import hashlib
import itertools
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags

from configs import common
from medp_clip_jax import definitions, evidence, results, sweep_table
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.processes import EXIT_PREEMPTED

FIELDS = ("config", "settings", "grid", "cells", "metrics")
LONGEST = 120  # characters of a cell's name, which is a folder
SUBMITTED, LOG = "submitted.txt", "log.txt"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A grid: the cells' fields by name, how they are run, and what is shown of them."""

    config: str  # of trainings; "" for evaluations
    cells: dict[str, dict[str, Any]]
    metrics: tuple[str, ...]


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
    for pair in found.get("settings", ()):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Mapping)):
            raise InputError(
                f"{path}: settings: expected pairs such as ('late', {{'model.fusion': 'late'}}), got {pair!r}"
            )
    settings = [({sweep_table.SETTING: title}, dict(fields)) for title, fields in found.get("settings", ())]
    chosen = [
        dict(zip([name for name, _ in grid], one, strict=True)) for one in itertools.product(*(v for _, v in grid))
    ]
    cells = [(title | cell, fields) for cell in chosen for title, fields in settings or [({}, {})] if title or cell]
    telling = {sweep_table.SETTING, sweep_table.SEED, *(name for name, _ in grid)}
    for cell in found.get("cells", ()):
        naming = telling if sweep_table.SETTING in cell else cell
        cells.append(({field: cell[field] for field in cell if field in naming}, dict(cell)))
    if not cells:
        raise InputError(f"{path}: the sweep has no cells; give it a grid such as (('seed', (0, 1, 2)),)")
    named = {cell_name(cell): cell | fields for cell, fields in cells}
    if len(named) < len(cells):
        raise InputError(f"{path}: {len(cells) - len(named)} cells are there twice")
    config = found.get("config", "")
    if not config and (bare := [name for name, cell in named.items() if "checkpoint" not in cell]):
        raise InputError(f"{path}: {bare[0]}: expected a config to train, or a checkpoint to evaluate")
    return Sweep(config, named, tuple(found.get("metrics", ())))


def cell_name(cell: Mapping[str, Any]) -> str:
    """A folder's name for a cell: `fusion=late,seed=0`; fields by their last word where that tells them apart."""
    words = [field.rsplit(".", 1)[-1] for field in cell]
    names = [word if words.count(word) == 1 else field for word, field in zip(words, cell, strict=True)]
    name = ",".join(f"{name}={value}" for name, value in zip(names, cell.values(), strict=True))
    plain = re.sub(r"[^A-Za-z0-9=,._+-]+", "_", name)
    if plain == name and len(name) <= LONGEST:
        return name
    return f"{plain[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def arguments(sweep: Sweep, cell: Mapping[str, Any], folder: pathlib.Path) -> tuple[str, list[str]]:
    """The module that runs a cell, and its arguments."""
    fields = {field: value for field, value in cell.items() if field != sweep_table.SETTING}
    if sweep.config:
        given = [f"--config.{field}={value}" for field, value in fields.items()]
        return "medp_clip_jax.train", [f"--config={sweep.config}", *given, f"--config.workdir={folder}"]
    shown = {name: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for name, v in fields.items()}
    return "medp_clip_jax.evaluate", [*(f"--{name}={value}" for name, value in shown.items()), f"--output={folder}"]


def configurations(sweep: Sweep) -> dict[str, ml_collections.ConfigDict]:
    """The configuration that each cell trains with; none of evaluations.

    Raises:
      InputError: the file of `config` cannot be read, or a cell has a field that it has not.
    """
    found = {}
    for name, cell in sweep.cells.items() if sweep.config else ():
        found[name] = definitions.read(sweep.config, "get_config", tuple(common.get_config()), "config").lock()
        fields = {field: value for field, value in cell.items() if field != sweep_table.SETTING}
        try:
            found[name].update_from_flattened_dict(fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{name}: not fields of {sweep.config}: {error}") from error
    return found


def run(
    sweep: Sweep,
    output: pathlib.Path,
    jobs: int = 1,
    finished: Callable[[], None] = lambda: None,
    kept: Collection[str] = (),
    command: Callable[[str, list[str]], list[str]] = lambda module, given: [sys.executable, "-m", module, *given],
) -> dict[str, int]:
    """Runs what is neither finished nor `kept`, `jobs` cells at a time, calling `finished` after each. Exit codes.

    A stop signal is passed on to the running cells, which save; no others are begun then.
    """
    waiting = [name for name in sweep.cells if name not in kept and not (output / name / results.FILE).is_file()]
    running: dict[str, subprocess.Popen] = {}
    codes: dict[str, int] = {}
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        stopped.append(number)
        for process in running.values():
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while running or (waiting and not stopped):
            while waiting and len(running) < jobs and not stopped:
                name = waiting.pop(0)
                folder = results.writable(output / name)
                print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
                with (folder / LOG).open("a") as log:
                    whole = command(*arguments(sweep, sweep.cells[name], folder))
                    # A group of its own: Ctrl-C reaches the cells through `stop` alone, and once.
                    running[name] = subprocess.Popen(whole, stdout=log, stderr=log, process_group=0)
                if stopped:  # while it began
                    running[name].send_signal(signal.SIGTERM)
            time.sleep(0.05)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                codes[name] = running.pop(name).returncode
                if stopped and codes[name] == -signal.SIGTERM:  # an evaluation, which has nothing to save
                    codes[name] = EXIT_PREEMPTED
                finished()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        codes |= dict.fromkeys(waiting, EXIT_PREEMPTED)
    return codes


def submit(sweep: Sweep, output: pathlib.Path, launcher: str, kept: Collection[str] = ()) -> int:
    """Calls `launcher` with the arguments of each training that is not finished, kept or submitted; how many were.

    Raises:
      InputError: these are evaluations, or the launcher refuses one, in its words.
    """
    if not sweep.config:
        raise InputError("--submit: launchers start trainings; evaluations run here, with --jobs")
    count = 0
    for name, cell in sweep.cells.items():
        folder = output / name
        if name in kept or (folder / results.FILE).is_file() or (folder / SUBMITTED).is_file():
            continue
        results.writable(folder)
        whole = [*shlex.split(launcher), *arguments(sweep, cell, folder)[1]]
        try:
            done = subprocess.run(whole, capture_output=True, text=True)
        except OSError as error:
            raise InputError(f"--submit={launcher}: {error.strerror}; expected a command such as sbatch") from error
        if done.returncode:
            raise InputError(f"--submit={launcher}: {name}: {(done.stderr or done.stdout).strip()[-300:]}")
        (folder / SUBMITTED).write_text(done.stdout)
        print(f"{name}: {done.stdout.strip()}", flush=True)
        count += 1
    return count


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: options start with -- (see --help)")
    given = flags.FLAGS
    if given.page:
        print(f"written: {evidence.write_page(given.page)}")
        return
    if not given.config:
        raise InputError("expected --config=FILE with get_sweep(), such as configs/sweeps/baselines_phantoms.py")
    sweep = read_sweep(given.config)
    name = pathlib.Path(given.config.split(":")[0]).stem
    output = results.writable(given.output or pathlib.Path("sweeps") / name)
    file = results.writable(given.evidence) / f"{name}.json" if given.evidence else None
    kept = evidence.finished(file, configurations(sweep)) if file else {}
    if kept:
        print(f"{len(kept)} of {len(sweep.cells)} cells are in {file}", flush=True)

    def collect() -> None:
        table = sweep_table.write(output, sweep.cells, sweep.metrics, kept)
        if file:
            evidence.keep(file, given.config, table)

    codes: dict[str, int] = {}
    if given.submit:
        submit(sweep, output, given.submit, kept)
    elif not given.collect:
        codes = run(sweep, output, given.jobs, collect, kept)
    collect()
    print(sweep_table.screen(output))
    failed = [name for name, code in codes.items() if code not in (0, EXIT_PREEMPTED)]
    if failed:
        raise InputError(f"{len(failed)} of {len(sweep.cells)} cells failed; see {output / failed[0] / LOG}")
    if left := sum(code == EXIT_PREEMPTED for code in codes.values()):
        print(f"stopped with {left} cells to go: the same command goes on")
        sys.exit(EXIT_PREEMPTED)


if __name__ == "__main__":
    flags.DEFINE_string("config", None, "File with get_sweep(); FILE:ARGUMENT passes it an argument.")
    flags.DEFINE_string("output", None, "Folder of the cells and the table; sweeps/NAME if not given.")
    flags.DEFINE_integer("jobs", 1, "Cells at a time, on this machine.", lower_bound=1)
    flags.DEFINE_string("submit", "", "Command that starts a training with the arguments it is given, a job per cell.")
    flags.DEFINE_string("evidence", "", "Folder that gets NAME.json, all that the table rests on, to be committed.")
    flags.DEFINE_string("page", "", "Page with places for tables, NAME.template.md: writes NAME.md, and nothing else.")
    flags.DEFINE_bool("collect", False, "Only write the table of what is finished.")
    run_cli(main)
