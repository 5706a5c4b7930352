"""What curation found and did, as the content of curation.json and as text.

| field | meaning |
|---|---|
| `format` | 1 |
| `config` | the configuration, all fields |
| `before`, `after` | {"images", "regions", "splits": {split: {"images", "regions"}}} |
| `rules` | for each rule in order: `rule`, `of` (image, region, between images), `action`, `settings`, `found`, |
| | `dropped`, `flagged`, `by_source`, `by_modality`, `by_label` (regions), `pairs` ([source, its partner's, images] |
| | between images), `examples` ([{"record", "region", "label", "partner", "detail"}]) |
| `evaluation` | the corpora compared with: `directory` (name only), `images` |
| `balance` | `temperature`, `most`, `before` and `after`: {modality: {label: regions}}, drawn by weight after |
"""

import collections
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data.curation.scan import Table

FORMAT = 1


@dataclasses.dataclass
class Rule:
    """Counts of one rule."""

    rule: str
    of: str
    action: str
    settings: dict[str, Any]
    found: int = 0
    by_source: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    by_modality: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    by_label: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    pairs: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    examples: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The rule's entry in curation.json."""
        return {
            "rule": self.rule,
            "of": self.of,
            "action": self.action,
            "settings": self.settings,
            "found": self.found,
            "dropped": self.found if self.action == "drop" else 0,
            "flagged": self.found if self.action == "flag" else 0,
            "by_source": dict(sorted(self.by_source.items())),
            "by_modality": dict(sorted(self.by_modality.items())),
            "by_label": dict(sorted(self.by_label.items())),
            "pairs": [[*names, count] for names, count in sorted(self.pairs.items())],
            "examples": self.examples,
        }


def as_text(report: dict[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    before, after = report["before"], report["after"]
    yield f"{'':<14} {'images':>12} {'regions':>14}"
    for title, numbers in (("before", before), ("after", after)):
        yield f"{title:<14} {numbers['images']:>12,} {numbers['regions']:>14,}"
    yield ""
    yield f"{'rule':<14} {'of':<15} {'action':<7} {'found':>10}  where most"
    for rule in report["rules"]:
        most = sorted(rule["by_source"].items(), key=lambda pair: (-pair[1], pair[0]))[:3]
        where = ", ".join(f"{name} {count:,}" for name, count in most)
        yield f"{rule['rule']:<14} {rule['of']:<15} {rule['action']:<7} {rule['found']:>10,}  {where}".rstrip()
    for rule in report["rules"]:
        for name, partner, count in rule["pairs"]:
            yield f"{rule['rule']}: {count:,} images of {name} are like images of {partner}"
    balance = report["balance"]
    if balance["before"]:
        yield ""
        yield f"{'modality':<26} {'regions':>12} {'as drawn':>12}"
        for modality, labels in balance["before"].items():
            drawn = sum(balance["after"][modality].values())
            yield f"{modality or 'unknown':<26} {sum(labels.values()):>12,.0f} {drawn:>12,.0f}"


def report_of(
    table: Table,
    rules: Iterable[Rule],
    others: Sequence[Table],
    dropped: np.ndarray,
    config: Any,
    balanced: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of curation.json; `dropped`, bool [images], are the images that do not stay."""
    before: dict[str, dict[str, int]] = {}
    for entry in table.corpus.manifest["sources"].values():
        for split, counts in entry["splits"].items():
            total = before.setdefault(split, {"images": 0, "regions": 0})
            for field in total:
                total[field] += counts[field]
    stay, splits = np.diff(table.ends, prepend=0) * ~dropped, table.split_of()
    after = {
        split: {"images": int((~dropped[splits == split]).sum()), "regions": int(stay[splits == split].sum())}
        for split in sorted(before)
    }
    return {
        "format": FORMAT,
        "config": json.loads(config.to_json()),
        "before": _total(dict(sorted(before.items()))),
        "after": _total(after),
        "rules": [rule.as_json() for rule in rules],
        "evaluation": [{"directory": other.corpus.directory.name, "images": len(other)} for other in others],
        "balance": balanced,
    }


def _total(splits: dict[str, dict[str, int]]) -> dict[str, Any]:
    sums = {field: sum(counts[field] for counts in splits.values()) for field in ("images", "regions")}
    return {**sums, "splits": splits}
