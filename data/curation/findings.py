"""All rules applied to a corpus: what each found is written down, counted, and remembered where it is to be dropped."""

import array
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.curation import ACTIONS, Finding, between, images, regions, scan
from data.curation.scan import Table
from data.curation.summary import Rule
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.errors import InputError

FILE = "findings.jsonl"
OF = {
    **dict.fromkeys(images.RULES, "image"),
    **dict.fromkeys(regions.RULES, "region"),
    "bare": "image",
    **dict.fromkeys(between.RULES, "between images"),
}


class Findings:
    """Writes findings to a file as they come, counts them by rule, and remembers what is to be dropped."""

    def __init__(self, config: Any, path: pathlib.Path):
        self._config, self._file = config, path.open("w", encoding="utf-8")
        self.rules = {
            rule: Rule(rule, of, config[rule].action, {k: v for k, v in config[rule].items() if k != "action"})
            for rule, of in OF.items()
        }
        self._dropped = array.array("q"), array.array("q")  # image and region (-1: all of it), as they came

    def add(self, table: Table, row: int, rule: str, region: int, label: str, partner: str, detail: str) -> None:
        """One finding, in image `row` of the corpus, region -1 where it is the image's."""
        counts, place = self.rules[rule], table.place(row)
        name = place.split("/")[0]
        counts.found += 1
        counts.by_source[name] += 1
        counts.by_modality[table.modalities[table.modality[row]]] += 1
        if label:
            counts.by_label[label] += 1
        if partner:
            counts.pairs[name, partner.rpartition("/")[0].rpartition("/")[0]] += 1
        line = {"record": place, "region": region, "label": label, "partner": partner, "detail": detail}
        if len(counts.examples) < self._config.examples:
            counts.examples.append(line)
        self._file.write(json.dumps({"rule": rule, "action": counts.action, **line}, ensure_ascii=False) + "\n")
        if counts.action == "drop":
            self._dropped[0].append(row)
            self._dropped[1].append(region)

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def dropped(self) -> np.ndarray:
        """Image and region (-1: the image) of all that is to be dropped, int64 [dropped, 2], sorted."""
        pairs = np.array(self._dropped, np.int64).T.reshape(-1, 2)
        return np.unique(pairs, axis=0)


def audit(
    corpus: Corpus, evaluation: Sequence[Corpus], config: Any, workers: int, folder: pathlib.Path
) -> tuple[Table, Findings, list[Table]]:
    """Applies all rules to a corpus and compares it with evaluation corpora; files go to `folder`, changes nothing.

    Raises InputError for a configuration or an evaluation corpus that cannot be used.
    """
    _check(config)
    findings = Findings(config, folder / FILE)

    def tell(table: Table, row: int, finding: Finding, label: str) -> None:
        findings.add(table, row, finding.rule, finding.region, label, "", finding.detail)

    table = scan.scan(corpus, config, workers, folder, tell)
    others = []
    for number, other in enumerate(evaluation):
        place = folder / f"evaluation{number}"
        place.mkdir()
        others.append(scan.scan(other, config, workers, place, lambda *found: None))
        scan.check_evaluation(others[-1], config.train_splits)
    starts = np.cumsum([0, *(len(t) for t in (table, *others))])
    for rule, rows, partners in between.find(table, others, config):
        if config[rule].action == "keep":
            continue
        for row, partner in zip(rows.tolist(), partners.tolist(), strict=True):
            home = int(np.searchsorted(starts, partner, side="right")) - 1
            there = (table, *others)[home].place(partner - int(starts[home]))
            prefix = f"{others[home - 1].corpus.directory.name}:" if home else ""
            findings.add(table, row, rule, -1, "", prefix + there, "")
    findings.close()
    return table, findings, others


def _check(config: Any) -> None:
    for rule in OF:
        if config[rule].action not in ACTIONS:
            raise InputError(f"--config.{rule}.action: expected {', '.join(ACTIONS)}, got {config[rule].action!r}")
    if not 0 <= config.near.distance <= 16:
        raise InputError(f"--config.near.distance: expected 0 to 16 bits, got {config.near.distance}")
    if not 0 <= config.balance.temperature <= 1 or config.balance.most < 1:
        raise InputError("--config.balance: expected temperature 0 to 1, and most of at least 1")
