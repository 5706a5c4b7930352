"""Answers about whole images and searches as arrays of `predictions.npz`, so that two runs can be paired on them.

Kept are what is asked of each data set with the cosines that answer (`zero_shot.Question`), and of each prompt kind
where its searches lead: the first places of the rankings by label, R@1 and mAP@R of the regions that ask.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from medp_clip_jax.evaluators.retrieval import Found, Gallery, Searches
from medp_clip_jax.evaluators.zero_shot import Question

KEPT = ("r1", "map_r")  # of searches by regions


@dataclasses.dataclass(frozen=True)
class Answers:
    """`images` str [images] names each image the same way in every run of the same data; `questions` by task and data
    set point to them. The gallery of `searches` points to the regions, None where there are none."""

    images: np.ndarray
    questions: dict[tuple[str, str], Question]
    searches: Searches | None


def pack(table, questions: Mapping[tuple[str, str], Question], searches: Searches) -> dict[str, np.ndarray]:
    """The arrays, from an `EvalTable` and what its evaluation answered."""
    arrays = {
        "images": np.array([f"{example.dataset}/{example.image_id}" for example in table.images], str),
        "questions": np.array(list(questions), str).reshape(-1, 2),
    }
    for number, question in enumerate(questions.values()):
        arrays |= {
            f"question/{number}/labels": np.array(question.labels, str),
            f"question/{number}/single": np.array(question.single),
            f"question/{number}/score": question.score.astype(np.float32),
            f"question/{number}/present": question.present,
            f"question/{number}/images": question.images.astype(np.int32),
            f"question/{number}/group": question.group.astype(np.int32),
        }
    if not searches.found:
        return arrays
    arrays |= {"search/rows": searches.gallery.rows, "search/asking": searches.gallery.asking}
    for kind, found in searches.found.items():
        arrays[f"search/{kind}/rankings"] = np.concatenate(found.rankings).astype(np.int32)
        arrays[f"search/{kind}/places"] = np.array([len(ranking) for ranking in found.rankings], np.int32)
        for direction, scores in found.scores.items():
            arrays |= {
                f"search/{kind}/{direction}/{name}": scores[name].astype(np.float32) for name in KEPT if name in scores
            }
    return arrays


def unpack(arrays: Mapping[str, np.ndarray], target: np.ndarray, group: np.ndarray) -> Answers | None:
    """What `pack` made, with the labels `target` and the patient groups `group` of all regions, both int [regions];
    None of a file without it. KeyError where an array is missing."""
    if "questions" not in arrays:
        return None
    questions = {}
    for number, (task, name) in enumerate(arrays["questions"].tolist()):
        fields = {f.name: arrays[f"question/{number}/{f.name}"] for f in dataclasses.fields(Question)}
        questions[task, name] = Question(
            **{**fields, "labels": fields["labels"].tolist(), "single": bool(fields["single"])}
        )
    if "search/rows" not in arrays:
        return Answers(arrays["images"], questions, None)
    rows = arrays["search/rows"]
    gallery = Gallery(rows, target[rows], group[rows], arrays["search/asking"])
    found: dict[str, Found] = {}
    for name in arrays:
        if name.startswith("search/") and name.endswith("/rankings"):
            kind = name.split("/")[1]
            ends = np.cumsum(arrays[f"search/{kind}/places"])[:-1]
            found[kind] = Found(np.split(arrays[name], ends), {})
    for name, value in arrays.items():
        if name.startswith("search/") and name.count("/") == 3:
            _, kind, direction, metric = name.split("/")
            found[kind].scores.setdefault(direction, {})[metric] = value.astype(np.float64)
    return Answers(arrays["images"], questions, Searches(gallery, found))
