"""Checkpoints of a run: saved asynchronously by Orbax, restored exactly, and read for their parameters alone."""

import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from medp_clip_jax import processes
from medp_clip_jax.errors import InputError
from medp_clip_jax.step import TrainState

DAMAGED = "damaged"  # folder of the run for checkpoints that cannot be read


def make_checkpointer(workdir: str | Path, keep: int, best_metric: str) -> ocp.training.Checkpointer:
    """Keeps the `keep` newest checkpoints of a run and the one with the highest `best_metric`."""
    policies = ocp.training.preservation_policies
    best = policies.BestN(
        get_metric_fn=lambda metrics: metrics[best_metric], n=1, keep_checkpoints_without_metrics=False
    )
    return ocp.training.Checkpointer(
        Path(workdir).absolute() / "checkpoints",
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        cleanup_tmp_directories=True,
    )


def save(
    checkpointer: ocp.training.Checkpointer, state: TrainState, metrics: Mapping[str, float], best_metric: str
) -> None:
    """Starts writing the state under its step number.

    A checkpoint competes for the best only with a finite `best_metric`: a small split can leave it undefined.

    Raises:
      InputError: this or the write before, which went on in the background, failed.
    """
    step = int(state.step)
    score = metrics.get(best_metric, math.nan)
    scores = {best_metric: score} if math.isfinite(score) else None
    rest = {"step": state.step, "opt_state": state.opt_state}
    try:
        checkpointer.save_checkpointables_async(
            step, {"params": state.params, "rest": rest}, metrics=scores, overwrite=True
        )
    except (OSError, ValueError) as error:  # the latter is how tensorstore says that the disk is full
        raise _unwritten(checkpointer, error) from error


def finish(checkpointer: ocp.training.Checkpointer) -> None:
    """Waits until everything is written.

    Raises:
      InputError: a write failed.
    """
    try:
        checkpointer.wait()
    except (OSError, ValueError) as error:  # the latter is how tensorstore says that the disk is full
        raise _unwritten(checkpointer, error) from error


def _unwritten(checkpointer: ocp.training.Checkpointer, error: Exception) -> InputError:
    return InputError(
        f"{checkpointer.directory}: a checkpoint cannot be written ({_reason(error)}); make room there and start "
        "again: the run continues from the last one that was"
    )


def restore(checkpointer: ocp.training.Checkpointer, state: TrainState) -> TrainState:
    """The newest saved state with the shapes and shardings of `state`, or `state` itself when nothing was saved.

    The devices and processes that saved it do not matter. A checkpoint that cannot be read is moved to the run's
    folder `damaged`, with a line on stderr, and the one before is taken.

    Raises:
      InputError: the checkpoint holds another architecture, or none of them can be read.
    """
    template = jax.tree.map(_abstract, state)
    rest = {"step": template.step, "opt_state": template.opt_state}
    found = sorted((saved.step for saved in checkpointer.checkpoints), reverse=True)
    for step in found:
        loaded, reason = None, ""
        try:
            check_shapes(checkpointer, step, template.params)
            loaded = checkpointer.load_checkpointables(step, {"params": template.params, "rest": rest})
        except InputError:
            raise
        except Exception as error:  # whatever a cut or overwritten file makes the reader stumble over
            reason = _reason(error)
        if _everywhere(loaded is not None):
            return TrainState(loaded["rest"]["step"], loaded["params"], loaded["rest"]["opt_state"])
        _set_aside(checkpointer, step, reason)
    if found:
        raise InputError(
            f"{checkpointer.directory}: none of the checkpoints {found} can be read; they are in {DAMAGED}/ now: start "
            "again to begin the run anew, or restore them from a copy"
        )
    return state


def _reason(error: Exception) -> str:
    """The first line of what a library says, without its dump of settings."""
    return re.sub(r"\[.*", "", str(error).partition("\n")[0]).strip()


def _everywhere(good: bool) -> bool:
    """Whether it is good on every process."""
    return bool(np.all(multihost_utils.process_allgather(np.array(good))))


def _set_aside(checkpointer: ocp.training.Checkpointer, step: int, reason: str) -> None:
    root = Path(checkpointer.directory)
    with processes.main_first(f"damaged {step}"):
        if processes.is_main():
            (root.parent / DAMAGED).mkdir(exist_ok=True)
            (root / str(step)).rename(root.parent / DAMAGED / f"{step}-{int((root / str(step)).stat().st_mtime)}")
            print(
                f"warning: checkpoint {step} cannot be read ({reason or 'on another process'}): it is in "
                f"{root.parent / DAMAGED} now, and the one before it is taken",
                file=sys.stderr,
                flush=True,
            )
    checkpointer.reload()


def load_params(workdir: str | Path, template: Any, step: int | None = None) -> Any:
    """Parameters of a run's checkpoint (the newest, or of one `step`) with the shapes and shardings of `template`.

    Raises:
      InputError: there is no such checkpoint, it cannot be read, or it holds another architecture.
    """
    root = Path(workdir).absolute() / "checkpoints"
    if not root.is_dir():
        raise InputError(f"{workdir}: no checkpoints/ folder; expected the workdir of a training run")
    with ocp.training.Checkpointer(root) as checkpointer:
        steps = [found.step for found in checkpointer.checkpoints]
        step = max(steps, default=None) if step is None else step
        if step not in steps:
            raise InputError(f"{root}: no checkpoint of step {step}; it holds {steps or 'none'}")
        try:
            check_shapes(checkpointer, step, template)
            return checkpointer.load_checkpointables(step, {"params": jax.tree.map(_abstract, template)})["params"]
        except InputError:
            raise
        except (OSError, ValueError) as error:
            rest = [other for other in steps if other != step]
            raise InputError(
                f"{root}/{step}: cannot be read ({_reason(error)}); take another step: {rest or 'there is none'}"
            ) from error


def check_shapes(checkpointer: ocp.training.Checkpointer, step: int, template: Any) -> None:
    """Raises InputError naming the first parameter that a checkpoint lacks or has in another shape."""
    saved = checkpointer.checkpointables_metadata(step).metadata["params"]
    if not saved:
        raise OSError(f"{checkpointer.directory}/{step}: its arrays cannot be read")
    shape = {path: tuple(leaf.shape) for path, leaf in _leaves(saved).items()}
    for path, leaf in _leaves(template).items():
        if shape.get(path) != tuple(leaf.shape):
            raise InputError(
                f"{checkpointer.directory}/{step}: a checkpoint of another architecture: {path} is "
                f"{shape.get(path, 'absent')} there and {tuple(leaf.shape)} in this configuration; use the config "
                "the run was trained with, or another workdir"
            )


def _leaves(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=getattr(x, "sharding", None))
