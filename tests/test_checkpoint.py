"""Which checkpoints of a run are kept, and what happens to those that cannot be read or written."""

import pathlib
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from medp_clip_jax import checkpoint
from medp_clip_jax.errors import InputError
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


def state(step: int) -> TrainState:
    return TrainState(jnp.asarray(step, jnp.int32), {"w": jnp.full((64, 3), float(step))}, {"m": jnp.zeros(3)})


def save_steps(workdir: pathlib.Path, *steps: int) -> None:
    with checkpoint.make_checkpointer(workdir, 3, METRIC) as checkpointer:
        for step in steps:
            checkpoint.save(checkpointer, state(step), {}, METRIC)
        checkpoint.finish(checkpointer)


def cut_all(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_arrays(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in ("_CHECKPOINT_METADATA", "_METADATA"):
            path.unlink()


def overwrite_arrays(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and "ocdbt" in str(path):
            path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [cut_all, remove_arrays, overwrite_arrays])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_taken(tmp_path, capsys, damage):
    save_steps(tmp_path, 1, 2, 3)
    damage(tmp_path / "checkpoints/3")
    with checkpoint.make_checkpointer(tmp_path, 3, METRIC) as checkpointer:
        restored = checkpoint.restore(checkpointer, state(0))
        assert int(restored.step) == 2
        np.testing.assert_array_equal(restored.params["w"], state(2).params["w"])
        warning = capsys.readouterr().err
        assert "checkpoint 3 cannot be read" in warning and warning.count("\n") == 1
        checkpoint.save(checkpointer, state(3), {}, METRIC)  # the step comes again
        checkpoint.finish(checkpointer)
    assert len(list((tmp_path / checkpoint.DAMAGED).iterdir())) == 1
    with checkpoint.make_checkpointer(tmp_path, 3, METRIC) as checkpointer:
        assert int(checkpoint.restore(checkpointer, state(0)).step) == 3


def test_parameters_of_a_damaged_checkpoint_are_refused_by_name(tmp_path):
    save_steps(tmp_path, 1, 2)
    cut_all(tmp_path / "checkpoints/2")
    with pytest.raises(InputError, match=r"checkpoints/2: cannot be read .* take another step: \[1\]"):
        checkpoint.load_params(tmp_path, state(0).params)


def test_when_none_can_be_read_the_run_does_not_begin_anew_by_itself(tmp_path):
    save_steps(tmp_path, 1, 2)
    for step in (1, 2):
        cut_all(tmp_path / f"checkpoints/{step}")
    with (
        checkpoint.make_checkpointer(tmp_path, 3, METRIC) as checkpointer,
        pytest.raises(InputError, match=r"none of the checkpoints \[2, 1\] can be read"),
    ):
        checkpoint.restore(checkpointer, state(0))


def test_a_checkpoint_of_other_shapes_is_no_damage(tmp_path):
    save_steps(tmp_path, 1)
    other = TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros((5, 3))}, {"m": jnp.zeros(3)})
    with (
        checkpoint.make_checkpointer(tmp_path, 3, METRIC) as checkpointer,
        pytest.raises(InputError, match="another architecture: w"),
    ):
        checkpoint.restore(checkpointer, other)
    assert (tmp_path / "checkpoints/1").is_dir()


def test_a_write_that_fails_ends_the_run_with_a_line(tmp_path):
    save_steps(tmp_path, 1)
    noise = np.random.default_rng(0).random((1000, 1000), np.float32)  # does not compress
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with checkpoint.make_checkpointer(tmp_path, 3, METRIC) as checkpointer:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # as good as a full disk
            with pytest.raises(InputError, match="cannot be written"):
                large = state(2).replace(params={"w": jnp.asarray(noise)})
                checkpoint.save(checkpointer, large, {}, METRIC)
                checkpoint.finish(checkpointer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    with checkpoint.make_checkpointer(tmp_path, 3, METRIC) as checkpointer:
        assert int(checkpoint.restore(checkpointer, state(0)).step) == 1
