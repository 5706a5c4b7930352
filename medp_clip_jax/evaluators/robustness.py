"""How much accuracy is left when pictures change: intensity, noise, blur, rotation, JPEG, each in three strengths.

    python -m medp_clip_jax.evaluators.robustness --checkpoint=RUN_OR_RELEASE --data=CORPUS_OR_FOLDER [--kinds=mask,box]

prints a table and writes `robustness.json`. Prompts are exact and move with the picture, and so do crops and the other
pictures of a region, by which a model is asked that takes no prompts (`--kinds=crop,none`). Differences from the
pictures as they are, are paired on the same regions, with intervals over patient groups. `image_changes.py` has the
changes.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from absl import flags, logging

from medp_clip_jax import results, statistics
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.evaluate import define_flags, from_flags, read_trained, sentences_of
from medp_clip_jax.evaluators import prompt_record, region_recognition
from medp_clip_jax.evaluators.encode import Encoded, encode_corpus, encode_labels
from medp_clip_jax.evaluators.image_changes import STRENGTHS, ChangedCorpus
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.prompt_kinds import EVALUATED, EXACT

FLAGS = flags.FLAGS
FILE = "robustness.json"
METRICS = ("micro", "macro", "within_image")


def evaluate(
    model: Any,
    params: Any,
    tokenizer: Any,
    corpus: Any,
    split: str,
    config: Any,
    ontology: Ontology,
    kinds: Sequence[str] = EXACT,
    trained: Collection[str] = (),
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Top-1 over the labels of the corpus and those `trained`, per kind of `prompt_kinds.EVALUATED`:
    `{"unchanged": {kind: {metric: interval}}, "changes": [...]}`, plain values for JSON.

    Each entry of `changes` is a kind of change, its strength, and per prompt kind and metric the accuracy and the
    paired difference to the pictures as they are. Raises InputError where the split has no images.
    """
    encoded = encode_corpus(model, params, corpus, split, config, kinds)
    bank = sorted({*corpus.labels, *encoded.table.label, *(set(trained) & ontology.keys())})
    text = encode_labels(model, params, tokenizer, ontology, bank, config.input.label_context)
    regions = region_recognition.describe_regions(encoded.table, bank)

    def tallies(encoded: Encoded) -> dict[str, dict[str, statistics.Tally]]:
        predictions = {
            kind: region_recognition.predict(embedding, text, regions, ontology)
            for kind, embedding in encoded.regions.items()
        }
        return {kind: region_recognition.tallies(found, regions) for kind, found in predictions.items()}

    def plain(interval: statistics.Interval) -> dict[str, float | None]:
        return {name: statistics.rounded(value) for name, value in dataclasses.asdict(interval).items()}

    before = tallies(encoded)
    unchanged = {
        kind: {name: plain(statistics.interval(sums[name], replicates, seed)) for name in METRICS}
        for kind, sums in before.items()
    }
    changes = []
    for change, strengths in STRENGTHS.items():
        for strength in strengths:
            other = ChangedCorpus(corpus, change, strength, seed)
            after = tallies(encode_corpus(model, params, other, split, config, kinds))
            entry: dict[str, Any] = {"change": change, "strength": strength, "kinds": {}}
            for kind, sums in after.items():
                entry["kinds"][kind] = {
                    name: {
                        "accuracy": statistics.rounded(statistics.estimate(sums[name])),
                        "difference": plain(statistics.difference(sums[name], before[kind][name], replicates, seed)),
                    }
                    for name in METRICS
                }
            changes.append(entry)
    return {
        "data": {"name": corpus.directory.name, "split": split, "regions": len(regions.target), "labels": len(bank)},
        "seed": seed,
        "prompts": prompt_record.of_kinds(encoded.prompts),  # of the pictures as they are
        "sentences": results.words(sentences_of(ontology, bank)),
        "unchanged": unchanged,
        "changes": changes,
    }


def screen_table(numbers: dict[str, Any], metric: str = "micro") -> str:
    """Accuracy in % as text: a row per change and strength, a column per prompt kind; `*` where the difference to the
    unchanged pictures excludes zero."""
    kinds = list(numbers["unchanged"])
    lines = [f"{'top-1, %':<18}" + "".join(f"{kind:>12}" for kind in kinds)]
    cells = [numbers["unchanged"][kind][metric]["estimate"] for kind in kinds]
    lines.append(f"{'unchanged':<18}" + "".join(f"{results.percent(value):>11} " for value in cells))
    for entry in numbers["changes"]:
        row = f"{entry['change']:<10}{entry['strength']:>6}  "
        for kind in kinds:
            cell = entry["kinds"][kind][metric]
            low, high = cell["difference"]["low"], cell["difference"]["high"]
            mark = "*" if low is not None and (low > 0 or high < 0) else " "
            row += f"{results.percent(cell['accuracy']):>11}{mark}"
        lines.append(row)
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    unknown = sorted(set(FLAGS.kinds) - set(EVALUATED))
    if unknown:
        raise InputError(f"--kinds: expected some of {', '.join(EVALUATED)}, got {unknown[0]!r}")
    logging.set_verbosity(logging.WARNING)
    o = from_flags(argv)
    trained = read_trained(o.run_dir, o.ontology).get("labels", ())
    given = (o.model, o.params, o.processor.tokenizer, o.corpus, FLAGS.split, o.config, o.ontology)
    numbers = evaluate(*given, FLAGS.kinds, trained, seed=FLAGS.seed)
    origin = results.origin(o.run_dir, o.params)
    heading = results.header(
        o.corpus, FLAGS.split, o.config, origin, numbers["prompts"], numbers["sentences"], FLAGS.seed
    )
    results.write(o.output, heading | numbers | {"data": heading["data"] | numbers["data"]}, FILE)
    print(f"{screen_table(numbers)}\n\n{results.NOTICE}\nnumbers: {o.output / FILE}")


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_list("kinds", list(EXACT), f"Prompt kinds and reference rows: {', '.join(EVALUATED)}.")
    run_cli(main)
