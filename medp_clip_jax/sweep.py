"""Runs a grid of trainings or evaluations, and keeps one table of what came out.

    python -m medp_clip_jax.sweep --config=configs/sweeps/baselines_phantoms.py --output=sweeps/baselines_phantoms

The file's `get_sweep()` returns an `ml_collections.ConfigDict` with

* `grid`: pairs (field, values); a cell is one value of each. For trainings fields are those of the configuration, such
  as `model.fusion`; for evaluations they are the flags of the command, such as `checkpoint` and `data`, and
  `evaluator` is the command: `evaluate` if it is not given, or another of `sweep_cells.FILES`, such as `robustness`.
* `settings`: pairs (title, fields) that the grid is crossed with, for rows with a name and several fields; the others
  are compared with the first one. Optional.
* `config`: the configuration file of trainings; evaluations have none.
* `cells`: further cells, each a dict of fields. Optional.
* `metrics`: names of metrics to show, the first ranks. Optional.
* `curves`: pairs of a metric and what it is plotted against, such as a cost, with the law that fits. Optional.
* `pooled`: fields whose cells make up one row, as seeds do. Optional.

Cells run here one after the other (`--jobs` at a time), or as a job each: `--submit="sbatch launch/slurm/train.sbatch"`
is called with the arguments of the training, or of the evaluation, whose module is in its environment as `MODULE`; what
was submitted is not submitted again unless SLURM says that the job is over, or with `--resubmit`. A cell is finished
when it has its results, and what is finished is never done again: start an interrupted sweep once more, and trainings
go on from their last checkpoint. The table is written anew after each cell, and by `--collect` alone.
`--evidence=docs/evidence` keeps what the table rests on as a file to commit, whose cells are finished too, and
`--page=docs/results.template.md` writes the page of all such files (see `evidence`).
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from medp_clip_jax import evidence, results, sweep_match, sweep_table
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.processes import EXIT_PREEMPTED
from medp_clip_jax.sweep_cells import read_sweep
from medp_clip_jax.sweep_jobs import LOG, run, submit


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: options start with -- (see --help)")
    given = flags.FLAGS
    if given.page:
        print(f"written: {evidence.write_page(given.page)}")
        return
    if given.resubmit and not given.submit:
        raise InputError("--resubmit: expected --submit=COMMAND with it, such as --submit='sbatch ...'")
    if not given.config:
        raise InputError("expected --config=FILE with get_sweep(), such as configs/sweeps/baselines_phantoms.py")
    sweep = read_sweep(given.config)
    name = pathlib.Path(given.config.split(":")[0]).stem
    output = results.writable(given.output or pathlib.Path("sweeps") / name)
    file = results.writable(given.evidence) / f"{name}.json" if given.evidence else None
    kept = evidence.finished(file, sweep_match.asked(sweep)) if file else {}
    if kept:
        print(f"{len(kept)} of {len(sweep.cells)} cells are in {file}", flush=True)

    def collect() -> None:
        table = sweep_table.write(output, sweep, kept)
        if file and (more := evidence.keep(file, given.config, table, sweep.cells)):
            print(
                f"{file} stays as it is: it has {more} of the cells, of another definition or from before their fields "
                f"were kept, and {len(table.contents)} are finished of this one; remove the file to begin it anew",
                flush=True,
            )

    codes: dict[str, int] = {}
    if given.submit:
        submit(sweep, output, given.submit, kept, given.resubmit)
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
    flags.DEFINE_string("submit", "", "Command that starts MODULE with the arguments it is given, a job per cell.")
    flags.DEFINE_bool("resubmit", False, "With --submit: submit what was submitted too, if it is not finished.")
    flags.DEFINE_string("evidence", "", "Folder that gets NAME.json, all that the table rests on, to be committed.")
    flags.DEFINE_string("page", "", "Page with places for tables, NAME.template.md: writes NAME.md, and nothing else.")
    flags.DEFINE_bool("collect", False, "Only write the table of what is finished.")
    run_cli(main)
