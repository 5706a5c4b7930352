"""Checkpoints of a run: saved asynchronously by Orbax, restored exactly, and read for their parameters alone."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from medp_clip_jax.errors import InputError
from medp_clip_jax.step import TrainState


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
    """Starts writing the state under its step number; a failure of an earlier write is raised here.

    A checkpoint competes for the best only with a finite `best_metric`: a small split can leave it undefined.
    """
    step = int(state.step)
    score = metrics.get(best_metric, math.nan)
    scores = {best_metric: score} if math.isfinite(score) else None
    rest = {"step": state.step, "opt_state": state.opt_state}
    checkpointer.save_checkpointables_async(
        step, {"params": state.params, "rest": rest}, metrics=scores, overwrite=True
    )


def restore(checkpointer: ocp.training.Checkpointer, state: TrainState) -> TrainState:
    """The newest saved state with the shapes and shardings of `state`, or `state` itself when nothing was saved.

    Raises:
      InputError: the checkpoint holds another architecture.
    """
    latest = checkpointer.latest
    if latest is None:
        return state
    template = jax.tree.map(_abstract, state)
    check_shapes(checkpointer, latest.step, template.params)
    rest = {"step": template.step, "opt_state": template.opt_state}
    loaded = checkpointer.load_checkpointables(latest.step, {"params": template.params, "rest": rest})
    return TrainState(loaded["rest"]["step"], loaded["params"], loaded["rest"]["opt_state"])


def load_params(workdir: str | Path, template: Any, step: int | None = None) -> Any:
    """Parameters of a run's checkpoint (the newest, or of one `step`) with the shapes and shardings of `template`.

    Raises:
      InputError: there is no such checkpoint, or it holds another architecture.
    """
    root = Path(workdir).absolute() / "checkpoints"
    if not root.is_dir():
        raise InputError(f"{workdir}: no checkpoints/ folder; expected the workdir of a training run")
    with ocp.training.Checkpointer(root) as checkpointer:
        steps = [found.step for found in checkpointer.checkpoints]
        step = max(steps, default=None) if step is None else step
        if step not in steps:
            raise InputError(f"{root}: no checkpoint of step {step}; it holds {steps or 'none'}")
        check_shapes(checkpointer, step, template)
        return checkpointer.load_checkpointables(step, {"params": jax.tree.map(_abstract, template)})["params"]


def check_shapes(checkpointer: ocp.training.Checkpointer, step: int, template: Any) -> None:
    """Raises InputError naming the first parameter that a checkpoint lacks or has in another shape."""
    saved = checkpointer.checkpointables_metadata(step).metadata["params"]
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
