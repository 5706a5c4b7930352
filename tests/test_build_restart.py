"""Builds as processes that are killed, started again, or run by Beam: the corpus is the uninterrupted one's, to the
byte."""

import os
import random
import subprocess
import sys
import time

import pytest

PHANTOMS = ("--source=phantoms", "--val=0", "--test=0", "--size=48")


def command(output, train, *arguments):
    return [sys.executable, "-m", "data.build", *PHANTOMS, f"--train={train}", f"--output={output}", *arguments]


def content(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def finished(tmp_path):
    """Finished shards by inode -> when they were written; at the build's end they move and get other names."""
    marks = (tmp_path / ".corpus.building").rglob("*.done.json")
    parts = [mark.with_name(mark.name.replace("done.json", "array_record")) for mark in marks]
    return {state.st_ino: state.st_mtime_ns for part in parts for state in [part.stat()]}


def kill_some_time(tmp_path, train, rng, wait_for, workers):
    """Starts the build, kills it a random while after `wait_for` more shards, and returns the finished ones."""
    before = finished(tmp_path)
    process = subprocess.Popen(
        command(tmp_path / "corpus", train, f"--workers={workers}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while len(finished(tmp_path)) < len(before) + wait_for:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    process.kill()
    process.communicate()
    time.sleep(0.2)  # workers end by themselves
    after = finished(tmp_path)
    assert before.items() <= after.items(), "finished shards were done again"
    return after


def kills(tmp_path, train, waits, workers):
    """A build killed once for each of `waits` (shards to wait for), then left to its end."""
    rng = random.Random(train)
    for wait_for in waits:
        before = kill_some_time(tmp_path, train, rng, wait_for, workers)
        assert not (tmp_path / "corpus").exists()
    done = subprocess.run(command(tmp_path / "corpus", train, f"--workers={workers}"), capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    kept = {path.stat().st_ino for path in (tmp_path / "corpus").rglob("*.array_record-*")}
    assert before.keys() <= kept, "finished shards were done again"
    whole = subprocess.run(command(tmp_path / "whole", train, "--workers=1"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert content(tmp_path / "corpus") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "whole"]


def test_two_kills(tmp_path):
    kills(tmp_path, 780, (1, 1), workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_ten_kills(tmp_path, workers):
    kills(tmp_path, 1300, (0, 1, 2, 0, 3, 1, 0, 2, 1, 1), workers)


@pytest.mark.parametrize("runner", ["--runner=DirectRunner"])
def test_beam_writes_the_same_bytes(tmp_path, runner):
    pytest.importorskip("apache_beam")
    options = "--beam_option=direct_num_workers=2", "--beam_option=direct_running_mode=multi_processing"
    for output, arguments in (("corpus", (runner, *options)), ("whole", ("--workers=1",))):
        done = subprocess.run(command(tmp_path / output, 130, *arguments), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "corpus") == content(tmp_path / "whole")
    assert len(list((tmp_path / "corpus").rglob("*.array_record-*"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "whole"]


def test_what_beam_cannot_do_is_one_line(tmp_path):
    pytest.importorskip("apache_beam")
    for arguments, told in (
        (("--runner=NoSuchRunner",), "NoSuchRunner"),
        (("--beam_option=a=b",), "--beam_option needs --runner"),
    ):
        done = subprocess.run(command(tmp_path / "corpus", 5, *arguments), capture_output=True, text=True)
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ") and told in lines[0], lines
        assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_one_line_and_what_is_finished_goes_on(tmp_path):
    process = subprocess.Popen(
        command(tmp_path / "corpus", 2000, "--workers=2"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    incomplete = []
    while not finished(tmp_path) or not incomplete:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
        incomplete = list(tmp_path.rglob("*.array_record.incomplete-*"))
    os.kill(int(incomplete[0].name.rpartition("-")[2]), 9)
    err = process.communicate()[1]
    assert process.returncode == 2 and err.startswith("error: a worker process was killed") and err.count("\n") == 1
    assert finished(tmp_path) and not list(tmp_path.rglob("*incomplete*"))
    done = subprocess.run(
        command(tmp_path / "corpus", 3, "--workers=1", "--fresh"), capture_output=True, text=True
    )  # another recipe
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
