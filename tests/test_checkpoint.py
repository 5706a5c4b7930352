"""Which checkpoints of a run are kept."""

import jax.numpy as jnp
import pytest

from medp_clip_jax import checkpoint
from medp_clip_jax.step import TrainState

METRIC = "region/mask/macro"


def _kept(tmp_path, figures: list[dict[str, float]], keep: int = 2) -> list[int]:
    checkpointer = checkpoint.make_checkpointer(tmp_path, keep, METRIC)
    for step, metrics in enumerate(figures, 1):
        state = TrainState(jnp.asarray(step), {"w": jnp.ones(3)}, {"m": jnp.zeros(3)})
        checkpoint.save(checkpointer, state, metrics, METRIC)
    checkpointer.close()
    with checkpoint.make_checkpointer(tmp_path, keep, METRIC) as reopened:
        return [found.step for found in reopened.checkpoints]


@pytest.mark.short
@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ([{}, {}, {}, {}], [3, 4]),  # a run without evaluations
        ([{METRIC: 0.1}, {METRIC: 0.9}, {}, {METRIC: 0.2}, {}], [2, 4, 5]),
        ([{METRIC: 0.3}, {METRIC: float("nan")}, {"other": 1.0}, {}], [1, 3, 4]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, figures, kept):
    assert _kept(tmp_path, figures) == kept
