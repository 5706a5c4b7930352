"""Does the model know when it knows? Calibration of its probabilities, and abstention where no label is right.

*ECE* is the expected calibration error of the best label's probability over the bank, the softmax of the cosines times
the learned scale, in 15 bins of equal width (Guo et al., arXiv 1706.04599). *Absent* asks every region twice: with the
whole bank, and without its label and that label's ancestors and descendants, when every answer is wrong. A score that
tells the two apart can abstain: AUROC, and the share of absent labels that a threshold rejects which keeps 95 % of the
present ones. The score is the best probability, and beside it the best cosine, which knows nothing of the other labels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from medp_clip_jax import statistics
from medp_clip_jax.evaluators.encode import Encoded
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.rank_statistics import Ranking, auroc

BINS = 15
KEPT = 0.95  # share of present labels that the threshold keeps
CHUNK = 4096  # regions scored at a time


def evaluate(
    encoded: Encoded,
    ontology: Ontology,
    text: np.ndarray,
    ids: Sequence[str],
    scale: float,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores the regions of `encoded` against text embeddings float [C, D] of the labels `ids`; `scale` is the factor
    of the cosine in the softmax.

    Returns flat metrics (`calibration/mask/ece`, ...), and for the report the bins of each kind and intervals over
    patient groups. Empty for a table without regions or a bank of one family of labels only.
    """
    flat: dict[str, float] = {}
    details: dict[str, Any] = {"calibration": {}}
    rows = {label: row for row, label in enumerate(ids)}
    target = np.array([rows[label] for label in encoded.table.label], np.int64)
    others = ~kin(ontology, ids)
    if not len(target) or not others[np.unique(target)].any(1).all():
        return flat, details
    images = [encoded.table.images[image] for image in encoded.table.image_index]
    group = statistics.group_index([image.dataset for image in images], [image.group for image in images])
    for kind, embedding in encoded.regions.items():
        right, present, absent = scores(embedding, text, target, others, scale)
        confidence = present["probability"]
        bins = reliability(confidence, right)
        numbers = {
            "ece": float(sum(b["share"] * abs(b["confidence"] - b["accuracy"]) for b in bins)),
            "confidence": float(confidence.mean()),
            "accuracy": float(right.mean()),
        }
        measures: dict[str, statistics.Measure] = {
            "ece": gaps(confidence, right, group),
            "confidence": statistics.tally(confidence, group),
            "accuracy": statistics.tally(right, group),
        }
        for name in present:
            here, gone = present[name], absent[name]
            truth, score = np.repeat([True, False], len(here)), np.concatenate([here, gone])
            numbers[f"absent_auroc_{name}"] = float(roc_auc_score(truth, score))
            twice, groups = np.tile(group, 2), int(group.max()) + 1
            measures[f"absent_auroc_{name}"] = Ranking(score[:, None], truth[:, None], twice, groups, auroc)
            item = statistics.tally(gone < np.quantile(here, 1 - KEPT, method="lower"), group)
            numbers[f"absent_rejected_{name}"] = statistics.estimate(item)
            measures[f"absent_rejected_{name}"] = item
        intervals = {
            name: dataclasses.asdict(statistics.interval(item, replicates, seed))
            for name, item in measures.items()
            if replicates
        }
        flat |= {f"calibration/{kind}/{name}": value for name, value in numbers.items()}
        details["calibration"][kind] = {"bins": bins, "intervals": intervals}
    return flat, details


def kin(ontology: Ontology, ids: Sequence[str]) -> np.ndarray:
    """Which labels are the row's own, its ancestors or its descendants: bool [C, C], symmetric."""
    rows = {label: row for row, label in enumerate(ids)}
    related = np.eye(len(ids), dtype=bool)
    for label, row in rows.items():
        for ancestor in ontology.ancestors(label) & rows.keys():
            related[row, rows[ancestor]] = related[rows[ancestor], row] = True
    return related


def scores(
    embedding: np.ndarray, text: np.ndarray, target: np.ndarray, others: np.ndarray, scale: float
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Whether the best label is right, bool [regions], and the best `probability` and `cosine` over the whole bank and
    over the labels `others` bool [C, C] of the target's row, both float [regions]."""
    right = np.zeros(len(target), bool)
    whole, rest = ({name: np.zeros(len(target)) for name in ("probability", "cosine")} for _ in range(2))
    for start in range(0, len(target), CHUNK):
        rows = slice(start, start + CHUNK)
        cosine = embedding[rows].astype(np.float64) @ text.T.astype(np.float64)
        right[rows] = cosine.argmax(1) == target[rows]
        for found, allowed in ((whole, True), (rest, others[target[rows]])):
            left = np.where(allowed, cosine, -np.inf)
            best = left.max(1)
            found["cosine"][rows] = best
            found["probability"][rows] = 1 / np.exp(scale * (left - best[:, None])).sum(1)
    return right, whole, rest


@dataclasses.dataclass(frozen=True)
class Gaps:
    """The expected calibration error as a measure of patient groups: `gap`, confidence minus accuracy summed over the
    regions in each bin, and `count` of regions, both float [groups, BINS]."""

    gap: np.ndarray
    count: np.ndarray

    def filled(self) -> np.ndarray:
        """See `statistics.Measure`."""
        return self.count.sum(1) > 0

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `statistics.Measure`."""
        return np.abs(weights @ self.gap).sum(1) / np.maximum((weights @ self.count).sum(1), 1)


def gaps(confidence: np.ndarray, right: np.ndarray, group: np.ndarray) -> Gaps:
    """The error of regions with `confidence` float, `right` bool and `group` int, all [regions]."""
    shape = (int(group.max(initial=-1)) + 1, BINS)
    cell = np.ravel_multi_index((group, bin_of(confidence)), shape)
    gap = np.bincount(cell, confidence - right, minlength=shape[0] * BINS)
    return Gaps(gap.reshape(shape), np.bincount(cell, minlength=shape[0] * BINS).reshape(shape).astype(float))


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Which of `BINS` bins of equal width over (0, 1] a probability is in, int like `confidence`."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """The filled ones of `BINS` bins of equal width over (0, 1]: `share` of the regions, mean `confidence` and
    `accuracy`."""
    place = bin_of(confidence)
    return [
        {
            "share": float((place == i).mean()),
            "confidence": float(confidence[place == i].mean()),
            "accuracy": float(right[place == i].mean()),
        }
        for i in np.unique(place)
    ]
