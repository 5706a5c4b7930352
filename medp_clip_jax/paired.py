"""Paired differences between two runs in what they say of whole images, and in what their searches find.

Both are read from `predictions.npz`. What is true of an image or region, and which patient it is of, is read from the
first run. What cannot be paired is left out, with a line that says so.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from medp_clip_jax import statistics
from medp_clip_jax.evaluators import retrieval, zero_shot
from medp_clip_jax.evaluators.predictions import Saved
from medp_clip_jax.evaluators.saved_answers import KEPT
from medp_clip_jax.evaluators.zero_shot import Question

OLD = "results of an older version do not have them; evaluate again"

Numbers = dict[str, dict[str, float]]  # {metric: {"first", "second", "estimate", "low", "high"}}


def lead(first: statistics.Measure, second: statistics.Measure, replicates: int, seed: int) -> dict[str, float]:
    """Both numbers, how far the first is ahead, and the bounds of that over resampled patient groups."""
    return {
        "first": statistics.estimate(first),
        "second": statistics.estimate(second),
        **dataclasses.asdict(statistics.difference(first, second, replicates, seed)),
    }


def images(first: Saved, second: Saved, replicates: int = 1000, seed: int = 0) -> tuple[dict[str, Numbers], list[str]]:
    """`{"image" | "presence": {metric: numbers}}`, the means over data sets of `zero_shot`, on the images that both
    have; and a line for each data set that is left out."""
    mine, theirs = first.answers, second.answers
    if mine is None or theirs is None:
        return {}, [f"note: answers about images: {OLD}"]
    pairs: dict[str, list[tuple[Question, Question]]] = {}
    notes = []
    for key, question in mine.questions.items():
        if key not in theirs.questions:
            continue
        other = theirs.questions[key]
        names, others = mine.images[question.images], theirs.images[other.images]
        _, rows, columns = np.intersect1d(names, others, return_indices=True)
        if question.labels != other.labels or question.single != other.single or not len(rows):
            notes.append(f"note: {'/'.join(key)}: the runs were not asked for the same labels of the same images")
            continue
        pairs.setdefault(key[0], []).append(_pair(question, rows, other.score[columns]))
    return {task: found for task, each in pairs.items() if (found := _means(task, each, replicates, seed))}, notes


def searches(
    first: Saved, second: Saved, pairs: Sequence[tuple[str, str]], replicates: int = 1000, seed: int = 0
) -> tuple[dict[str, Numbers], list[str]]:
    """`{"mask text_to_region": {"r1" | "map_r": numbers}}` for pairs of prompt kinds, where both runs searched the same
    regions; and a line where they did not."""
    if first.answers is None or second.answers is None:
        return {}, [f"note: searches: {OLD}"]
    mine, theirs = _by_name(first), _by_name(second)
    if mine is None or theirs is None:
        return {}, []
    same = np.array_equal(mine.gallery.asking, theirs.gallery.asking)
    if not same or not np.array_equal(first.keys[mine.gallery.rows], second.keys[theirs.gallery.rows]):
        return {}, ["note: searches: the runs did not search the same regions: evaluate both on the same split"]
    result: dict[str, Numbers] = {}
    for kind, other in pairs:
        title = kind if kind == other else f"{kind} - {other}"
        ahead = retrieval.measures(mine.found[kind], mine.gallery)
        behind = retrieval.measures(theirs.found[other], mine.gallery)
        for (direction, name), measure in ahead.items():
            if name in KEPT:
                numbers = lead(measure, behind[direction, name], replicates, seed)
                result.setdefault(f"{title} {direction}", {})[name] = numbers
    return result, []


def _pair(question: Question, rows: np.ndarray, score: np.ndarray) -> tuple[Question, Question]:
    """A question on some of its images, as one run answered it and as another one did with the cosines `score`."""
    _, group = np.unique(question.group[rows], return_inverse=True)
    one = dataclasses.replace(
        question,
        score=question.score[rows],
        present=question.present[rows],
        images=question.images[rows],
        group=group.reshape(-1),
    )
    return one, dataclasses.replace(one, score=score)


def _means(task: str, pairs: Sequence[tuple[Question, Question]], replicates: int, seed: int) -> Numbers:
    """Each metric's mean over the data sets that have it; patients of all data sets are drawn together."""
    counts = [int(one.group.max()) + 1 for one, _ in pairs]
    starts, total = np.cumsum([0, *counts]), sum(counts)
    sides: tuple[dict[str, list[statistics.Measure]], ...] = ({}, {})
    for number, pair in enumerate(pairs):
        place = np.arange(starts[number], starts[number + 1])
        for side, question in zip(sides, pair, strict=True):
            found = zero_shot.measures(question)
            if task == "image" and found and (whole := zero_shot.per_group(question)):
                found |= {f"group_{name}": item for name, item in zero_shot.measures(whole).items()}
            for name, item in found.items():
                side.setdefault(name, []).append(statistics.Part(item, place, total))
    first, second = sides
    return {name: lead(statistics.Mean(first[name]), statistics.Mean(second[name]), replicates, seed) for name in first}


def _by_name(saved: Saved) -> retrieval.Searches | None:
    """The searches with labels numbered by name, as two banks may number them differently."""
    searched = saved.answers.searches if saved.answers else None
    if searched is None:
        return None
    names = np.array(saved.regions.ids, str)
    before = np.unique(searched.gallery.label)
    order = np.argsort(names[before])
    label = np.argsort(order)[np.searchsorted(before, searched.gallery.label)]
    found = {
        kind: dataclasses.replace(each, rankings=[each.rankings[row] for row in order])
        for kind, each in searched.found.items()
    }
    return retrieval.Searches(dataclasses.replace(searched.gallery, label=label), found)
