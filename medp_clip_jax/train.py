"""Trains MedP-CLIP: `python -m medp_clip_jax.train --config=configs/smoke.py`. Read from top to bottom."""

import functools
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from absl import logging
from ml_collections import config_flags

from medp_clip_jax import checkpoint, evaluate, results, sharding
from medp_clip_jax.config import load_config, validate
from medp_clip_jax.corpus import Corpus, ensure_corpus
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.input import label_prior, train_dataset
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
    workdir = make_workdir(config)
    corpus = ensure_corpus(config.data.corpus, config.data.build)
    tokenizer = make_tokenizer(workdir, config, corpus)
    labels = make_bank(
        corpus.ontology, corpus.labels, tokenizer, config.input.label_variants, config.input.label_context
    )
    mesh = sharding.make_mesh(config.mesh)
    jax.set_mesh(mesh)

    batches = train_dataset(corpus, config, tokenizer, labels, jax.process_index(), jax.process_count())
    model = MedPCLIP(config.model)
    state, optimizer = make_state(model, config, batches[0], mesh)
    checkpointer = checkpoint.make_checkpointer(workdir, config.train.keep, config.train.best_metric)
    state = checkpoint.restore(checkpointer, state)
    start = int(state.step)
    save_run_files(workdir, config, tokenizer, corpus, labels)

    bank = make_device_bank(corpus, config, labels, mesh)
    step_fn = jax.jit(functools.partial(train_step, model, optimizer, config), donate_argnums=0)
    rate = schedule(config.optim, config.train.steps)
    writer = MetricWriter(workdir, start, config.train.steps)
    if start:
        logging.info("continuing from step %d", start)
    for step, batch in enumerate(iterate(batches, config, start), start + 1):
        state, metrics = step_fn(state, sharding.put_batch(batch, mesh), bank)
        writer.advance(config.input.batch_size, int((batch["label"] >= 0).sum()) * jax.process_count())
        if step % config.train.log_every == 0 or step == config.train.steps:
            metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
            writer.report(step, {**metrics, "learning_rate": float(rate(step - 1))})
            check_finite(metrics, step, config)
        figures: dict[str, float] = {}
        if config.train.eval_every and step % config.train.eval_every == 0 and step < config.train.steps:
            figures = evaluate.run_evaluation(
                model,
                state.params,
                tokenizer,
                corpus,
                config.data.val_split,
                config,
                config.eval.kinds,
                corpus.ontology,
            )
            writer.write(step, figures)
        if figures or step % config.train.checkpoint_every == 0 or step == config.train.steps:
            checkpoint.save(checkpointer, state, figures, config.train.best_metric)
    checkpointer.close()  # waits for the last write
    writer.close()

    print(f"evaluating on the {config.eval.split!r} split ...", flush=True)
    figures = evaluate.run_evaluation(
        model, state.params, tokenizer, corpus, config.eval.split, config, config.eval.kinds, corpus.ontology, workdir
    )
    print(f"{results.screen_table(figures)}\n\n{results.NOTICE}\nreport: {workdir / 'report.html'}")
    return figures


def make_workdir(config: Any) -> Path:
    """Creates the run directory, or finds the one of an earlier run of the same model.

    Raises:
      InputError: it cannot be written, or it holds a run of another model.
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
        earlier = load_config(stored)
        if earlier.model.to_dict() != config.model.to_dict():
            raise InputError(
                f"config.workdir {workdir}: holds a run of another model; choose another directory or remove that run"
            )
    return workdir


def make_tokenizer(workdir: Path, config: Any, corpus: Corpus) -> Tokenizer:
    """The run's tokenizer: the one already in the workdir, else trained on the corpus's text."""
    path = workdir / "tokenizer.json"
    if path.exists():
        return load_tokenizer(path)
    ontology = corpus.ontology
    texts = [text for node in ontology for text in ontology.sentences(node)]
    split = config.data.train_split
    records = itertools.chain.from_iterable(corpus.source(name, split) for name in corpus.sources)
    texts += [ontology.caption(record) for record in itertools.islice(records, TOKENIZER_EXAMPLES)]
    return train_tokenizer(texts, config.model.text.vocab)


def make_state(model: MedPCLIP, config: Any, batch: dict, mesh: jax.sharding.Mesh) -> tuple[TrainState, Any]:
    """A fresh state, laid out on the mesh, and its optimiser."""
    init = functools.partial(init_params, model, batch, config.seed)
    optimizer = make_optimizer(config.optim, config.train.steps, jax.eval_shape(init))

    def fresh() -> TrainState:
        params = init()
        return TrainState(jax.numpy.zeros((), jax.numpy.int32), params, optimizer.init(params))

    layout = sharding.state_sharding(jax.eval_shape(fresh), mesh)
    return jax.jit(fresh, out_shardings=layout)(), optimizer


def make_device_bank(corpus: Corpus, config: Any, labels: LabelBank, mesh: jax.sharding.Mesh) -> Bank:
    """The label bank on every device, with the prior of the regions that the input pipeline samples."""
    bank = Bank(labels.tokens, labels.excluded, label_prior(corpus, config, labels))
    return jax.device_put(bank, sharding.replicated(mesh))


def iterate(batches: grain.MapDataset, config: Any, start: int) -> Iterable[dict[str, np.ndarray]]:
    """Batches from `start` on, prepared by threads while the device works."""
    options = grain.ReadOptions(num_threads=config.input.threads, prefetch_buffer_size=2 * config.input.threads)
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
