"""Trains MedP-CLIP: `python -m medp_clip_jax.train --config=configs/smoke.py`. Read from top to bottom."""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from absl import logging
from ml_collections import config_flags

from medp_clip_jax import checkpoint, evaluate, results, sharding
from medp_clip_jax.config import first_difference, load_config, validate
from medp_clip_jax.corpus import Corpus, ensure_corpus
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.input import label_prior, mixture, train_dataset
from medp_clip_jax.labels import LabelBank, make_bank
from medp_clip_jax.metrics import MetricWriter
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.optim import make_optimizer, schedule
from medp_clip_jax.run_files import save_run_files
from medp_clip_jax.step import Bank, TrainState, init_params, train_step
from medp_clip_jax.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/, and overrides as --config.section.key=value."
)
# What may change between two starts of one run: it decides nothing that has been computed.
FREE_TO_CHANGE = ("workdir", "data.build", "mesh", "eval", "train.log_every", "train.checkpoint_every", "train.keep")
TOKENIZER_EXAMPLES = 20_000  # records whose captions the tokenizer is trained on


def main(argv: list[str]) -> None:
    """Parses nothing but --config."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; overrides look like --config.train.steps=100")
    if CONFIG.value is None:
        raise InputError("no configuration; pass --config=configs/smoke.py or another file of configs/")
    train(CONFIG.value)


def train(config: Any) -> dict[str, float]:
    """Runs a whole training: corpus, model, loop, evaluation; continues an earlier run in the same workdir."""
    validate(config)
    config.lock()
    if jax.process_count() > 1:
        raise InputError("training with several processes is not supported yet; start one process")
    workdir = make_workdir(config)
    corpus = ensure_corpus(config.data.corpus, config.data.build)
    check_splits(corpus, config)
    sources = mixture(corpus, config, config.data.train_split)
    tokenizer = make_tokenizer(workdir, config, corpus, sources)
    labels = make_labels(corpus, config, tokenizer, sources)
    batches = train_dataset(corpus, config, tokenizer, labels)

    mesh = sharding.make_mesh(config.mesh)
    jax.set_mesh(mesh)
    model = MedPCLIP(config.model)
    optimizer, layout, state = make_state(model, config, mesh)
    bank = make_device_bank(corpus, config, labels, mesh)
    step_fn = jax.jit(
        functools.partial(train_step, model, optimizer, config), donate_argnums=0, out_shardings=(layout, None)
    )
    assess = functools.partial(
        evaluate.run_evaluation,
        model,
        processor_or_tokenizer=tokenizer,
        corpus=corpus,
        config=config,
        ontology=corpus.ontology,
    )
    with checkpoint.make_checkpointer(workdir, config.train.keep, config.train.best_metric) as checkpointer:
        state = checkpoint.restore(checkpointer, state)
        save_run_files(workdir, config, tokenizer, corpus, labels, sources)
        start = int(state.step)

        if start:
            logging.info("continuing from step %d", start)
        with contextlib.closing(MetricWriter(workdir, start, config.train.steps)) as writer:
            rate = schedule(config.optim, config.train.steps)
            for step, batch in enumerate(iterate(batches, config, start), start + 1):
                last = step == config.train.steps
                state, metrics = step_fn(state, sharding.put_batch(batch, mesh), bank)
                writer.advance(config.input.batch_size, int((batch["label"] >= 0).sum()))
                if step % config.train.log_every == 0 or last:
                    metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
                    writer.report(step, {**metrics, "learning_rate": float(rate(step - 1 - metrics["bad_steps"]))})
                    check_finite(metrics, step, config)
                figures: dict[str, float] = {}
                if config.train.eval_every and step % config.train.eval_every == 0 and not last:
                    figures = assess(state.params, split=config.data.val_split, kinds=config.eval.val_kinds)
                    writer.write(step, figures)
                if figures or step % config.train.checkpoint_every == 0 or last:
                    checkpoint.save(checkpointer, state, figures, config.train.best_metric)

    print(f"evaluating on the {config.eval.split!r} split ...", flush=True)
    figures = assess(state.params, split=config.eval.split, kinds=config.eval.kinds, output_dir=workdir)
    print(f"{results.screen_table(figures)}\n\n{results.NOTICE}\nreport: {workdir / 'report.html'}")
    return figures


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
    """The run's tokenizer: the one already in the workdir, else trained on the ontology and the sources' captions."""
    path = workdir / "tokenizer.json"
    if path.exists():
        return load_tokenizer(path)
    ontology, split = corpus.ontology, config.data.train_split
    texts = [text for node in ontology for text in ontology.sentences(node)]
    for name in sources:
        records = itertools.islice(corpus.source(name, split), TOKENIZER_EXAMPLES // len(sources) + 1)
        texts += [ontology.caption(record) for record in records]
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


def make_state(model: MedPCLIP, config: Any, mesh: jax.sharding.Mesh) -> tuple[Any, Any, TrainState]:
    """The optimiser, the state's layout on the mesh, and a fresh state laid out so."""
    optimizer, layout, fresh = plan_state(model, config, mesh)
    return optimizer, layout, jax.jit(fresh, out_shardings=layout)()


def plan_state(model: MedPCLIP, config: Any, mesh: jax.sharding.Mesh) -> tuple[Any, Any, Callable[[], TrainState]]:
    """The optimiser, the state's layout on the mesh, and the function that makes a fresh state; allocates nothing."""
    init = functools.partial(init_params, model, config.seed)
    optimizer = make_optimizer(config.optim, config.train.steps, jax.eval_shape(init))

    def fresh() -> TrainState:
        params = init()
        return TrainState(jax.numpy.zeros((), jax.numpy.int32), params, optimizer.init(params))

    return optimizer, sharding.state_sharding(jax.eval_shape(fresh), mesh, config.mesh.rules), fresh


def make_device_bank(corpus: Corpus, config: Any, labels: LabelBank, mesh: jax.sharding.Mesh) -> Bank:
    """The label bank on every device, with the prior of the regions that the input pipeline samples."""
    bank = Bank(labels.tokens, labels.excluded, label_prior(corpus, config, labels))
    return jax.device_put(bank, sharding.replicated(mesh))


def iterate(batches: grain.MapDataset, config: Any, start: int) -> Iterable[dict[str, np.ndarray]]:
    """Batches from `start` on, prepared by threads while the device works."""
    options = grain.ReadOptions(num_threads=config.input.threads, prefetch_buffer_size=config.input.threads)
    return batches[start:].to_iter_dataset(options)


def check_finite(metrics: dict[str, float], step: int, config: Any) -> None:
    """Gives up when too many steps in a row had a non-finite gradient."""
    row = int(metrics["bad_steps_in_a_row"])
    if row >= config.train.max_bad_steps:
        raise InputError(
            f"step {step}: {row} steps in a row had a non-finite loss or gradient and were skipped; lower "
            "config.optim.learning_rate or look at the data, then start again: the last checkpoint is intact"
        )


if __name__ == "__main__":
    run_cli(main)
