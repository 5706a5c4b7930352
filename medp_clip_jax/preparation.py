"""What a run needs before its first step: its directory, corpus, tokenizer and label bank."""

import dataclasses
import itertools
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax

from medp_clip_jax import generated_text, processes
from medp_clip_jax.config import first_difference, load_config
from medp_clip_jax.corpus import Corpus, ensure_corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.input import mixture
from medp_clip_jax.labels import LabelBank, make_bank
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.run_files import save_run_files
from medp_clip_jax.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

# What may change between two starts of one run: it decides nothing that has been computed.
FREE_TO_CHANGE = (
    *("workdir", "compile_cache", "data.build", "mesh", "eval", "loss.chunk"),
    *("train.log_every", "train.checkpoint_every", "train.keep", "train.accumulate"),
)
TOKENIZER_EXAMPLES = 20_000  # records whose captions the tokenizer is trained on


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that can start."""

    workdir: Path
    corpus: Corpus
    sources: Collection[str]  # that training draws from
    tokenizer: Tokenizer
    labels: LabelBank


def prepare(config: Any) -> Run:
    """Makes or finds all of a run; in a job, the main process does so first and the others find it.

    Raises:
      InputError: something in the configuration cannot be used, or a process does not see the main one's files.
    """
    workdir = make_workdir(config)
    if not processes.is_main() and not (workdir / "config.json").exists():
        raise InputError(
            f"config.workdir {workdir}: process {jax.process_index()} does not see what process 0 wrote there; put it "
            "on storage that all hosts share"
        )
    corpus = ensure_corpus(config.data.corpus, config.data.build)
    stored = workdir / "ontology.json"  # of an earlier start: its sentences are the run's, however the file has grown
    if config.input.generated_text:
        more = Ontology.load(stored).generated if stored.exists() else None
        more = generated_text.read(config.input.generated_text, corpus.ontology) if more is None else more
        corpus = dataclasses.replace(corpus, ontology=corpus.ontology.with_sentences(more))
    check_splits(corpus, config)
    sources = mixture(corpus, config, config.data.train_split)
    tokenizer = make_tokenizer(workdir, config, corpus, sources)
    run = Run(workdir, corpus, sources, tokenizer, make_labels(corpus, config, tokenizer, sources))
    if processes.is_main():
        save_run_files(workdir, config, tokenizer, corpus, run.labels, sources)
    return run


def make_workdir(config: Any) -> Path:
    """Creates the run directory, or finds the one of an earlier start of the same run.

    Raises:
      InputError: it cannot be written, or it holds a run of another configuration.
    """
    workdir = Path(config.workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"config.workdir {workdir}: cannot be created ({error.strerror}); choose a writable directory"
        ) from None
    if not os.access(workdir, os.W_OK):
        raise InputError(f"config.workdir {workdir}: not writable; choose a writable directory")
    stored = workdir / "config.json"
    if stored.exists():
        different = first_difference(load_config(stored), config, FREE_TO_CHANGE)
        if different:
            raise InputError(
                f"config.workdir {workdir}: holds a run with another config.{different}; choose another directory, or "
                "remove that run"
            )
    return workdir


def check_splits(corpus: Corpus, config: Any) -> None:
    """Raises InputError when a split that will be evaluated has no images: better now than after the training."""
    needed = {config.eval.split} | ({config.data.val_split} if config.train.eval_every else set())
    sources = tuple(config.data.sources) or corpus.sources
    for split in sorted(needed):
        if not any(corpus.count(name, split) for name in sources):
            raise InputError(
                f"{corpus.directory}: no images in split {split!r}, which is to be evaluated; it has "
                f"{', '.join(corpus.splits)}: set config.eval.split and config.data.val_split to one of these"
            )


def make_tokenizer(workdir: Path, config: Any, corpus: Corpus, sources: Collection[str]) -> Tokenizer:
    """The run's tokenizer: that in the workdir, else that of `init`, else trained on the ontology and the captions."""
    for path in (workdir / "tokenizer.json", Path(config.init) / "tokenizer.json"):
        if path.exists() and (config.init or path.parent == workdir):
            tokenizer = load_tokenizer(path)
            tokenizer.check_table(config.model.text.vocab, str(path))
            return tokenizer
    if config.init:
        raise InputError(f"config.init {config.init}: no tokenizer.json there; expected a folder that convert wrote")
    ontology, split = corpus.ontology, config.data.train_split
    texts = [text for node in ontology for text in ontology.sentences(node)]
    for name in sources:
        records = itertools.islice(corpus.source(name, split), TOKENIZER_EXAMPLES // len(sources) + 1)
        texts += [ontology.caption(record, style=config.input.caption) for record in records]
    return train_tokenizer(texts, config.model.text.vocab)


def make_labels(corpus: Corpus, config: Any, tokenizer: Tokenizer, sources: Collection[str]) -> LabelBank:
    """The bank of what has regions in training; in a corpus without any region, of what its images are labelled."""
    split = config.data.train_split
    ids = corpus.label_counts(split, sources) or corpus.image_label_counts(split, sources)
    if not ids:
        raise InputError(
            f"{corpus.directory}: split {split!r} has no labelled region or image; there is nothing to learn"
        )
    return make_bank(corpus.ontology, sorted(ids), tokenizer, config.input.label_variants, config.input.label_context)
