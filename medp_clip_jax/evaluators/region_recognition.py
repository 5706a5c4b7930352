"""Does the model name a region? Top-1 over the label bank, per prompt kind, with the crop and no-prompt rows beside it.

*Strict*: every label of the bank is a candidate. *Hierarchical*: ancestors of the true label are not candidates.
*Within-image*: candidates are the labels annotated in that image, images with at least two of them, and every label of
an image weighs the same, so that one embedding for the whole image scores exactly one over the number of its labels.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from medp_clip_jax import prompt_kinds, statistics
from medp_clip_jax.evaluators.encode import Encoded
from medp_clip_jax.ontology import Ontology

MIN_GROUPS = 5  # labels seen in fewer patients are listed, not averaged
PATCH = 16.0**2 / 224.0**2  # share of the canvas that one 16-px patch covers at 224 px
STRATA = ("under 1 patch", "1 to 4 patches", "over 4 patches")
METRICS = ("micro", "micro_hierarchical", "macro", "macro_hierarchical", "within_image", "within_dataset", "top5")
INTERVALS = ("micro", "macro", "within_image", "twins", "top5")
CHUNK = 4096  # regions scored at a time


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What one prompt kind predicts for each region, all [regions]-long.

    `top` int [regions, 5] holds rows of the bank, best first, and `score` float32 [regions, 5] their cosines. `values`
    maps a metric's name to 0 or 1 per region, nan where it does not apply (one candidate only, target not a candidate).
    """

    top: np.ndarray
    score: np.ndarray
    values: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Regions:
    """The table's regions in the form the metrics need, independent of any model; [regions] unless said otherwise."""

    ids: tuple[str, ...]  # [C] the bank
    target: np.ndarray  # row of the true label in the bank
    group: np.ndarray  # patient index
    image: np.ndarray  # image index
    dataset: np.ndarray  # str
    modality: np.ndarray  # str
    stratum: np.ndarray  # index into STRATA
    averaged: np.ndarray  # bool [C], labels with at least MIN_GROUPS groups
    groups_per_label: np.ndarray  # int [C]


def describe_regions(table, ids: Sequence[str]) -> Regions:
    """Reads `Regions` from an `EvalTable`; every label of the table must be in the bank `ids`."""
    rows = {label: row for row, label in enumerate(ids)}
    images = [table.images[i] for i in table.image_index]
    target = np.array([rows[label] for label in table.label], np.int64)
    group = statistics.group_index([e.dataset for e in images], [e.group for e in images])
    pairs = np.unique(np.stack([target, group], 1), axis=0) if len(target) else np.zeros((0, 2), np.int64)
    groups_per_label = np.bincount(pairs[:, 0], minlength=len(ids))
    # Of the square canvas, in patches: an elongated image leaves part of the canvas empty.
    share = np.array([e.width * e.height / max(e.width, e.height) ** 2 for e in images]) * table.area_fraction
    return Regions(
        ids=tuple(ids),
        target=target,
        group=group,
        image=np.asarray(table.image_index, np.int64),
        dataset=np.array([e.dataset for e in images], object),
        modality=np.array([e.modality or "unknown" for e in images], object),
        stratum=np.digitize(share / PATCH, [1.0, 4.0]),
        averaged=groups_per_label >= MIN_GROUPS,
        groups_per_label=groups_per_label,
    )


def predict(
    embedding: np.ndarray, text: np.ndarray, regions: Regions, ontology: Ontology, twins: Sequence[Sequence[str]] = ()
) -> Predictions:
    """Scores region embeddings [regions, D] against the bank's text embeddings [C, D], both L2-normalised."""
    candidates = _candidates(regions, ontology, twins)
    best = min(5, len(regions.ids))
    top, score = np.zeros((len(regions.target), best), np.int64), np.zeros((len(regions.target), best), np.float32)
    values = {name: np.full(len(regions.target), np.nan) for name in (*METRICS, *candidates)}
    for start in range(0, len(regions.target), CHUNK):
        rows = slice(start, start + CHUNK)
        target, logits = regions.target[rows], embedding[rows].astype(np.float32) @ text.T.astype(np.float32)
        # Stable sort and argmax, not a count of better scores: a collapsed model's ties must not all count as right.
        top[rows] = np.argsort(-logits, axis=1, kind="stable")[:, :best]
        score[rows] = np.take_along_axis(logits, top[rows], 1)
        right = top[rows] == target[:, None]
        values["micro"][rows] = values["macro"][rows] = right[:, 0]
        values["top5"][rows] = right.any(1)
        for name, (table, key) in candidates.items():
            allowed = table[key[rows]]
            choice = np.where(allowed, logits, -np.inf).argmax(1)
            applies = allowed[np.arange(len(target)), target] & (allowed.sum(1) > 1)
            values[name][rows] = np.where(applies, choice == target, np.nan)
    values["macro_hierarchical"] = values["micro_hierarchical"]
    if twins:
        values["twins_bank"] = np.where(np.isnan(values["twins"]), np.nan, values["micro"])
    return Predictions(top, score, values)


def _candidates(regions: Regions, ontology: Ontology, twins) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Metric -> (bool [keys, C] candidates, int [regions] key of each region)."""
    rows = {label: row for row, label in enumerate(regions.ids)}
    hierarchical = np.ones((len(rows), len(rows)), bool)
    for label, row in rows.items():
        for ancestor in ontology.ancestors(label) & rows.keys():
            hierarchical[row, rows[ancestor]] = False
    result = {"micro_hierarchical": (hierarchical, regions.target)}
    _, dataset = np.unique(regions.dataset.astype(str), return_inverse=True)
    for name, key in (("within_image", regions.image), ("within_dataset", dataset)):
        allowed = np.zeros((int(key.max(initial=-1)) + 1, len(rows)), bool)
        allowed[key, regions.target] = True
        result[name] = (allowed, key)
    if twins:
        groups = np.zeros((len(twins) + 1, len(rows)), bool)  # the last row is for labels without a twin
        key = np.full(len(rows), len(twins), np.int64)
        for index, group in enumerate(twins):
            members = [rows[label] for label in group if label in rows]
            groups[index, members] = True
            key[members] = index
        result["twins"] = (groups, key[regions.target])
    return result


def tallies(predictions: Predictions, regions: Regions) -> dict[str, statistics.Tally]:
    """Per metric, sums over groups and columns: their mean ratio is the metric, resampled groups its interval."""
    result = {}
    for name, values in predictions.values.items():
        column = np.zeros(len(values), np.int64)
        if name.startswith("macro"):
            column = np.where(regions.averaged[regions.target], regions.target, -1)
        elif name.startswith("twins"):
            column = regions.target
        if name == "within_image":
            result[name] = _within_image(values, regions)
        else:
            result[name] = statistics.tally(
                np.nan_to_num(values), regions.group, np.where(np.isnan(values), -1, column)
            )
    return result


def _within_image(values: np.ndarray, regions: Regions) -> statistics.Tally:
    """Mean over a label's regions, then over the labels of the image; one item per image."""
    kept = ~np.isnan(values)
    pairs, inverse, count = np.unique(
        np.stack([regions.image[kept], regions.target[kept]], 1), axis=0, return_inverse=True, return_counts=True
    )
    inverse = inverse.reshape(-1)
    per_label = np.bincount(inverse, values[kept], minlength=len(pairs)) / np.maximum(count, 1)
    group_of_image = np.zeros(int(regions.image.max(initial=-1)) + 1, np.int64)
    group_of_image[regions.image] = regions.group
    images, first, labels = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    per_image = np.bincount(first.reshape(-1), per_label, minlength=len(images)) / np.maximum(labels, 1)
    item = statistics.tally(per_image, group_of_image[images])
    missing = int(regions.group.max(initial=-1)) + 1 - len(item.numerator)  # keep every group, for pairing
    padding = ((0, missing), (0, 0))
    return statistics.Tally(np.pad(item.numerator, padding), np.pad(item.denominator, padding))


def select(regions: Regions, mask: np.ndarray) -> Regions:
    """The regions where `mask` is true; which labels are averaged stays as in the whole table."""
    fields = ("target", "group", "image", "dataset", "modality", "stratum")
    return dataclasses.replace(regions, **{name: getattr(regions, name)[mask] for name in fields})


def breakdown(
    predictions: Predictions,
    regions: Regions,
    seen: Collection[str] | None = None,
    replicates: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """`{"dataset" | "modality" | "area": {value: {metric: number, "regions": count}}}` for one prompt kind.

    With the labels `seen` in training there is one more, "training", that tells them from the others. Strata of area
    have "intervals" of metrics, where `replicates` are drawn.
    """
    keys = {"dataset": regions.dataset, "modality": regions.modality, "area": np.array(STRATA, object)[regions.stratum]}
    if seen is not None:
        known = np.array([label in seen for label in regions.ids])
        keys["training"] = np.where(known[regions.target], "label seen in training", "label not seen").astype(object)
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for axis, key in keys.items():
        names = [name for name in STRATA if name in key] if axis == "area" else sorted(set(key))
        result[axis] = {}
        for name in names:
            mask = key == name
            part = dataclasses.replace(
                predictions,
                top=predictions.top[mask],
                score=predictions.score[mask],
                values={metric: values[mask] for metric, values in predictions.values.items()},
            )
            sums = tallies(part, select(regions, mask))
            numbers = {metric: statistics.estimate(item) for metric, item in sums.items()}
            result[axis][name] = {"regions": int(mask.sum()), **numbers}
            if axis == "area" and replicates:
                result[axis][name]["intervals"] = intervals(sums, replicates, seed)
    return result


def intervals(sums: Mapping[str, statistics.Tally], replicates: int, seed: int) -> dict[str, dict[str, float]]:
    """`{metric: {"estimate", "low", "high"}}` over patient groups, of the metrics in INTERVALS that there are."""
    return {
        name: dataclasses.asdict(statistics.interval(sums[name], replicates, seed))
        for name in INTERVALS
        if replicates and name in sums
    }


def label_accuracy(predictions: Predictions, regions: Regions) -> dict[str, dict[str, float]]:
    """`{label: {"accuracy", "regions", "groups", "averaged"}}`, strict top-1, for the labels that occur."""
    count = np.bincount(regions.target, minlength=len(regions.ids))
    right = np.bincount(regions.target, predictions.values["micro"], minlength=len(regions.ids))
    return {
        regions.ids[row]: {
            "accuracy": float(right[row] / count[row]),
            "regions": int(count[row]),
            "groups": int(regions.groups_per_label[row]),
            "averaged": bool(regions.averaged[row]),
        }
        for row in np.flatnonzero(count)
    }


def evaluate(
    encoded: Encoded,
    ontology: Ontology,
    text: np.ndarray,
    ids: Sequence[str],
    twins: Sequence[Sequence[str]] = (),
    replicates: int = 1000,
    seed: int = 0,
    seen: Collection[str] | None = None,
) -> tuple[dict[str, float], dict, dict[str, Predictions]]:
    """Every number of this page for the regions of `encoded`.

    `text` is float [C, D], one row per label of `ids`; `twins` are groups of labels that only context tells apart,
    `seen` the labels of the training where known.
    Returns flat metrics (`region/mask/macro`), the details for the report (breakdowns, labels, intervals, paired
    differences between kinds), and the predictions per kind. Empty for a table without regions.
    """
    regions = describe_regions(encoded.table, ids)
    metrics: dict[str, float] = {}
    details: dict = {"kinds": {}, "differences": {}}
    predictions: dict[str, Predictions] = {}
    if not len(regions.target):
        return metrics, details, predictions
    twins = [group for group in twins if len(set(group) & set(ids)) > 1]
    sums = {}
    for kind, embedding in encoded.regions.items():
        predictions[kind] = predict(embedding, text, regions, ontology, twins)
        sums[kind] = tallies(predictions[kind], regions)
        metrics |= {f"region/{kind}/{name}": statistics.estimate(item) for name, item in sums[kind].items()}
        details["kinds"][kind] = {
            "intervals": intervals(sums[kind], replicates, seed),
            "labels": label_accuracy(predictions[kind], regions),
            **breakdown(predictions[kind], regions, seen, replicates, seed),
        }
    if replicates:
        details["differences"] = kind_differences(sums, replicates, seed)
    return metrics, details, predictions


def kind_differences(sums: dict[str, dict[str, statistics.Tally]], replicates: int, seed: int) -> dict:
    """Paired intervals of each prompt kind against the reference rows: `{"mask - crop": {"macro": ...}}`."""
    references = [kind for kind in prompt_kinds.REFERENCES if kind in sums]
    return {
        f"{kind} - {reference}": {
            name: dataclasses.asdict(statistics.difference(sums[kind][name], sums[reference][name], replicates, seed))
            for name in ("micro", "macro", "within_image")
        }
        for kind in sums
        if kind not in prompt_kinds.REFERENCES
        for reference in references
    }
