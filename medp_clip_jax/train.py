"""Trains MedP-CLIP: `python -m medp_clip_jax.train --config=configs/smoke.py`. Read from top to bottom.

Every process of a job (docs/launch) runs this with the same arguments. Exit code 75 means stopped by SIGTERM or Ctrl-C,
and saved: the same command continues.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from absl import flags
from ml_collections import config_flags
from orbax.checkpoint import v1 as ocp

from medp_clip_jax import checkpoint, evaluate, flops, processes, results, sharding
from medp_clip_jax.config import validate
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.goodput import Goodput
from medp_clip_jax.initial import begin
from medp_clip_jax.input import iterate as ahead
from medp_clip_jax.input import label_prior, train_dataset
from medp_clip_jax.metrics import MetricWriter
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.optim import make_optimizer, schedule
from medp_clip_jax.preparation import Run, prepare
from medp_clip_jax.step import Bank, TrainState, embed_bank, init_params, train_step

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/, and overrides as --config.section.key=value."
)
PROFILE = flags.DEFINE_integer(
    "profile", 0, "Steps to capture in an xprof trace, WORKDIR/profile, from the third after a start.", lower_bound=0
)


def main(argv: list[str]) -> None:
    """Parses nothing but --config and --profile."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; overrides look like --config.train.steps=100")
    if CONFIG.value is None:
        raise InputError("no configuration; pass --config=configs/smoke.py or another file of configs/")
    processes.start()
    with processes.guard():
        train(CONFIG.value, PROFILE.value)


def train(config: Any, profile: int = 0) -> dict[str, float]:
    """Runs a whole training: corpus, model, loop, evaluation; continues an earlier run in the same workdir."""
    began = time.monotonic()
    validate(config)
    config.lock()
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compile_cache).expanduser()))
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config, mesh)
    jax.set_mesh(mesh)
    with processes.main_first("preparation"):
        run = prepare(config)

    model = MedPCLIP(config.model)
    optimizer, layout, state = make_state(model, config, mesh)
    params, base = begin(state.params, config)
    state = state.replace(params=params)
    step_fn = jax.jit(
        functools.partial(train_step, model, optimizer, config), donate_argnums=0, out_shardings=(layout, None)
    )
    assess = functools.partial(
        evaluate.run_evaluation,
        model,
        processor_or_tokenizer=run.tokenizer,
        corpus=run.corpus,
        config=config,
        ontology=run.corpus.ontology,
    )
    clock = Goodput(run.workdir)
    with checkpoint.make_checkpointer(run.workdir, config.train.keep, config.train.best_metric) as checkpointer:
        state = checkpoint.restore(checkpointer, state)
        bank = make_bank(run, model, state.params, config, mesh)
        clock.resume(int(state.step))
        clock.add("start", time.monotonic() - began)
        step_fn = functools.partial(step_fn, bank=bank, base=base)
        state = fit(state, step_fn, assess, checkpointer, clock, run, config, profile)
        with clock.spent("save"):
            checkpoint.finish(checkpointer)
    if processes.is_main():
        clock.store()
        print(clock.line(), flush=True)
    if int(state.step) < config.train.steps:
        raise SystemExit(processes.EXIT_PREEMPTED)
    processes.exit_if_asked()

    if processes.is_main():
        print(f"evaluating on the {config.eval.split!r} split ...", flush=True)
    figures = assess(state.params, split=config.eval.split, kinds=config.eval.kinds, output_dir=run.workdir)
    if processes.is_main():
        print(f"{results.screen_table(figures)}\n\n{results.NOTICE}\nreport: {run.workdir / 'report.html'}")
    return figures


def fit(
    state: TrainState,
    step_fn: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    assess: Callable[..., dict[str, float]],
    checkpointer: ocp.training.Checkpointer,
    clock: Goodput,
    run: Run,
    config: Any,
    profile: int,
) -> TrainState:
    """The loop: steps, reports, evaluations and checkpoints, until the last step or until asked to stop."""
    start, steps, metrics = int(state.step), config.train.steps, None
    rate, mesh = schedule(config.optim, steps), jax.sharding.get_mesh()
    with (
        contextlib.closing(iterate(run, config, start)) as batches,
        processes.Preemption() as preemption,
        contextlib.closing(MetricWriter(run.workdir, start, steps, mfu_per_image(config, run))) as writer,
    ):
        for step in range(start + 1, steps + 1):
            batch = timed_next(batches, clock, metrics)
            previous = metrics
            with clock.spent("step" if previous else "compile"):
                state, metrics = step_fn(state, sharding.put_batch(batch, mesh))
                jax.block_until_ready(previous)  # never more than one step ahead of the devices
            writer.advance(config.input.batch_size, int((batch["label"] >= 0).sum()) * jax.process_count())
            trace(run.workdir, step - start, profile, metrics)

            figures: dict[str, float] = {}
            last, stopping = step == steps, preemption.reached(step)
            if step % config.train.log_every == 0 or last:
                with clock.spent("step"):
                    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                values["learning_rate"] = float(rate(step - 1 - values["bad_steps"]))
                writer.report(step, values, clock.window(), clock.share())
                check_finite(values, step, config)
            if stopping:  # before anything that may outlast the time that is left
                save(checkpointer, state, {}, clock, config)
                checkpoint.finish(checkpointer)
            if config.train.eval_every and step % config.train.eval_every == 0 and not last:
                with clock.spent("eval"):
                    figures = assess(state.params, split=config.data.val_split, kinds=config.eval.val_kinds)
                writer.write(step, figures)
            if stopping:
                break
            if figures or step % config.train.checkpoint_every == 0 or last:
                save(checkpointer, state, figures, clock, config)
    return state


def save(
    checkpointer: ocp.training.Checkpointer, state: TrainState, figures: dict[str, float], clock: Goodput, config: Any
) -> None:
    """Starts to write a checkpoint, on the clock."""
    with clock.spent("save"):
        checkpoint.save(checkpointer, state, figures, config.train.best_metric)
    clock.saved(int(state.step))


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


def make_bank(run: Run, model: MedPCLIP, params: Any, config: Any, mesh: jax.sharding.Mesh) -> Bank:
    """The label bank on every device, with the prior of the regions that the input pipeline samples."""
    bank = Bank(run.labels.tokens, run.labels.excluded, label_prior(run.corpus, config, run.labels))
    bank = jax.device_put(bank, sharding.replicated(mesh))
    if "text" not in config.optim.frozen:
        return bank
    with nn.logical_axis_rules(sharding.logical_rules(config.mesh)):
        return jax.jit(functools.partial(embed_bank, model), out_shardings=sharding.replicated(mesh))(params, bank)


def iterate(run: Run, config: Any, start: int) -> Iterator[dict[str, np.ndarray]]:
    """This process's part of the batches from `start` on, prepared while the devices work."""
    batches = train_dataset(run.corpus, config, run.tokenizer, run.labels, jax.process_index(), jax.process_count())
    return ahead(batches[start:], config)


def timed_next(batches: Iterator[Any], clock: Goodput, metrics: dict[str, jax.Array] | None) -> Any:
    """The next batch; waiting for it counts as input only where the devices had nothing to do by then."""
    began = time.monotonic()
    batch = next(batches)
    busy = metrics is not None and not metrics["loss"].is_ready()
    clock.add("step" if busy else "input", time.monotonic() - began)
    return batch


def mfu_per_image(config: Any, run: Run) -> float | None:
    """Model FLOPs utilisation that one image per second amounts to; None where the devices' peak is not known."""
    step = flops.step_flops(config, len(run.labels.ids))
    return flops.mfu(step.model / config.input.batch_size, 1.0, jax.device_count(), jax.devices()[0].device_kind)


def trace(workdir: Path, step: int, profile: int, metrics: dict[str, jax.Array]) -> None:
    """Starts the profiler after the second step of this start, and ends it `profile` steps later."""
    if profile and step == 2:
        jax.block_until_ready(metrics)
        jax.profiler.start_trace(str(workdir / "profile"))
    if profile and step == 2 + profile:
        jax.block_until_ready(metrics)
        jax.profiler.stop_trace()


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
