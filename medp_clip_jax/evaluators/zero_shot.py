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
import functools
from collections.abc import Sequence

import numpy as np
from sklearn import metrics as sk

from medp_clip_jax import statistics
from medp_clip_jax.evaluators.encode import Encoded

MIN_IMAGES = 5  # with and without a label, for it to be ranked


def evaluate(
    encoded: Encoded, text: np.ndarray, ids: Sequence[str], replicates: int = 1000, seed: int = 0
) -> tuple[dict[str, float], dict]:
    """Classifies `encoded.image` [N, D] by `text` float [C, D], one row per label of `ids`.

    Returns flat metrics (`image/<data set>/accuracy`, means over data sets as `image/accuracy`) and details per data
    set: kind, labels, images, metrics, and the accuracy's interval over patient groups.
    """
    rows = {label: row for row, label in enumerate(ids)}
    flat: dict[str, float] = {}
    details: dict = {"image": {}, "presence": {}}
    for task, labels in (("image", image_labels(encoded.table)), ("presence", presence_labels(encoded.table))):
        for name, members in _by_dataset(encoded.table).items():
            truth = [sorted(set(labels[i]) & rows.keys()) for i in members]
            candidates = sorted(set().union(*truth)) if truth else []
            classes = np.stack([text[rows[label]] for label in candidates]) if candidates else np.zeros((0, 1))
            single = task == "image" and len(candidates) > 1 and all(len(labels[i]) == 1 for i in members)
            present = np.array([[label in t for label in candidates] for t in truth], bool)
            groups = statistics.group_index([encoded.table.images[i].group for i in members])

            ask = functools.partial(_ask, classes=classes, single=single, replicates=replicates, seed=seed)
            entry = ask(encoded.image[members], present, groups)
            if entry is None:
                continue
            if task == "image" and (whole := _per_group(encoded.image[members], present, groups)):
                found = ask(*whole, np.arange(len(whole[0])))
                entry["metrics"] |= {f"group_{key}": value for key, value in found["metrics"].items()} if found else {}
            details[task][name] = entry | {"images": len(members), "labels": candidates}
            flat |= {f"{task}/{name}/{key}": value for key, value in entry["metrics"].items()}
        flat |= _means(task, details[task])
    return flat, details


def image_labels(table) -> list[tuple[str, ...]]:
    """Labels of each image of the table."""
    return [tuple(example.image_labels) for example in table.images]


def presence_labels(table) -> list[tuple[str, ...]]:
    """Region labels annotated in each image of the table."""
    labels: list[set[str]] = [set() for _ in table.images]
    for index, label in zip(table.image_index, table.label, strict=True):
        labels[index].add(label)
    return [tuple(sorted(found)) for found in labels]


def single_label(logits: np.ndarray, target: np.ndarray, groups: np.ndarray, replicates: int, seed: int) -> dict:
    """Accuracy, balanced accuracy (mean over classes) and macro one-vs-rest AUROC of logits [images, classes]."""
    right = (logits.argmax(1) == target).astype(float)
    plain, balanced = statistics.tally(right, groups), statistics.tally(right, groups, target)
    one_hot = target[:, None] == np.arange(logits.shape[1])
    numbers = {
        "accuracy": statistics.estimate(plain),
        "balanced_accuracy": statistics.estimate(balanced),
        # One-vs-rest on the margin over the best other class, whose order no scale of the logits changes.
        "auroc": _mean(
            [sk.roc_auc_score(truth, _margin(logits, c)) for c, truth in enumerate(one_hot.T) if _mixed(truth, 1)]
        ),
    }
    intervals = {}
    if replicates:
        for name, item in (("accuracy", plain), ("balanced_accuracy", balanced)):
            intervals[name] = dataclasses.asdict(statistics.interval(item, replicates, seed))
    return {"kind": "single", "metrics": numbers, "intervals": intervals}


def multi_label(embedding: np.ndarray, classes: np.ndarray, present: np.ndarray) -> dict | None:
    """Macro AUROC and mean average precision over the classes seen in, and missing from, at least MIN_IMAGES images.

    Embeddings are [images, D] and [classes, D], `present` bool [images, classes]. None if no class qualifies.
    """
    ranked = [c for c in range(present.shape[-1]) if _mixed(present[:, c], MIN_IMAGES)] if present.ndim == 2 else []
    if not ranked:
        return None
    scores = embedding @ classes.T
    numbers = {
        "auroc": _mean([sk.roc_auc_score(present[:, c], scores[:, c]) for c in ranked]),
        "map": _mean([sk.average_precision_score(present[:, c], scores[:, c]) for c in ranked]),
    }
    return {"kind": "multi", "metrics": numbers, "intervals": {}}


def _by_dataset(table) -> dict[str, np.ndarray]:
    names = np.array([example.dataset for example in table.images], object)
    return {name: np.flatnonzero(names == name) for name in sorted(set(names))}


def _ask(
    embedding: np.ndarray,
    present: np.ndarray,
    groups: np.ndarray,
    *,
    classes: np.ndarray,
    single: bool,
    replicates: int,
    seed: int,
) -> dict | None:
    if single:
        return single_label(embedding @ classes.T, present.argmax(1), groups, replicates, seed)
    return multi_label(embedding, classes, present)


def _per_group(embedding: np.ndarray, present: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean embedding and labels of each group; None where groups are single images or their images differ in labels."""
    first = np.unique(groups, return_index=True)[1]
    if len(first) == len(groups) or (present != present[first][groups]).any():
        return None
    sums = np.zeros((len(first), embedding.shape[1]))
    np.add.at(sums, groups, embedding)
    return sums / np.bincount(groups)[:, None], present[first]


def _margin(logits: np.ndarray, column: int) -> np.ndarray:
    return logits[:, column] - np.delete(logits, column, 1).max(1)


def _mixed(truth: np.ndarray, least: int) -> bool:
    return bool(truth.sum() >= least and (~truth).sum() >= least)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _means(task: str, entries: dict) -> dict[str, float]:
    """Unweighted means over the data sets that have the metric."""
    found: dict[str, list[float]] = {}
    for entry in entries.values():
        for name, value in entry["metrics"].items():
            if not np.isnan(value):
                found.setdefault(name, []).append(value)
    return {f"{task}/{name}": _mean(values) for name, values in found.items()}
