"""Sweeps of evaluations: what each command writes becomes metrics of one table."""

import csv
import importlib
import json
import subprocess
import sys

import corpus_cases
import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st

from medp_clip_jax import evidence, sweep_cells, sweep_results
from medp_clip_jax.errors import InputError

NUMBERS = st.one_of(st.none(), st.integers(-9, 9), st.floats(allow_nan=False))
NESTED = st.recursive(
    NUMBERS, lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, max_size=3), max_leaves=9
)


@given(NESTED)
def test_nested_numbers_are_found_by_their_way(nested):
    found = dict(sweep_results.flat(nested, "root"))
    for name, value in found.items():
        place = nested
        for key in name.split("/")[1:]:
            place = place[key]
        assert place == value
    assert list(found.values()) == list(numbers(nested))


def numbers(nested):
    for each in nested.values() if isinstance(nested, dict) else [nested]:
        yield from numbers(each) if isinstance(each, dict) else [each]


def test_of_an_interval_the_estimate_is_taken_and_of_words_nothing():
    interval = {"estimate": 0.5, "low": 0.4, "high": None}
    content = {"all of it": interval, "drawn": {"mean": None, "deviation": 0.1}, "note": "x", "list": [1], "sure": True}
    assert dict(sweep_results.flat(content, "p")) == {"p/all_of_it": 0.5, "p/drawn": None}
    assert dict(sweep_results.flat({"mean": {"dice": {"value": 1, "low": 0}}}, "p")) == {"p/mean/dice": 1}


@pytest.mark.parametrize(
    ("cell", "content", "expected"),
    [
        (
            {"evaluator": "robustness"},
            {
                "unchanged": {"mask": {"micro": {"estimate": 0.9, "low": 0.8, "high": 1}}},
                "changes": [
                    {
                        "change": "noise",
                        "strength": 0.16,
                        "kinds": {"mask": {"micro": {"accuracy": 0.5, "difference": {"estimate": -0.4}}}},
                    }
                ],
            },
            {
                "robustness/unchanged/mask/micro": 0.9,
                "robustness/noise_0.16/mask/micro/accuracy": 0.5,
                "robustness/noise_0.16/mask/micro/difference": -0.4,
            },
        ),
        (
            {"evaluator": "falsification"},
            {"global": {"none": {"image/auroc": 0.7}}, "change": {"none": 0.0, "small": 0.25}},
            {"falsification/global/none/image/auroc": 0.7, "falsification/change": 0.25},
        ),
        (
            {"evaluator": "linear_probe"},
            {
                "regions": {
                    "box": {"full": {"C": 10.0, "macro": {"estimate": 0.6}}, "shots": {"4": {"macro": {"mean": 0.3}}}}
                }
            },
            {
                "probe/regions/box/full/C": 10,
                "probe/regions/box/full/macro": 0.6,
                "probe/regions/box/shots/4/macro": 0.3,
            },
        ),
        (
            {"evaluator": "interactive_segmentation", "protocol": "center"},
            {"mean": {"dice/box": {"value": 0.8}}, "noc": {"NoC@85": {"clicks": 3.5}}, "regions": 7},
            {"segmentation/mean/dice/box": 0.8, "segmentation/noc/NoC@85/clicks": 3.5},
        ),
        ({"evaluator": "text_to_mask"}, {"dice": {"value": 0.4}, "present": 9}, {"text_to_mask/dice": 0.4}),
        (
            {},
            {
                "metrics": {"region/mask/micro": 0.5},
                "details": {"kinds": {"mask": {"area": {"under 1 patch": {"regions": 3, "micro": 0.2}}}}},
            },
            {
                "region/mask/micro": 0.5,
                "region/mask/micro/under_1_patch": 0.2,
                "region/mask/macro/under_1_patch": None,
                "region/mask/within_image/under_1_patch": None,
            },
        ),
    ],
    ids=lambda value: value.get("evaluator", "evaluate") if isinstance(value, dict) and len(value) < 3 else "",
)
def test_what_each_command_writes_is_read(tmp_path, cell, content, expected):
    path = tmp_path / sweep_cells.result_file(cell)
    path.write_text(
        json.dumps({"commit": "abc", "data": {"name": "d"}, "seed": 3, "checkpoint": {"name": "r"}, **content})
    )
    found = sweep_results.read_cell(tmp_path, cell)
    assert found["metrics"] == expected and found["seed"] == 3 and found["data"] == {"name": "d", "checksum": None}
    assert found["checkpoint"] == {"name": "r"}
    path.write_text("{")
    with pytest.raises(InputError, match="remove it, and start the sweep again"):
        sweep_results.read_cell(tmp_path, cell)


def test_commands_are_named_with_the_files_that_they_write():
    assert set(sweep_results.PARTS) == set(sweep_cells.FILES) - {"evaluate"}
    for name in ("robustness", "linear_probe", "falsification"):
        assert importlib.import_module(f"medp_clip_jax.evaluators.{name}").FILE == sweep_cells.FILES[name]
    assert sweep_cells.result_file({"evaluator": "interactive_segmentation", "protocol": "a"}) == "segmentation_a.json"
    cell = {"checkpoint": "r", "evaluator": "robustness", "kinds": ("mask", "box"), "seed": 1}
    module, given = sweep_cells.arguments(sweep_cells.Sweep("", {}), cell, "o")
    assert module == "medp_clip_jax.evaluators.robustness"
    assert given == ["--checkpoint=r", "--kinds=mask,box", "--seed=1", "--output=o"]


def test_an_unknown_command_is_refused(tmp_path):
    (tmp_path / "a.py").write_text(
        "import ml_collections\ndef get_sweep():\n    s = ml_collections.ConfigDict()\n"
        "    s.grid = (('checkpoint', ('r',)), ('evaluator', ('robust',)))\n    return s\n"
    )
    with pytest.raises(InputError, match="expected an evaluator among evaluate, robustness"):
        sweep_cells.read_sweep(str(tmp_path / "a.py"))


def test_a_release_is_asked_by_several_commands_with_several_seeds(tmp_path):
    run, data = tiny_run.write_run(tmp_path / "run"), corpus_cases.write_folder(tmp_path / "own")
    (tmp_path / "tiny.py").write_text(
        "from configs.sweeps import evaluators_shipped\n"
        "def get_sweep():\n"
        "    sweep = evaluators_shipped.get_sweep()\n"
        f"    at = {{'checkpoint': {str(run)!r}, 'data': {str(data)!r}, 'sources': ()}}\n"
        "    sweep.grid = ()\n"
        "    pairs = (('evaluate', 0), ('robustness', 0), ('robustness', 1))\n"
        "    sweep.cells = tuple({**at, 'evaluator': name, 'seed': seed} for name, seed in pairs)\n"
        "    return sweep\n"
    )

    def command(output):
        line = [sys.executable, "-m", "medp_clip_jax.sweep", f"--config={tmp_path / 'tiny.py'}", "--jobs=3"]
        line += [f"--output={tmp_path / output}", f"--evidence={tmp_path}"]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    done = command("here")
    assert done.returncode == 0, done.stdout + done.stderr + "".join(p.read_text() for p in tmp_path.rglob("log.txt"))
    (row,) = evidence.read(tmp_path / "tiny.json").rows
    assert row.name == f"checkpoint {run}" and len(row.cells) == 3
    assert len(row.values["region/mask/micro"]) == 1 and len(row.values["region/mask/micro/over_4_patches"]) == 1
    assert len(row.values["robustness/noise_0.16/mask/micro/accuracy"]) == 2
    assert len(row.values["robustness/unchanged/mask/micro"]) == 2
    assert row.values["robustness/unchanged/mask/micro"] == 2 * [pytest.approx(row.mean("region/mask/micro"), abs=1e-5)]
    with (tmp_path / "here" / "results.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == "robustness/noise_0.16/mask/micro/accuracy"]
    assert [(line["evaluator"], line["seed"]) for line in lines] == [("robustness", "0"), ("robustness", "1")]
    again = command("elsewhere")  # all is in the evidence
    assert again.returncode == 0 and "3 of 3 cells are in" in again.stdout
    assert [path.name for path in (tmp_path / "elsewhere").iterdir() if path.is_dir()] == []
    assert (tmp_path / "elsewhere" / "results.csv").read_text() == (tmp_path / "here" / "results.csv").read_text()
