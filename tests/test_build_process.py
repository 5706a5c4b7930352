"""A build as a process: its command line, interrupts, kills, a full disk, and two builds at once."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from corpus_cases import build, write_folder
from PIL import Image

import data.ontology
from data.build import build_corpus
from data.report import Report
from data.sources.phantoms import phantom_source
from medp_clip_jax.corpus import open_corpus
from medp_clip_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "first")


def content(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_an_output_that_is_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("precious")
    (tmp_path / "empty").mkdir()
    for output in (tmp_path / "file", tmp_path / "full"):
        with pytest.raises(InputError, match="exists and is no corpus"):
            build(folder, output)
    with pytest.raises(InputError, match="file/corpus: cannot be written .*--output"):
        build(folder, tmp_path / "file/corpus")
    build(folder, tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "first", "full"]
    assert (tmp_path / "file").read_text() == (tmp_path / "full/file").read_text() == "precious"


@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupt_leaves_what_was_there(folder, tmp_path, exists, monkeypatch):
    output = tmp_path / "corpus"
    if exists:
        build(folder, output)
        Image.new("L", (40, 30), 7).save(folder / "images/0.png")
    before = content(output)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data.sources.regions.encode_mask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(folder, output)
    assert content(output) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == (["corpus"] if exists else []) + ["first"]


def test_what_a_killed_build_left_is_cleaned(folder, tmp_path):
    output = tmp_path / "corpus"
    build(folder, output)
    before = content(output)
    (tmp_path / ".corpus.building/half").mkdir(parents=True)
    (tmp_path / ".corpus.building/file").write_text("half")
    output.rename(tmp_path / ".corpus.replaced")  # killed between the two renames
    build(folder, output)
    assert content(output) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "first"]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "data.build", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )


def test_the_command_line(tmp_path):
    output = tmp_path / "corpus"
    phantoms = ("--source=phantoms", f"--output={output}", "--train=3", "--val=2", "--test=0", "--size=48")
    process = start(*phantoms)
    out, err = process.communicate()
    assert process.returncode == 0 and not err, err
    assert "phantoms" in out and "5 images" in out
    corpus = open_corpus(output)
    assert (corpus.count("phantoms", "train"), corpus.count("phantoms", "val")) == (3, 2)
    assert set(corpus.labels) <= set(data.ontology.load())
    process = start("--source=folder", f"--output={output}")
    out, err = process.communicate()
    assert process.returncode == 2 and err == "error: --source=folder needs --input=DIR: the folder with the images\n"
    process = start(*phantoms, "stray")
    assert "unexpected argument 'stray'" in process.communicate()[1] and process.returncode == 2


@pytest.mark.parametrize("room", [1_000, 100_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, room):
    code = f"""
import resource, runpy
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, before[1]))
try:
    runpy.run_module("data.build", run_name="__main__")
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)  # what measures coverage writes a file at the end
"""
    arguments = ("--source=phantoms", f"--output={tmp_path / 'corpus'}", "--train=60", "--val=0", "--test=0")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and re.fullmatch(r"error: .*(room|--output).*\n", done.stderr), done.stderr
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing_half_written(tmp_path, sign):
    output = tmp_path / "corpus"
    process = start("--source=phantoms", f"--output={output}", "--train=100000", "--size=48")
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*incomplete*")):  # until records are being written
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, sign)
    err = process.communicate(timeout=120)[1]
    assert not output.exists()
    if sign == signal.SIGKILL:  # left behind, and cleaned by the next build
        shipped = data.ontology.load()
        build_corpus(output, [lambda _: phantom_source({"train": 1}, 0, 48)], shipped, Report())
        assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    else:
        assert process.returncode == 130 and err == "error: interrupted: the corpus is as it was before\n"
        assert not list(tmp_path.iterdir())


def test_two_builds_of_one_corpus_wait_for_each_other(tmp_path):
    output = tmp_path / "corpus"
    arguments = ("--source=phantoms", f"--output={output}", "--train=30", "--val=0", "--test=0", "--size=48")
    processes = [start(*arguments) for _ in range(3)]
    outs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted("unchanged" in out for out in outs) == [False, True, True]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
