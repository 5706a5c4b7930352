"""Evaluates a trained model on a corpus, or on any folder of the region schema.

    python -m medp_clip_jax.evaluate --data=CORPUS_OR_FOLDER [--checkpoint=RUN_OR_RELEASE] [--split=test] [--output=DIR]
    python -m medp_clip_jax.evaluate --data=FOLDER --eval=configs/evals/covid_ct.py [--checkpoint=RUN_OR_RELEASE]

prints a table and writes results.json, predictions.npz (for `medp_clip_jax.compare`), prompts.npz (what regions were
asked by) and report.html into the output.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from medp_clip_jax import api, eval_sets, hub, ontology_merge, processes, release, results
from medp_clip_jax.config import load_config
from medp_clip_jax.corpus import MANIFEST, Corpus
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.eval_data import WHOLE, open_data
from medp_clip_jax.evaluators import (
    calibration,
    context_retention,
    predictions,
    prompt_record,
    prompt_sensitivity,
    region_questions,
    region_recognition,
    retrieval,
    saved_answers,
    zero_shot,
)
from medp_clip_jax.evaluators.encode import encode_corpus, encode_labels, encode_texts
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.prompt_kinds import EVALUATED

FLAGS = flags.FLAGS


def run_evaluation(
    model,
    params,
    processor_or_tokenizer,
    corpus: Corpus,
    split: str,
    config,
    kinds: Sequence[str] | None,
    ontology: Ontology,
    output_dir: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    replicates: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Runs every evaluator on one split and returns the flat metrics, such as `region/mask/macro`, in [0, 1].

    `kinds` are prompt kinds and reference rows (None: `config.eval.kinds`). The label bank is the corpus's region
    labels and those in the labels.json of `run_dir` (by default `output_dir`), which also tells seen from unseen ones.
    With an `output_dir` the results, per-region predictions and the report are written there, the report with the
    training curves of `run_dir`. `replicates` of the bootstrap: 1000 where results are written, else none. `seed` is
    that of all that evaluation draws, whatever the seed of the training: all models are asked alike. InputError where
    the split has no images or the output cannot be written.
    """
    tokenizer = getattr(processor_or_tokenizer, "tokenizer", processor_or_tokenizer)
    kinds = tuple(kinds or config.eval.kinds)
    if replicates is None:
        replicates = 1000 if output_dir else 0
    trained = read_trained(run_dir or output_dir, ontology)
    folder = results.writable(output_dir) if output_dir and processes.is_main() else None
    encoded = encode_corpus(model, params, corpus, split, config, kinds)
    table = encoded.table
    bank = sorted({*corpus.labels, *table.label, *(set(trained.get("labels", ())) & ontology.keys())})
    others = sorted({label for example in table.images for label in example.image_labels} - set(bank))
    ids = [*bank, *others]
    text = encode_labels(model, params, tokenizer, ontology, ids, config.input.label_context)

    twins = config.eval.get("twins", ())
    metrics, details, answers = region_recognition.evaluate(
        encoded, ontology, text[: len(bank)], bank, twins, replicates, seed, seen_labels(trained)
    )
    image_metrics, image_details = zero_shot.evaluate(encoded, text, ids, replicates, seed)
    questions = context_retention.questions(table.images, table.image_index)
    questions |= region_questions.questions(table.label, ontology)
    asked = {
        name: (encode_texts(model, params, tokenizer, question.lines, config.model.text.context), question)
        for name, question in questions.items()
    }
    context_metrics, context_details = context_retention.evaluate(encoded, text, ids, asked, replicates, seed)
    found, found_details, searches = retrieval.evaluate(encoded, text, ids, replicates, seed)
    scale = float(np.exp(jax.device_get(params["logit_scale"])))
    sure, sure_details = calibration.evaluate(encoded, ontology, text[: len(bank)], bank, scale, replicates, seed)
    metrics |= image_metrics | context_metrics | found | sure
    if output_dir:
        sensitive, sensitive_details = prompt_sensitivity.evaluate(
            model, params, corpus, config, encoded, ontology, text[: len(bank)], bank, replicates, seed
        )
        metrics |= sensitive
    if folder and config.eval.falsification:
        # Imported here: it is a command of its own, which takes its flags from this module.
        from medp_clip_jax.evaluators import falsification

        falsified = falsification.evaluate(model, params, tokenizer, corpus, split, config, ontology, seed, replicates)
        metrics |= falsification.flat(falsified)
        details["falsification"] = falsified["intervals"]
    if output_dir:  # every process has a part of it
        origin = results.origin(run_dir or output_dir, params)
        kept = {kind: prompt_record.joined(each) for kind, each in encoded.prompts.items()}
    if folder:
        details |= image_details | context_details | found_details | sure_details | sensitive_details
        lines = {name: question.lines for name, question in questions.items()}
        words = results.words(sentences_of(ontology, ids), questions=lines)
        digests = {kind: prompt_record.per_region(each) for kind, each in kept.items()}
        prompts = {kind: prompt_record.combined(each) for kind, each in digests.items()}
        heading = results.header(corpus, split, config, origin, prompts, words, seed)
        content = results.collect(heading, table, metrics, details, seen_labels(trained))
        results.write(folder, content)
        images = zero_shot.questions(encoded, text, ids)
        if answers or images:
            regions = region_recognition.describe_regions(table, bank)
            more = saved_answers.pack(table, images, searches)
            predictions.save(folder, table, regions, answers, digests, more)
            prompt_record.save(folder, predictions.region_keys(table), kept)
        # Imported here: most evaluations of a training run write no report and should not wait for its libraries.
        from medp_clip_jax import report

        report.write_report(folder, content, corpus, table, answers, bank, ontology, run_dir or folder)
    return metrics


def sentences_of(ontology: Ontology, ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What each of the labels `ids` is asked by."""
    return {label: ontology.sentences(label) for label in ids}


def read_trained(run_dir: str | os.PathLike[str] | None, ontology: Ontology | None = None) -> dict[str, Any]:
    """The labels.json of a run (what it saw in training), empty without one; InputError where it is damaged.

    With an `ontology` its labels are given the ids they have there, where that has renamed nodes since the training.
    """
    path = pathlib.Path(run_dir or "") / "labels.json"
    if run_dir is None or not path.is_file():
        return {}
    try:
        trained = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error}): restore the file of the run") from error
    nodes = path.with_name("ontology.json")
    if ontology is None or not set(trained.get("labels", ())) - ontology.keys() or not nodes.is_file():
        return trained
    return ontology_merge.translated(trained, ontology_merge.merged(ontology, Ontology.load(nodes))[1])


def seen_labels(trained: Mapping[str, Any]) -> frozenset[str] | None:
    """The labels that had a region in training, None where labels.json does not say."""
    counts = trained.get("train_regions")
    return None if counts is None else frozenset(label for label, count in counts.items() if count)


def output_for(run_dir: pathlib.Path, data: str, split: str, output: str | None) -> pathlib.Path:
    """The folder to write into, made: `output`, else evaluation/DATA-SPLIT in a run, or here for a release, which stays
    as it was published. InputError where it cannot be written."""
    home = pathlib.Path() if release.is_release(run_dir) else run_dir
    name = pathlib.Path(data).resolve().name
    return results.writable(output or home / "evaluation" / f"{name}-{split}")


def load_config_for(run_dir: pathlib.Path, sources: Sequence[str]):
    """The configuration of a run or release, evaluating the named sources (all if none): those of the training may not
    exist here."""
    config = load_config(run_dir / "config.json")
    config.data.sources = tuple(sources)
    return config


def ontology_for(run_dir: pathlib.Path, corpus: Corpus) -> Ontology:
    """The corpus's ontology, with what only that of the run or release has."""
    stored = run_dir / "ontology.json"
    return merge_ontologies(corpus.ontology, Ontology.load(stored)) if stored.is_file() else corpus.ontology


def merge_ontologies(first: Ontology, second: Ontology) -> Ontology:
    """`first` plus the nodes of `second` that it lacks and does not name otherwise (see `ontology_merge.merged`)."""
    return ontology_merge.merged(first, second)[0]


@dataclasses.dataclass(frozen=True)
class Opened:
    """What an evaluation command works on."""

    run_dir: pathlib.Path
    model: Any
    params: Any
    processor: Any
    config: Any
    output: pathlib.Path
    corpus: Corpus
    ontology: Ontology
    known: eval_sets.EvalSet | None  # the published set that the data are, if --eval names one


def define_flags() -> None:
    """The flags that every evaluation command has."""
    flags.DEFINE_string("checkpoint", hub.DEFAULT, "A training run, or a release: folder or name.")
    flags.DEFINE_string("data", None, "A corpus, or a folder of the region schema (images.jsonl, annotations.jsonl).")
    flags.DEFINE_string("eval", None, "Definition of a published set, configs/evals/NAME.py, in whose layout DATA is.")
    flags.DEFINE_bool("partial", False, "With --eval: evaluate a part of the set, which the results are called then.")
    flags.DEFINE_string("split", None, "Split: test or that of --eval if not given; all: all images of a folder.")
    flags.DEFINE_string("output", None, "Where to write; evaluation/DATA-SPLIT in the run if not given.")
    flags.DEFINE_integer("seed", 0, "Of all that evaluation draws: compare results of the same one.", lower_bound=0)
    flags.DEFINE_list("sources", [], "Sources of the corpus to evaluate; all if not given.")


def from_flags(argv: Sequence[str]) -> Opened:
    """Loads the model and opens the data that the flags name; InputError where they name none, or what is there cannot
    be used."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: options start with -- (see --help)")
    if not FLAGS.checkpoint or not FLAGS.data:
        raise InputError("expected --data=CORPUS_OR_FOLDER, and --checkpoint=RUN_OR_RELEASE if not the shipped one")
    if FLAGS.partial and not FLAGS.eval:
        raise InputError("--partial says that DATA is a part of a published set: expected --eval=configs/evals/NAME.py")
    known = eval_sets.read(FLAGS.eval, FLAGS.partial) if FLAGS.eval else None
    FLAGS.split = FLAGS.split or (known.split if known else "test")
    if FLAGS.split == "all" and not known and not (pathlib.Path(FLAGS.data) / MANIFEST).is_file():
        FLAGS.split = WHOLE
    run_dir = hub.locate(FLAGS.checkpoint)
    # Loading first: a wrong run folder should not cost the build of a corpus.
    model, params, processor = api.load(run_dir)
    config = load_config_for(run_dir, FLAGS.sources)
    output = output_for(run_dir, known.name if known else FLAGS.data, FLAGS.split, FLAGS.output)
    if known is None:
        corpus = open_data(FLAGS.data, FLAGS.split, output / "corpus")
    else:
        corpus = eval_sets.build(known, FLAGS.data, output / "corpus")
    ontology = ontology_for(run_dir, corpus)
    if known:
        ontology = eval_sets.Asked(ontology, known)
    return Opened(run_dir, model, params, processor, config, output, corpus, ontology, known)


def main(argv: Sequence[str]) -> None:
    unknown = sorted(set(FLAGS.kinds or ()) - set(EVALUATED))
    if unknown:
        raise InputError(f"--kinds: expected some of {', '.join(EVALUATED)}, got {unknown[0]!r}")
    logging.set_verbosity(logging.WARNING)  # checkpoints and data sets announce every file otherwise
    o = from_flags(argv)
    kinds = FLAGS.kinds or (o.known.kinds if o.known else None)
    given = (o.model, o.params, o.processor, o.corpus, FLAGS.split, o.config, kinds, o.ontology, o.output, o.run_dir)
    metrics = run_evaluation(*given, seed=FLAGS.seed)
    print(results.screen_table(metrics))
    if o.known:
        print(f"\n{eval_sets.headline(o.known, metrics)}")
    seen = seen_labels(read_trained(o.run_dir, o.ontology))
    if seen is not None and (new := [label for label in o.corpus.labels if label not in seen]):
        print(f"\n{len(new)} of {len(o.corpus.labels)} labels were not seen in training: {', '.join(new)}")
    print(f"\n{results.NOTICE}\nreport: {o.output / 'report.html'}")


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_list("kinds", None, f"Prompt kinds and reference rows: {', '.join(EVALUATED)}.")
    run_cli(main)
