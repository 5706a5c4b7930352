"""Rules between images: patients in two splits, equal and nearly equal images, training that evaluation would meet."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data.curation import pairs
from data.curation.scan import Table, evaluation_rows

RULES = ("groups", "leak_group", "leak_exact", "exact", "relabelled", "leak_near", "near", "near_group")

Hits = tuple[str, np.ndarray, np.ndarray]  # rule, images of the corpus int64 [hits], what each was found to be like


def find(table: Table, others: list[Table], config: Any) -> Iterator[Hits]:
    """Yields what each rule finds; numbers from len(table) on are images of `others` (evaluation corpora), one after
    another. An image that is found twice by a rule comes with the first partner."""
    tables = [table, *others]
    own = len(table)
    judged = np.concatenate([evaluation_rows(t, config.train_splits) for t in tables])
    inside = np.arange(len(judged)) < own
    used = inside | judged  # the training splits of an evaluation corpus are nobody's business here
    columns = {
        name: np.concatenate([getattr(t, name) for t in tables]) for name in ("exact", "look", "group", "comparable")
    }
    for rule, held_out in (("groups", judged & inside), ("leak_group", judged & ~inside)):
        yield rule, *_shared_groups(columns["group"], inside & ~judged, held_out)
    # Evaluation first: an image that trains is then always the later of a pair.
    rows = np.flatnonzero(used & columns["comparable"])
    rows = rows[np.argsort(~judged[rows], kind="stable")]
    equal = rows[pairs.equal_pairs(columns["exact"][rows])]
    yield from _equal(table, equal, judged, own)
    rows = rows[~np.isin(rows, equal[:, 1])]
    yield from _near(tables, rows, columns, judged, own, config)


def _shared_groups(group: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(training)
    known, first = np.unique(group[held_out], return_index=True)
    place = np.searchsorted(known, group[rows])
    place[place == len(known)] = 0
    shared = known[place] == group[rows] if len(known) else np.zeros(len(rows), bool)
    return rows[shared], np.flatnonzero(held_out)[first[place[shared]]]


def _equal(table: Table, equal: np.ndarray, judged: np.ndarray, own: int) -> Iterator[Hits]:
    """Splits pairs (first, later) of equal images by what they mean; images outside the corpus are nobody's to drop."""
    equal = equal[equal[:, 1] < own]
    leaks = judged[equal[:, 0]] & ~judged[equal[:, 1]]
    yield "leak_exact", equal[leaks, 1], equal[leaks, 0]
    same = equal[~leaks & (equal[:, 0] < own)]
    adds = np.array([not table.labels_of(b) <= table.labels_of(a) for a, b in same.tolist()], bool)
    yield "exact", same[~adds, 1], same[~adds, 0]
    yield "relabelled", same[adds, 1], same[adds, 0]


def _near(
    tables: list[Table], rows: np.ndarray, columns: dict[str, np.ndarray], judged: np.ndarray, own: int, config: Any
) -> Iterator[Hits]:
    partner = {rule: np.full(own, -1, np.int64) for rule in ("leak_near", "near", "near_group")}
    if all(config[rule].action == "keep" for rule in partner):
        return
    within = config.near_group.action != "keep"
    group = columns["group"][rows]
    apart = np.arange(len(rows)) if within else group
    starts = np.cumsum([0, *(len(t) for t in tables)])
    for block in pairs.near_pairs(columns["look"][rows], config.near.distance, apart):
        block = block[rows[block[:, 1]] < own]
        alike = _alike(tables, starts, rows[block], config.near.difference)
        first, later = rows[block[alike]].T
        leaks = judged[first] & ~judged[later]
        same_group = ~leaks & (columns["group"][first] == columns["group"][later])
        ours = ~leaks & ~same_group & (first < own)
        for rule, chosen in (("leak_near", leaks), ("near", ours), ("near_group", same_group)):
            known = partner[rule]
            victims, where = np.unique(later[chosen], return_index=True)
            new = known[victims] < 0
            known[victims[new]] = first[chosen][where[new]]
    for rule, known in partner.items():
        found = np.flatnonzero(known >= 0)
        yield rule, found, known[found]


def _alike(tables: list[Table], starts: np.ndarray, found: np.ndarray, difference: float) -> np.ndarray:
    """Which pairs of images have thumbnails that differ by at most `difference`, bool [pairs]: a hash of 64 bits tells
    of frequencies, and many scans share these."""
    sides = [_thumbs(tables, starts, found[:, side]) for side in (0, 1)]
    return np.abs(sides[0].astype(np.int16) - sides[1]).mean(axis=(1, 2)) <= difference


def _thumbs(tables: list[Table], starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    thumbs = np.zeros((len(rows), *tables[0].thumbs.shape[1:]), np.uint8)
    for number, table in enumerate(tables):
        chosen = (rows >= starts[number]) & (rows < starts[number + 1])
        thumbs[chosen] = table.thumbs[rows[chosen] - starts[number]]
    return thumbs
