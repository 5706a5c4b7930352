"""What a sloppy and a wrong prompt do to a region's embedding and to its answer, against those of the exact prompt.

* `jitter`: each edge of the box moves by a normal deviate of SHARE of its length; the mask is stretched and shifted
  with its box; the click goes to a random place inside. A good model hardly notices.
* `wrong`: box, mask or click as they are, at another place of the image (see `wrong_places`) whose box does not overlap
  that of the region. A model that looks where it is told answers differently.

Asked are up to REGIONS regions of IMAGES images, both drawn by seed: where each region is a pass of the tower, as with
Alpha-CLIP, that is the cost of 2 x 3 x REGIONS x IMAGES passes at most.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medp_clip_jax import prompt_kinds, simulate, statistics
from medp_clip_jax.eval_input import EvalTable, some_regions
from medp_clip_jax.evaluators import region_recognition, wrong_places
from medp_clip_jax.evaluators.context_retention import summary
from medp_clip_jax.evaluators.encode import Encoded, encode_table
from medp_clip_jax.evaluators.region_recognition import Regions
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.simulate import Target

IMAGES, REGIONS = 64, 16
View = Sequence[float]  # (x0, y0, x1, y1) in pixels of the image
SHARE = 0.1  # of a box's sides, the deviation of its edges
METRICS = ("micro", "within_image")
WHEN = ("before", "after")


def evaluate(
    model: Any,
    params: Any,
    corpus: Any,
    config: Any,
    encoded: Encoded,
    ontology: Ontology,
    text: np.ndarray,
    ids: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Asks a sample of the regions of `encoded` again, by those of its kinds that are exact; `text` float [C, D] has
    one row per label of `ids`.

    Returns flat metrics, `sensitivity/KIND/WAY/NAME` with NAME among `cosine_mean`, `cosine_p5`, `cosine_p50`,
    `cosine_p95` (to the embedding by the exact prompt) and `micro_before`, `micro_after`, `within_image_before`,
    `within_image_after` (accuracy on the same regions), and as details the size of the sample and intervals over
    patient groups. Both are empty without regions or exact kinds.
    """
    table, kinds = encoded.table, [kind for kind in prompt_kinds.EXACT if kind in encoded.regions]
    rows = sample(table, seed)
    if not len(rows) or not kinds:
        return {}, {}
    places = {int(row): wrong_places.elsewhere(table, int(row), seed) for row in rows}
    asked = {"jitter": rows, "wrong": np.array([row for row in rows if places[row] is not None], np.int64)}
    changes = {
        "jitter": lambda row, *prompt: jittered(np.random.default_rng((seed, int(rows[row]))), *prompt),
        "wrong": lambda row, *prompt: misplaced(places[int(asked["wrong"][row])], *prompt),
    }
    flat: dict[str, float] = {}
    details: dict[str, Any] = {
        "images": len(np.unique(table.image_index[rows])),
        "regions": {way: len(each) for way, each in asked.items()},
        "share": SHARE,
        "kinds": {kind: {} for kind in kinds},
    }
    regions = region_recognition.describe_regions(table, ids)
    for way, change in changes.items():
        again = encode_table(model, params, corpus, config, some_regions(table, asked[way]), kinds, change).regions
        for kind in kinds:
            before = encoded.regions[kind]
            cosines = (again[kind] * before[asked[way]]).sum(-1)
            spread = summary(cosines) if len(cosines) else dict.fromkeys(("mean", "p5", "p50", "p95"), math.nan)
            found = {f"cosine_{name}": value for name, value in spread.items()}
            after = before.copy()
            after[asked[way]] = again[kind]
            sums = [_tallies(each, asked[way], text, regions, ontology) for each in (before, after)]
            for name in METRICS:
                found |= {f"{name}_{when}": statistics.estimate(s[name]) for when, s in zip(WHEN, sums, strict=True)}
            flat |= {f"sensitivity/{kind}/{way}/{name}": value for name, value in found.items()}
            if replicates:
                cosine = statistics.tally(cosines, regions.group[asked[way]])
                details["kinds"][kind][way] = _intervals(cosine, *sums, replicates, seed)
    return flat, {"sensitivity": details}


def sample(table: EvalTable, seed: int) -> np.ndarray:
    """Rows of the regions that are asked again, ascending: up to REGIONS of each of IMAGES images that have regions."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(np.unique(table.image_index))[:IMAGES]
    rows = [rng.permutation(np.flatnonzero(table.image_index == image))[:REGIONS] for image in np.sort(images)]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *rows]))


def jittered(rng: np.random.Generator, kind: str, target: Target, view: View) -> tuple[Target, View]:
    """What is asked, and in which view, where the prompt is sloppy (an `eval_input.Change`)."""
    if kind == "point":
        x, y = simulate.inside_click(target, rng, central=False)
        return Target((x, y, x, y), None), view
    return target, carried(view, target.box, simulate.jitter_box(target.box, view, SHARE, rng))


def misplaced(place: np.ndarray, kind: str, target: Target, view: View) -> tuple[Target, View]:
    """What is asked, and in which view, where the prompt points at `place`, a box in [0, 1], instead."""
    x0, y0, x1, y1 = target.box
    left, top = (view[low] + (view[low + 2] - view[low]) * float(place[low]) for low in (0, 1))
    return target, carried(view, target.box, (left, top, left + x1 - x0, top + y1 - y0))


def carried(view: View, box: Sequence[float], to: Sequence[float]) -> View:
    """The view in which what `box` holds appears where `to` lies in `view`; all are (x0, y0, x1, y1) in pixels."""
    scale = [(box[low + 2] - box[low]) / (to[low + 2] - to[low]) for low in (0, 1)]
    return tuple(box[i % 2] + (view[i] - to[i % 2]) * scale[i % 2] for i in range(4))


def _tallies(
    embedding: np.ndarray, rows: np.ndarray, text: np.ndarray, regions: Regions, ontology: Ontology
) -> dict[str, statistics.Tally]:
    """Those of METRICS for the regions `rows`; all labels of their images compete within the image."""
    near = np.isin(regions.image, regions.image[rows])
    found = region_recognition.predict(embedding[near], text, region_recognition.select(regions, near), ontology)
    some = np.isin(np.flatnonzero(near), rows)
    values = {name: found.values[name][some] for name in METRICS}
    kept = dataclasses.replace(found, top=found.top[some], score=found.score[some], values=values)
    asked = np.zeros(len(near), bool)
    asked[rows] = True
    return region_recognition.tallies(kept, region_recognition.select(regions, asked))


def _intervals(
    cosine: statistics.Tally,
    before: dict[str, statistics.Tally],
    after: dict[str, statistics.Tally],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """The mean cosine, and per metric both accuracies and their paired difference, with 95 % intervals."""
    found = {"cosine": dataclasses.asdict(statistics.interval(cosine, replicates, seed))}
    for name in METRICS:
        pair = {
            when: statistics.interval(sums[name], replicates, seed)
            for when, sums in zip(WHEN, (before, after), strict=True)
        }
        pair["difference"] = statistics.difference(after[name], before[name], replicates, seed)
        found[name] = {when: dataclasses.asdict(interval) for when, interval in pair.items()}
    return found
