"""Do prompts change the answer without losing the image? Sensitivity and retention of the region embeddings.

* An empty prompt must give the global embedding (an invariant, measured here on the checkpoint itself).
* Different regions of one image must differ: Alpha-CLIP's known failure is a cosine above 0.97 between them.
* Mask, box and click of one region should agree.
* How much of the image-level accuracy is kept when a region embedding answers in place of the global one.
* Whether a region embedding still knows what the image is: its modality and its body part, by their texts; and where
  in the body the region is: its side, and the organ that a finding lies in (`region_questions.py`).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medp_clip_jax import prompt_kinds, sentences, statistics
from medp_clip_jax.evaluators.encode import Encoded
from medp_clip_jax.records import RegionExample

PAIR_REGIONS = 16  # regions of an image that are compared with each other, spread evenly over its list


class RegionQuestion(NamedTuple):
    """What regions are asked: sentences, which of them is true of each region, int [regions], -1 where none is known,
    and in which contest each sentence is, int [sentences]: a region chooses among those of its true one's."""

    lines: list[str]
    true: np.ndarray
    contest: np.ndarray

    @classmethod
    def of(cls, told: Sequence[tuple[str, str] | None]) -> "RegionQuestion":
        """From the true sentence of each region (or of whatever else `true` is to be of) and the contest that it is in,
        None where none is known."""
        lines = sorted({each for each in told if each})
        row = {each: number for number, each in enumerate(lines)}
        true = np.array([row[each] if each else -1 for each in told], np.int64)
        contests = np.unique([contest for _, contest in lines], return_inverse=True)[1]
        return cls([line for line, _ in lines], true, contests)


def questions(images: Sequence[RegionExample], index: Sequence[int]) -> dict[str, RegionQuestion]:
    """What regions can be asked of their image, that of region i being `images[index[i]]`: `modality` and `body_part`,
    each only where `images` have two answers at least, all of which are candidates."""
    told = {
        "modality": [(sentences.scan(image.modality), "") if image.modality else None for image in images],
        "body_part": [
            (f"a medical image of {sentences.body_part(image.anatomy)}", "") if image.anatomy else None
            for image in images
        ],
    }
    found = {name: RegionQuestion.of(each) for name, each in told.items()}
    of_regions = {name: each._replace(true=each.true[np.asarray(index, np.int64)]) for name, each in found.items()}
    return {name: question for name, question in of_regions.items() if len(question.lines) > 1}


def evaluate(
    encoded: Encoded,
    text: np.ndarray,
    ids: Sequence[str],
    asked: Mapping[str, tuple[np.ndarray, RegionQuestion]] | None = None,
    replicates: int = 0,
    seed: int = 0,
) -> tuple[dict[str, float], dict]:
    """Measures `encoded` against text embeddings float [C, D] of the labels `ids`; `asked` are the embeddings of the
    sentences of questions, float [sentences, D] each, and these questions.

    Returns flat metrics (`context/mask/cosine_between_regions_p50`, ...) and, for the report, histograms of the cosines
    between regions of one image per kind; with `replicates` also, as `context`, intervals over patient groups of mean
    cosines, of accuracies and of what is kept, by the metrics' names without `context/`.
    """
    flat: dict[str, float] = {}
    details: dict = {"histograms": {}, "context": {}}
    if encoded.empty is not None and len(encoded.image):
        flat["context/empty_prompt_max_difference"] = float(np.abs(encoded.empty - encoded.image).max())
    rows = {label: row for row, label in enumerate(ids)}
    target = np.array([rows[label] for label in encoded.table.label], np.int64)
    index, group = np.asarray(encoded.table.image_index), _groups(encoded)
    measured: dict[str, statistics.Tally] = {}
    for kind, embedding in encoded.regions.items():
        if not len(embedding):
            continue
        measured |= {
            f"{kind}/{name}_accuracy": answered(encoded, embedding, *each) for name, each in (asked or {}).items()
        }
        if kind == "none":
            continue
        cosines, of_image = between_regions(embedding, index, target)
        if len(cosines):
            flat |= {f"context/{kind}/cosine_between_regions_{name}": value for name, value in summary(cosines).items()}
            measured[f"{kind}/cosine_between_regions_mean"] = statistics.tally(cosines, group[of_image])
            count, edges = np.histogram(cosines, bins=40, range=(-1.0, 1.0))
            details["histograms"][kind] = {"count": count.tolist(), "edges": edges.tolist()}
        kept = retained(encoded, embedding, text, rows)
        flat |= {f"context/{kind}/{name}": value for name, value in retention(kept).items()}
        if replicates:
            found = kept_intervals(kept, group, replicates, seed)
            details["context"] |= {f"{kind}/{name}": interval for name, interval in found.items()}
    prompts = [kind for kind in prompt_kinds.EXACT if kind in encoded.regions]
    for first, second in itertools.combinations(prompts, 2):
        cosines = (encoded.regions[first] * encoded.regions[second]).sum(-1)
        if len(cosines):
            flat[f"context/{first}_{second}/cosine_same_region"] = float(cosines.mean())
            measured[f"{first}_{second}/cosine_same_region"] = statistics.tally(cosines, group[index])
    # The mean cosines are those of the summaries above.
    flat |= {f"context/{name}": statistics.estimate(item) for name, item in measured.items() if "cosine" not in name}
    if replicates:
        details["context"] |= {
            name: dataclasses.asdict(statistics.interval(item, replicates, seed)) for name, item in measured.items()
        }
    return flat, details


def between_regions(embedding: np.ndarray, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the pairs of differently labelled regions of one image, float [pairs], and that image, int [pairs].

    At most PAIR_REGIONS regions of an image take part. `embedding` is L2-normalised [regions, D], `image` and `label`
    are int [regions]. Regions of one label should be alike, and would hide whether a place changes the embedding.
    """
    order = np.argsort(image, kind="stable")
    starts = np.flatnonzero(np.diff(image[order], prepend=-1))
    cosines, of_image = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for rows in np.split(order, starts[1:]):
        if len(rows) > PAIR_REGIONS:
            rows = rows[np.linspace(0, len(rows) - 1, PAIR_REGIONS).round().astype(int)]
        some, first, second = embedding[rows], *np.triu_indices(len(rows), 1)
        differ = label[rows[first]] != label[rows[second]]
        cosines.append((some @ some.T)[first[differ], second[differ]])
        of_image.append(image[rows[first[differ]]])
    return np.concatenate(cosines), np.concatenate(of_image)


def retained(
    encoded: Encoded, embedding: np.ndarray, text: np.ndarray, rows: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether images are named by their region embeddings [regions, D], and by the global ones: the images, int
    [counted], and how right both are, float in [0, 1], [counted] each; `rows` are those of the labels in `text`.

    Counts images with regions, of data sets whose images have exactly one label and at least two labels in all. Each
    image weighs the same, its regions share that weight.
    """
    images, index = encoded.table.images, np.asarray(encoded.table.image_index)
    counted, with_region, without = [], [], []
    for dataset in sorted({example.dataset for example in images}):
        members = [i for i, e in enumerate(images) if e.dataset == dataset]
        if not all(len(images[i].image_labels) == 1 and images[i].image_labels[0] in rows for i in members):
            continue
        labels = sorted({images[i].image_labels[0] for i in members})
        if len(labels) < 2:
            continue
        classes = text[[rows[label] for label in labels]]
        for i in np.intersect1d(members, index):
            target = labels.index(images[i].image_labels[0])
            counted.append(i)
            with_region.append(((embedding[index == i] @ classes.T).argmax(1) == target).mean())
            without.append(float((encoded.image[i] @ classes.T).argmax() == target))
    return np.array(counted, np.int64), np.array(with_region), np.array(without)


def retention(kept: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, float]:
    """Image-label accuracy with the region embedding and with the global one, of what is `retained`, and the ratio of
    the two, `image_accuracy_kept`; empty where no image is right."""
    _, with_region, without = kept
    if not without.any():
        return {}
    return {
        "image_accuracy": float(np.mean(with_region)),
        "image_accuracy_global": float(np.mean(without)),
        "image_accuracy_kept": float(np.mean(with_region) / np.mean(without)),
    }


def kept_intervals(
    kept: tuple[np.ndarray, np.ndarray, np.ndarray], group: np.ndarray, replicates: int, seed: int
) -> dict[str, dict[str, float]]:
    """Intervals of the numbers of `retention` from what is `retained`, over the patient groups int [images]; those of
    the ratio resample both accuracies together."""
    images, *values = kept
    if not values[1].any():
        return {}
    tallies = [statistics.tally(value, group[images]) for value in values]
    names = ("image_accuracy", "image_accuracy_global")
    found = {
        name: dataclasses.asdict(statistics.interval(item, replicates, seed))
        for name, item in zip(names, tallies, strict=True)
    }
    low = high = np.nan
    if len(np.unique(group[images])) > 1:
        # Groups of nothing but wrong answers leave no ratio.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.divide(*statistics.bootstrap(tallies, replicates, seed).T)
        low, high = np.nanpercentile(np.where(np.isfinite(ratios), ratios, np.nan), [2.5, 97.5]).tolist()
    estimate = float(np.mean(values[0]) / np.mean(values[1]))
    return found | {"image_accuracy_kept": {"estimate": estimate, "low": low, "high": high}}


def answered(
    encoded: Encoded, embedding: np.ndarray, classes: np.ndarray, question: RegionQuestion
) -> statistics.Tally:
    """How often region embeddings [regions, D] choose the true one of `classes`, [sentences, D], among those of its
    contest: mean over the regions of an image with one answer, then its images, then answers."""
    known, true = question.true >= 0, question.true
    scores = np.where(question.contest == question.contest[true, None], embedding @ classes.T, -np.inf)
    right = (scores.argmax(1) == true)[known]
    pairs, place = np.unique(np.stack([encoded.table.image_index, true], 1)[known], axis=0, return_inverse=True)
    place = place.reshape(-1)
    each = np.bincount(place, right, len(pairs)) / np.bincount(place, minlength=len(pairs))
    return statistics.tally(each, _groups(encoded)[pairs[:, 0]], pairs[:, 1])


def _groups(encoded: Encoded) -> np.ndarray:
    """The patient group of each image, int [images]."""
    images = encoded.table.images
    return statistics.group_index([image.dataset for image in images], [image.group for image in images])


def summary(cosines: np.ndarray) -> dict[str, float]:
    """Mean and percentiles of cosines float [pairs], which may not be empty."""
    p5, p50, p95 = np.percentile(cosines, [5, 50, 95])
    return {"mean": float(cosines.mean()), "p5": float(p5), "p50": float(p50), "p95": float(p95)}
