"""Curates a corpus: `python -m data.curate --corpus=DIR --output=DIR [--evaluation=DIR] [--config.tiny.pixels=25]`.

Every rule of data/curation/config.py is looked for, and what it says is dropped is left out of the corpus at --output,
a new corpus with curation.json (what was found and done), curation/findings.jsonl (each finding) and balance/ (weights
of the training images). Without --output nothing is written but the report (--report=FILE.json): an audit.
"""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from data import parallel
from data.assembly import build_corpus, totals
from data.curation import config as defaults
from data.curation.balance import balance
from data.curation.curated import curated_sources
from data.curation.findings import FILE, audit
from data.curation.summary import as_text, report_of
from data.report import Report
from medp_clip_jax.corpus import BALANCE, Corpus, open_corpus
from medp_clip_jax.errors import InputError, run_cli

REPORT, FINDINGS = "curation.json", "curation"


def define_flags() -> None:
    """The command line; not at import, so that other programs may define flags of the same names."""
    flags.DEFINE_string("corpus", None, "Corpus to curate; it is left as it is.", required=True)
    flags.DEFINE_string("output", "", "Curated corpus to make; without it only the report is made.")
    flags.DEFINE_multi_string("evaluation", [], "Corpus whose images must not be trained on; repeat for more.")
    flags.DEFINE_string("report", "", "Write the report to this JSON file, too.")
    flags.DEFINE_integer("workers", 0, "Processes; 0: one for each core.", lower_bound=0)
    config_flags.DEFINE_config_dict("config", defaults.get_config())


def main(argv: Sequence[str]) -> None:
    """Audits, and with --output curates, the corpus that the flags name; raises InputError for anything wrong in
    them."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: name directories by --corpus= and --output=")
    corpus, output = open_corpus(values.corpus), pathlib.Path(values.output) if values.output else None
    if output is not None and output.resolve() == corpus.directory.resolve():
        raise InputError(f"--output={output}: is the corpus itself: name another directory, it is kept")
    evaluation = [open_corpus(directory) for directory in values.evaluation]
    workers = values.workers or parallel.cores()
    with tempfile.TemporaryDirectory(prefix="curation-") as folder:
        report = curate(corpus, evaluation, values.config, workers, pathlib.Path(folder), output)
    if values.report:
        try:
            pathlib.Path(values.report).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise InputError(f"--report={values.report}: cannot be written ({error.strerror}): name a file") from error
    print("\n".join(as_text(report)))
    if output is not None:
        print(totals(open_corpus(output)))


def curate(
    corpus: Corpus,
    evaluation: Sequence[Corpus],
    config: Any,
    workers: int,
    folder: pathlib.Path,
    output: pathlib.Path | None,
) -> dict[str, Any]:
    """Audits a corpus against evaluation corpora, writes what stays of it to `output` (if given), and returns the
    content of curation.json. `folder` takes working files. Raises InputError for what cannot be used."""
    table, findings, others = audit(corpus, evaluation, config, workers, folder)
    dropped = findings.dropped()
    lost = np.zeros(len(table), bool)
    lost[dropped[dropped[:, 1] < 0, 0]] = True
    weights, balanced = balance(table, lost, config)
    report = report_of(table, findings.rules.values(), others, lost, config, balanced)

    def finish(work: pathlib.Path) -> None:
        (work / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for name in (FINDINGS, BALANCE):
            (work / name).mkdir()
        shutil.copyfile(folder / FILE, work / FINDINGS / FILE)
        for name, part in weights.items():
            np.save(work / BALANCE / f"{name}.npy", part)

    if output is not None:
        told = Report()
        sources = curated_sources(table, dropped, config, told)
        build_corpus(output, sources, corpus.ontology, told, workers, finish=finish)
    return report


if __name__ == "__main__":
    define_flags()
    run_cli(main)
