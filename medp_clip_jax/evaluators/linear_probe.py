"""What a linear classifier finds in the embeddings, from all training examples and from a few of each label.

    python -m medp_clip_jax.evaluators.linear_probe --checkpoint=RUN_OR_RELEASE --data=CORPUS [--kinds=mask,box]

prints a table and writes `linear_probe.json`. CLIP's protocol (arXiv 2103.00020, A.3): logistic regression by L-BFGS on
frozen embeddings of the train split, its strength C chosen on `val`, accuracy on `test`; regions by each kind of
prompt, and images of every data set in which each has exactly one label. Few shots are drawn from distinct patients
while there are enough, several times. *Zero-shot* is the choice among the same labels by their texts.
"""

import dataclasses
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from absl import flags, logging
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from medp_clip_jax import prompt_kinds, results, statistics
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.evaluate import define_flags, from_flags, sentences_of
from medp_clip_jax.evaluators import prompt_record
from medp_clip_jax.evaluators.encode import Encoded, encode_corpus, encode_labels

FLAGS = flags.FLAGS
FILE = "linear_probe.json"
SPLITS = ("train", "val", "test")
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)  # C of the logistic regression; embeddings have length 1
SHOTS = (1, 2, 4, 8, 16)
DRAWS = 5
MOST = 20_000  # training examples of one fit
ASKED = (*prompt_kinds.EXACT, *prompt_kinds.REFERENCES)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Embeddings float [items, D], their labels and patient groups, both [items]."""

    embedding: np.ndarray
    label: np.ndarray
    group: np.ndarray

    def take(self, which: np.ndarray) -> "Examples":
        """Some of them, by index or as a bool mask."""
        return Examples(self.embedding[which], self.label[which], self.group[which])


def evaluate(
    encoded: dict[str, Encoded],
    text: np.ndarray,
    ids: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
    shots: Sequence[int] = SHOTS,
) -> dict[str, Any]:
    """Probes the splits train, val and test of `encoded`; `text` float [C, D] embeds the labels `ids`.

    Returns, as plain values for JSON, under `regions` per prompt kind and under `images` per data set: the number of
    `labels`, those that train and test share, `zero_shot` and `full` with intervals of micro and macro accuracy over
    patient groups, and per number of `shots` mean and standard deviation over draws. Empty without two such labels.
    """
    tables = [encoded[split] for split in SPLITS]
    found: dict[str, Any] = {"regions": {}, "images": {}}
    for kind in encoded["test"].regions:
        found["regions"][kind] = probe(*(regions(each, kind) for each in tables), text, ids, replicates, seed, shots)
    for name in sorted({image.dataset for image in encoded["test"].table.images}):
        parts = [images(each, name) for each in tables]
        if all(part is not None for part in parts):
            found["images"][name] = probe(*parts, text, ids, replicates, seed, shots)
    return {part: {name: numbers for name, numbers in each.items() if numbers} for part, each in found.items()}


def regions(encoded: Encoded, kind: str) -> Examples:
    """All regions of a split, asked by `kind`."""
    table = encoded.table
    owners = [table.images[row] for row in table.image_index]
    return Examples(encoded.regions[kind], np.array(table.label, object), _groups(owners))


def images(encoded: Encoded, dataset: str) -> Examples | None:
    """The images of one data set by their global embedding; None where one of them has no label, or several."""
    rows = [row for row, image in enumerate(encoded.table.images) if image.dataset == dataset]
    owners = [encoded.table.images[row] for row in rows]
    if not owners or any(len(image.image_labels) != 1 for image in owners):
        return None
    labels = np.array([image.image_labels[0] for image in owners], object)
    return Examples(encoded.image[rows], labels, _groups(owners))


def probe(
    train: Examples,
    val: Examples,
    test: Examples,
    text: np.ndarray,
    ids: Sequence[str],
    replicates: int,
    seed: int,
    shots: Sequence[int],
) -> dict[str, Any]:
    """One comparison as in `evaluate`; empty where train and test share fewer than two labels."""
    shared = sorted(set(train.label) & set(test.label))
    if len(shared) < 2:
        return {}
    train, val, test = (part.take(np.isin(part.label, shared)) for part in (train, val, test))
    rng = np.random.default_rng(seed)
    target = np.searchsorted(shared, test.label)

    def measured(answers: np.ndarray) -> tuple[statistics.Tally, statistics.Tally]:
        right = (answers == test.label).astype(float)
        return statistics.tally(right, test.group), statistics.tally(right, test.group, target)

    def figures(answers: np.ndarray) -> dict[str, Any]:
        return {
            name: {key: statistics.rounded(x) for key, x in dataclasses.asdict(interval).items()}
            for name, item in zip(("micro", "macro"), measured(answers), strict=True)
            for interval in [statistics.interval(item, replicates, seed)]
        }

    bank = np.stack([text[list(ids).index(label)] for label in shared])
    chosen, model = fit(train.take(rng.permutation(len(train.label))[:MOST]), val)
    found = {
        "labels": len(shared),
        "train": len(train.label),
        "test": len(test.label),
        "zero_shot": figures(np.array(shared, object)[(test.embedding @ bank.T).argmax(1)]),
        "full": {"C": chosen, **figures(model.predict(test.embedding))},
        "shots": {},
    }
    for count in shots:
        scores, strengths = [], STRENGTHS
        for _ in range(DRAWS):
            chosen, model = fit(train.take(draw(train, count, rng)), val, strengths)
            strengths = (chosen,)  # what the first draw chose
            scores.append([statistics.estimate(item) for item in measured(model.predict(test.embedding))])
        means, deviations = np.mean(scores, 0), np.std(scores, 0, ddof=1)
        found["shots"][str(count)] = {
            name: {"mean": statistics.rounded(mean), "deviation": statistics.rounded(deviation)}
            for name, mean, deviation in zip(("micro", "macro"), means, deviations, strict=True)
        }
    return found


def fit(train: Examples, val: Examples, strengths: Sequence[float] = STRENGTHS) -> tuple[float, LogisticRegression]:
    """The logistic regression with the C that names the most of `val`, the mean over its labels; the weakest of equals,
    and a middle one where `val` has none of the labels."""
    fitted = {}
    for strength in strengths if len(val.label) else strengths[len(strengths) // 2 :][:1]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # CLIP stops at a thousand iterations too
            fitted[strength] = LogisticRegression(C=strength, max_iter=1000).fit(train.embedding, train.label)

    def score(strength: float) -> float:
        right = fitted[strength].predict(val.embedding) == val.label
        return float(np.mean([right[val.label == label].mean() for label in set(val.label)]))

    best = max(fitted, key=score) if len(val.label) else next(iter(fitted))
    return best, fitted[best]


def draw(train: Examples, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of up to `count` examples of each label, one per patient while there are enough patients."""
    chosen: list[int] = []
    for label in sorted(set(train.label)):
        rows = rng.permutation(np.flatnonzero(train.label == label))
        _, first = np.unique(train.group[rows], return_index=True)
        first = np.sort(first)  # in the order drawn
        rest = np.setdiff1d(np.arange(len(rows)), first)
        chosen += rows[np.concatenate([first, rest])[:count]].tolist()
    return np.array(chosen)


def screen_table(numbers: dict[str, Any], metric: str = "macro") -> str:
    """Accuracy in % as text: a row per prompt kind and data set, columns zero-shot, shots, all examples."""
    rows = [(kind, entry) for kind, entry in numbers["regions"].items()]
    rows += [(f"images of {name}", entry) for name, entry in numbers["images"].items()]
    if not rows:
        return "no two labels occur in both train and test"
    counts = list(rows[0][1]["shots"])
    width = max(18, *(len(name) + 2 for name, _ in rows))
    lines = [f"{f'{metric}, %':<{width}}" + "".join(f"{head:>10}" for head in ("zero-shot", *counts, "all"))]
    for name, entry in rows:
        values = [entry["zero_shot"][metric]["estimate"]]
        values += [entry["shots"][count][metric]["mean"] for count in counts]
        values.append(entry["full"][metric]["estimate"])
        lines.append(f"{name:<{width}}" + "".join(f"{results.percent(value):>10}" for value in values))
    return "\n".join(lines)


def _groups(owners: Sequence[Any]) -> np.ndarray:
    return statistics.group_index([image.dataset for image in owners], [image.group for image in owners])


def _needed(splits: Collection[str]) -> None:
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        raise InputError(
            f"a linear probe needs the splits {', '.join(SPLITS)}, and the data have no {missing[0]!r}: give a corpus, "
            "or a folder with a splits.json that has them"
        )


def main(argv: Sequence[str]) -> None:
    unknown = sorted(set(FLAGS.kinds) - set(ASKED))
    if unknown:
        raise InputError(f"--kinds: expected some of {', '.join(ASKED)}, got {unknown[0]!r}")
    logging.set_verbosity(logging.WARNING)
    o = from_flags(argv)
    _needed(o.corpus.splits)
    encoded = {split: encode_corpus(o.model, o.params, o.corpus, split, o.config, FLAGS.kinds) for split in SPLITS}
    ids = sorted(
        {label for each in encoded.values() for label in each.table.label}
        | {label for each in encoded.values() for image in each.table.images for label in image.image_labels}
    )
    text = encode_labels(o.model, o.params, o.processor.tokenizer, o.ontology, ids, o.config.input.label_context)
    numbers = evaluate(encoded, text, ids, seed=FLAGS.seed)
    prompts = {split: prompt_record.of_kinds(each.prompts) for split, each in encoded.items()}
    origin, words = results.origin(o.run_dir, o.params), results.words(sentences_of(o.ontology, ids))
    heading = results.header(o.corpus, ", ".join(SPLITS), o.config, origin, prompts, words, FLAGS.seed)
    results.write(o.output, heading | numbers, FILE)
    print(f"{screen_table(numbers)}\n\n{results.NOTICE}\nnumbers: {o.output / FILE}")


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_list("kinds", list(prompt_kinds.EXACT), f"Prompt kinds and reference rows: {', '.join(ASKED)}.")
    run_cli(main)
