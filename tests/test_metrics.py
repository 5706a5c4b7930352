"""The history of a run survives restarts, kills and figures that are no numbers."""

import contextlib
import json
import os

import pytest
import tensorboardX

from medp_clip_jax.metrics import MetricWriter


@contextlib.contextmanager
def writer(workdir, start=0):
    with contextlib.closing(MetricWriter(workdir, start, 10)) as opened:
        yield opened


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text().splitlines()


def test_a_restart_keeps_the_lines_up_to_its_step(tmp_path):
    with writer(tmp_path) as opened:
        for step in (1, 2, 3):
            opened.write(step, {"loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[2]\n7\n{"step": null}\n{"loss": 1.0}\n{"step": 2, "lo')  # the last as a kill cuts it
    with writer(tmp_path, 2) as opened:
        opened.write(3, {"loss": 0.25})
    assert [json.loads(line) for line in lines(tmp_path)] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "speed.jsonl", "tensorboard"]


def test_a_kill_at_the_restart_loses_nothing(tmp_path, monkeypatch):
    with writer(tmp_path) as opened:
        opened.write(1, {"loss": 0.5})
    before = lines(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        MetricWriter(tmp_path, 1, 10)
    assert lines(tmp_path) == before


def test_what_is_not_finite_is_null(tmp_path):
    with writer(tmp_path) as opened:
        opened.write(1, {"a": float("nan"), "b": float("-inf"), "c": 2.0})
    assert lines(tmp_path) == ['{"step": 1, "a": null, "b": null, "c": 2.0}']


def test_tensorboard_drops_what_comes_after_the_checkpoint_only(tmp_path, monkeypatch):
    given = {}
    real = tensorboardX.SummaryWriter
    monkeypatch.setattr(tensorboardX, "SummaryWriter", lambda *a, **named: given.update(named) or real(*a, **named))
    with writer(tmp_path, 4):
        pass
    assert given["purge_step"] == 5  # it purges this step and all later ones


def test_throughput_is_shown_but_not_in_the_file(tmp_path):
    with writer(tmp_path) as opened:
        opened.advance(8, 20)
        opened.report(1, {"loss": 0.5}, {"step": 3.0, "input": 1.0, "compile": 0.0}, 0.6)
    assert lines(tmp_path) == ['{"step": 1, "loss": 0.5}']
    (speed,) = (tmp_path / "speed.jsonl").read_text().splitlines()
    assert json.loads(speed) == {"step": 1, "images/s": 2.0, "regions/s": 5.0, "input_wait": 0.25, "goodput": 0.6}
