"""Does the whole image say what is in it? Zero-shot classification with the global embedding, per data set.

Each class is the normalised mean of its sentences' embeddings (prompt ensemble, as in CLIP). A data set whose images
all have exactly one label is a choice between its labels; any other is one yes-or-no question per label, ranked by
cosine (AUROC and average precision need no threshold, and small text towers do not know negation). *Presence* asks
the same of region labels: is the structure annotated in this image? It exists for data sets without image labels, and
takes an absent annotation for an absent structure.

Where a data set says the same of all images of a patient group, as MRNet does of the slices of an examination, the
groups are asked, too: `group_auroc` and the like are those of the mean embedding of each group's images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from medp_clip_jax import statistics
from medp_clip_jax.evaluators.encode import Encoded
from medp_clip_jax.rank_statistics import Ranking, auroc, average_precision

MIN_IMAGES = 5  # with and without a label, for it to be ranked


@dataclasses.dataclass(frozen=True)
class Question:
    """What one data set is asked, and the cosines that answer: a choice between its `labels`, or each by itself.

    `score` float and `present` bool are [images, labels]; `images` int [images] are rows of the table, `group` int
    [images] the patient groups, numbered from 0.
    """

    labels: Sequence[str]
    single: bool
    score: np.ndarray
    present: np.ndarray
    images: np.ndarray
    group: np.ndarray


def evaluate(
    encoded: Encoded, text: np.ndarray, ids: Sequence[str], replicates: int = 1000, seed: int = 0
) -> tuple[dict[str, float], dict]:
    """Classifies `encoded.image` [N, D] by `text` float [C, D], one row per label of `ids`.

    Returns flat metrics (`image/<data set>/accuracy`, means over data sets as `image/accuracy`) and details per data
    set: kind, labels, images, metrics, and their intervals over patient groups.
    """
    flat: dict[str, float] = {}
    details: dict[str, dict[str, Any]] = {"image": {}, "presence": {}}
    for (task, name), question in questions(encoded, text, ids).items():
        asked = measures(question)
        if not asked:
            continue
        if task == "image" and (whole := per_group(question)):
            asked |= {f"group_{key}": item for key, item in measures(whole).items()}
        metrics = {key: statistics.estimate(item) for key, item in asked.items()}
        intervals = {
            key: dataclasses.asdict(statistics.interval(item, replicates, seed))
            for key, item in asked.items()
            if replicates
        }
        details[task][name] = {
            "kind": "single" if question.single else "multi",
            "metrics": metrics,
            "intervals": intervals,
            "images": len(question.images),
            "labels": list(question.labels),
        }
        flat |= {f"{task}/{name}/{key}": value for key, value in metrics.items()}
    for task, entries in details.items():
        flat |= _means(task, entries)
    return flat, details


def questions(encoded: Encoded, text: np.ndarray, ids: Sequence[str]) -> dict[tuple[str, str], Question]:
    """What is asked of each data set, by task (`image` or `presence`) and name; see `evaluate` for the arguments."""
    rows = {label: row for row, label in enumerate(ids)}
    found = {}
    for task, labels in (("image", image_labels(encoded.table)), ("presence", presence_labels(encoded.table))):
        for name, members in _by_dataset(encoded.table).items():
            truth = [sorted(set(labels[i]) & rows.keys()) for i in members]
            candidates = sorted(set().union(*truth))
            if not candidates:
                continue
            found[task, name] = Question(
                labels=candidates,
                single=task == "image" and len(candidates) > 1 and all(len(labels[i]) == 1 for i in members),
                score=encoded.image[members] @ np.stack([text[rows[label]] for label in candidates]).T,
                present=np.array([[label in t for label in candidates] for t in truth], bool),
                images=members,
                group=statistics.group_index([encoded.table.images[i].group for i in members]),
            )
    return found


def image_labels(table) -> list[tuple[str, ...]]:
    """Labels of each image of the table."""
    return [tuple(example.image_labels) for example in table.images]


def presence_labels(table) -> list[tuple[str, ...]]:
    """Region labels annotated in each image of the table."""
    labels: list[set[str]] = [set() for _ in table.images]
    for index, label in zip(table.image_index, table.label, strict=True):
        labels[index].add(label)
    return [tuple(sorted(found)) for found in labels]


def measures(question: Question) -> dict[str, statistics.Measure]:
    """The metrics of a question, empty where no label can be ranked.

    Of a choice: accuracy, balanced accuracy (mean over classes) and macro one-vs-rest AUROC. Else macro AUROC and mean
    average precision over the labels present in, and missing from, at least MIN_IMAGES images.
    """
    score, present, group = question.score, question.present, question.group
    groups = int(group.max(initial=-1)) + 1
    if question.single:
        target = present.argmax(1)
        right = (score.argmax(1) == target).astype(float)
        some = [c for c in range(len(question.labels)) if _mixed(present[:, c], 1)]
        # One-vs-rest on the margin over the best other class, whose order no scale of the logits changes.
        margins = np.stack([_margin(score, c) for c in some], 1)
        return {
            "accuracy": statistics.tally(right, group),
            "balanced_accuracy": statistics.tally(right, group, target),
            "auroc": Ranking(margins, present[:, some], group, groups, auroc),
        }
    some = [c for c in range(len(question.labels)) if _mixed(present[:, c], MIN_IMAGES)]
    if not some:
        return {}
    return {
        name: Ranking(score[:, some], present[:, some], group, groups, metric)
        for name, metric in (("auroc", auroc), ("map", average_precision))
    }


def per_group(question: Question) -> Question | None:
    """The question put to the mean embedding of each group; None where groups are single images or their images differ
    in labels."""
    group, present = question.group, question.present
    first = np.unique(group, return_index=True)[1]
    if len(first) == len(group) or (present != present[first][group]).any():
        return None
    sums = np.zeros((len(first), question.score.shape[1]))
    np.add.at(sums, group, question.score)  # cosines with a mean are the mean of cosines
    mean = sums / np.bincount(group)[:, None]
    return dataclasses.replace(
        question, score=mean, present=present[first], images=question.images[first], group=np.arange(len(first))
    )


def _by_dataset(table) -> dict[str, np.ndarray]:
    names = np.array([example.dataset for example in table.images], object)
    return {name: np.flatnonzero(names == name) for name in sorted(set(names))}


def _margin(logits: np.ndarray, column: int) -> np.ndarray:
    return logits[:, column] - np.delete(logits, column, 1).max(1)


def _mixed(truth: np.ndarray, least: int) -> bool:
    return bool(truth.sum() >= least and (~truth).sum() >= least)


def _means(task: str, entries: dict) -> dict[str, float]:
    """Unweighted means over the data sets that have the metric."""
    found: dict[str, list[float]] = {}
    for entry in entries.values():
        for name, value in entry["metrics"].items():
            if not np.isnan(value):
                found.setdefault(name, []).append(value)
    return {f"{task}/{name}": float(np.mean(values)) for name, values in found.items()}
