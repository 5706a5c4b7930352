"""How well a label finds its own regions, and whether it finds none where there are none; the protocol `text`.

    python -m medp_clip_jax.evaluators.text_to_mask --checkpoint=RUN_OR_RELEASE --data=CORPUS_OR_FOLDER

Every image is asked for each label that it has, and for as many of its data set's labels that it has not. The mask of a
label is the union of what is found, the truth that of its regions. Prints a table, writes `text_to_mask.json`.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from sklearn.metrics import roc_auc_score

from medp_clip_jax import api, results, spans, statistics, text_masks
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.eval_input import EvalTable, eval_batches, eval_table
from medp_clip_jax.evaluate import define_flags, from_flags
from medp_clip_jax.evaluators import mask_metrics
from medp_clip_jax.evaluators.encode import encode_labels
from medp_clip_jax.mask_images import on_image
from medp_clip_jax.models.vit import Images
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.statistics import rounded

FLAGS = flags.FLAGS
TEXTS = 4  # asked of an image at a time


def evaluate(
    model: api.Model,
    params: Any,
    tokenizer: Any,
    corpus: Any,
    split: str,
    config: Any,
    ontology: Ontology,
    threshold: float = 0.3,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Numbers of the protocol, plain values for JSON.

    `dice` is the mean over labels of a data set, then over data sets, with a 95 % interval over patient groups; `found`
    the share of present labels with any mask, `rejected` that of absent ones without, `auroc` of the best score of
    present against absent labels. Raises InputError where no region has a mask.
    """
    table = eval_table(corpus, split, tuple(config.data.sources) or None)
    if not table.has_mask.any():
        raise InputError(f"split {split!r}: no region has a mask to compare with; name another split or corpus")
    labels = sorted(set(table.label))
    row_of = {label: row for row, label in enumerate(labels)}
    bank = encode_labels(model, params, tokenizer, ontology, labels, config.input.label_context)
    questions = _questions(table, labels, ontology, seed)
    answers: list[tuple[int, str, bool, float, float, bool]] = []  # image, label, present, Dice, best score, found
    readers = {name: corpus.source(name, table.split) for name, _ in table.records}
    for batch in eval_batches(corpus, table, config, ()):
        images = sorted({int(row) for row in batch["image_row"] if row >= 0})
        for image in images:
            place = int(np.flatnonzero(batch["image_row"] == image)[0])
            rectangle = batch["rectangle"][place]
            features = model.encode_image(params, Images(batch["image"][[place]], rectangle[None]))
            asked = questions.pop(image, [])
            for start in range(0, len(asked), TEXTS):
                some = asked[start : start + TEXTS]
                rows = [row_of[label] for label, _ in some] + [0] * (TEXTS - len(some))
                for (label, present), found in zip(
                    some, text_masks.find(model, params, features, bank, rows, threshold=threshold)[0], strict=False
                ):
                    truth = _truth(readers, table, image, label)
                    dice = mask_metrics.dice(_union(found, rectangle, truth.shape), truth) if present else 0.0
                    answers.append((image, label, present, dice, found.best, bool(len(found.score))))
    return _numbers(answers, table, threshold, replicates, seed)


def _questions(
    table: EvalTable, labels: Sequence[str], ontology: Ontology, seed: int
) -> dict[int, list[tuple[str, bool]]]:
    """By image: its labels, all of whose regions have masks, and as many that it has not, nor any kin of theirs."""
    own: dict[int, set[str]] = {}
    without: dict[int, set[str]] = {}
    sets: dict[str, set[str]] = {}
    for region, label in enumerate(table.label):
        image = int(table.image_index[region])
        own.setdefault(image, set()).add(label)
        sets.setdefault(table.images[image].dataset, set()).add(label)
        if not table.has_mask[region]:
            without.setdefault(image, set()).add(label)
    found = {}
    for image, here in sorted(own.items()):
        above = here.union(*(ontology.ancestors(label) for label in here))
        others = sorted(sets[table.images[image].dataset] - above)
        absent = [label for label in others if not here & ontology.ancestors(label)]
        present = sorted(here - without.get(image, set()))
        rng = np.random.default_rng((seed, image))
        drawn = rng.permutation(len(absent))[: len(present)]
        found[image] = [(label, True) for label in present] + [(absent[i], False) for i in drawn]
    return found


def _truth(readers: dict[str, Any], table: EvalTable, image: int, label: str) -> np.ndarray:
    """The union of an image's regions of a label, bool [height, width]."""
    name, record = table.records[image]
    example = readers[name][record]
    union = np.zeros((example.height, example.width), bool)
    for region in np.flatnonzero(table.image_index == image):
        if table.label[region] == label and table.has_mask[region]:
            rle = example.regions[table.region_index[region]].rle
            (found,) = spans.read([rle], example.height, example.width)
            union |= spans.picture(found, (0, 0, example.width, example.height))
    return union


def _union(found: text_masks.Found, rectangle: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    union = np.zeros(shape, bool)
    for logits in found.logits:
        union |= on_image(logits, rectangle, shape[::-1]) > 0
    return union


def _numbers(
    answers: list[tuple[int, str, bool, float, float, bool]],
    table: EvalTable,
    threshold: float,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    image, label, present, dice, best, found = (np.array(column) for column in zip(*answers, strict=True))
    sets = np.array([table.images[row].dataset for row in image])
    groups = statistics.group_index(sets.tolist(), [table.images[row].group for row in image])
    each, here = {}, present.astype(bool)
    for dataset in sorted(set(sets[here])):
        place = np.where((sets == dataset) & here, statistics.group_index(label.tolist()), -1)
        each[dataset] = statistics.tally(dice, groups, place)
    numbers: dict[str, Any] = {
        "protocol": "text",
        "seed": seed,
        "threshold": threshold,
        "present": int(here.sum()),
        "absent": int((~here).sum()),
        "dice": statistics.mean_of(list(each.values()), replicates, seed),
        "found": rounded(found[here].mean()),
        "rejected": rounded((~found[~here]).mean()) if (~here).any() else None,
        "auroc": rounded(roc_auc_score(here, best)) if (~here).any() else None,
        "data_sets": {name: rounded(statistics.estimate(item)) for name, item in each.items()},
    }
    numbers["labels"] = {name: rounded(dice[here & (label == name)].mean()) for name in sorted(set(label[here]))}
    return numbers


def screen_table(numbers: dict[str, Any]) -> str:
    """The numbers as text."""
    dice = numbers["dice"]
    span = f" ({dice['low']:.3f} to {dice['high']:.3f})" if dice.get("low") is not None else ""
    lines = [f"Dice {dice['value']:.3f}{span}, {numbers['present']} labels in images, {numbers['absent']} absent ones"]
    for name, about in (("found", "present labels with a mask"), ("rejected", "absent labels without"), ("auroc", "")):
        if numbers[name] is not None:
            lines.append(f"{name:<10}{numbers[name]:.3f}  {about}".rstrip())
    return "\n".join([*lines, *(f"  {name:<30}{value:.3f}" for name, value in numbers["data_sets"].items())])


def main(argv: Sequence[str]) -> None:
    o = from_flags(argv)
    given = (o.model, o.params, o.processor.tokenizer, o.corpus, FLAGS.split, o.config, o.ontology)
    numbers = evaluate(*given, threshold=FLAGS.threshold, seed=FLAGS.seed)
    (o.output / "text_to_mask.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(f"protocol text\n{screen_table(numbers)}\n\n{results.NOTICE}\nnumbers: {o.output}")


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_float("threshold", 0.3, "Least score of a region.", 0, 1)
    run_cli(main)
