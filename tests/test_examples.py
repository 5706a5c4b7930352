"""Every example runs, and so does the README's section on the Python API."""

import importlib
import pathlib
import re

import numpy as np
import pytest
import tiny_run
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("runs") / "runs" / "smoke")


def _output(capsys, name, *arguments):
    importlib.import_module(f"examples.{name}").main([name, *map(str, arguments)])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zero_shot_regions", r"\d+ of \d+ regions named right among \d+ labels"),
        ("linear_probe", r"(?s)linear probe on \d+ regions: [\d.]+%.*of 1 regions.*of 4 regions"),
        ("multimodal_llm", r"\d+ tokens of width 256: \d+ patches, 2 regions"),
    ],
)
def test_an_example_says_what_it_promises(run, capsys, name, expected):
    assert re.search(expected, _output(capsys, name, run))


def test_the_head_in_an_nnx_module_learns(run, capsys):
    before, after = map(float, re.findall(r"([\d.]+) (?:before|after)", _output(capsys, "nnx_module", run)))
    assert after < before


def test_an_image_finds_itself_first(run, capsys, tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"{name}.png")
    found = _output(capsys, "retrieval", run, tmp_path, tmp_path / "b.png").splitlines()
    assert len(found) == 3 and found[0].startswith("1.000") and found[0].endswith("b.png")
    assert len(_output(capsys, "retrieval", run, tmp_path, "liver").splitlines()) == 3


def test_every_example_is_tested():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__", "phantom_regions"}
    text = pathlib.Path(__file__).read_text()
    assert all(f'"{name}"' in text for name in names)


def test_the_readme_api_section_runs(run, tmp_path, monkeypatch):
    section = (ROOT / "README.md").read_text().split("## Name a region")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert blocks
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)).save(tmp_path / "scan.png")
    (tmp_path / "runs").symlink_to(run.parent)
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert scope["scores"].shape == (1, 1, 3) and np.allclose(scope["scores"].sum(-1), 1)
    assert scope["regions"].shape[:2] == (1, 1) and len(scope["text"]) == 3
