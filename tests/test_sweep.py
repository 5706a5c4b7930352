"""Sweeps: cells and their names, what is run again and what is not, and the table."""

import itertools
import json
import os
import pathlib
import signal
import sys
import threading

import pytest
from encoded_cases import IDS, ONTOLOGY, TEXT, encoded, image, table
from hypothesis import given
from hypothesis import strategies as st

import configs
from medp_clip_jax import evidence, sweep_cells, sweep_jobs, sweep_match, sweep_table
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import predictions, region_recognition
from medp_clip_jax.processes import EXIT_PREEMPTED

GRID = (("model.fusion", ("tokens", "late")), ("seed", (0, 1)))
# A training that leaves its results, or fails where it is told to; it waits to be stopped while there is a file `wait`.
PROGRAM = """
import json, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[-1].split("=", 1)[1])
print("ran", *sys.argv[1:], flush=True)
if not (folder.parent / "deaf").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
while (folder.parent / "wait").exists():
    (folder / "waiting").touch()
    time.sleep(0.01)
if any("fusion=late" in word for word in sys.argv) and (folder.parent / "fail").exists():
    sys.exit(3)
value = 0.5 + 0.1 * any("seed=1" in word for word in sys.argv)
content = {"metrics": {"region/mask/macro": value}, "commit": "abc", "data": {"name": "d", "checksum": "1"}}
content["config"] = json.loads((folder / "config.json").read_text())
(folder / "results.json").write_text(json.dumps(content))
"""


def made(**fields) -> sweep_cells.Sweep:
    return sweep_cells.Sweep(
        "configs/smoke.py", {sweep_cells.cell_name(c): c for c in cells(**fields)}, ("region/mask/macro",)
    )


def cells(fusions=("tokens", "late"), seeds=(0, 1)):
    return [{"model.fusion": fusion, "seed": seed} for fusion in fusions for seed in seeds]


def run(grid, folder, jobs=1, kept=()):
    seen, wanted = [], sweep_cells.configurations(grid)

    def command(module, given):
        cell = pathlib.Path(given[-1].split("=", 1)[1])
        (cell / "config.json").write_text(json.dumps(wanted[cell.name].to_dict()))
        return [sys.executable, "-c", PROGRAM, *given]

    codes = sweep_jobs.run(grid, folder, jobs, lambda: seen.append(1), kept, command)
    assert len(seen) == sum((folder / name / sweep_jobs.LOG).exists() for name in codes)
    return codes


def written(folder, body: str):
    path = folder / "grid.py"
    head = "import ml_collections\ndef get_sweep():\n    s = ml_collections.ConfigDict()\n"
    path.write_text(f"{head}{body}    return s\n")
    return str(path)


def finished(output, grid, name, value=0.5):
    """A cell that has run."""
    folder, wanted = output / name, sweep_match.asked(grid)[name]
    content = {"metrics": {"region/mask/macro": value}, "commit": "abc", "data": {"name": "d", "checksum": "1"}}
    folder.mkdir(parents=True, exist_ok=True)
    sweep_match.note(folder, grid, name)
    (folder / "results.json").write_text(json.dumps(content | ({"config": wanted.to_dict()} if grid.config else {})))


def test_a_grid_is_read_as_the_product_of_its_values(tmp_path):
    body = f"    s.config = 'configs/smoke.py'\n    s.grid = {GRID!r}\n"
    body += "    s.cells = ({'seed': 7},)\n    s.metrics = ('a',)\n"
    found = sweep_cells.read_sweep(written(tmp_path, body))
    names = ["fusion=tokens,seed=0", "fusion=tokens,seed=1", "fusion=late,seed=0", "fusion=late,seed=1", "seed=7"]
    assert list(found.cells) == names and found.metrics == ("a",)
    module, given = sweep_cells.arguments(found, found.cells["fusion=late,seed=1"], tmp_path)
    assert module == "medp_clip_jax.train"
    assert given == [
        "--config=configs/smoke.py",
        "--config.model.fusion=late",
        "--config.seed=1",
        f"--config.workdir={tmp_path}",
    ]


def test_settings_have_titles_and_several_fields(tmp_path):
    body = "    s.config = 'configs/smoke.py'\n    s.grid = (('seed', (0, 1)),)\n"
    body += "    s.settings = (('MedP-CLIP', {}), ('alpha', {'model.fusion': 'alpha', 'train.steps': 7}))\n"
    body += "    s.cells = ({'setting': 'alpha', 'seed': 2, **s.settings[1][1]},)\n"  # one more seed of a row
    found = sweep_cells.read_sweep(written(tmp_path, body))
    titles = [f"setting={title},seed={seed}" for seed in (0, 1) for title in ("MedP-CLIP", "alpha")]
    titles.append("setting=alpha,seed=2")
    assert list(found.cells) == titles
    assert found.cells[titles[-1]] == found.cells["setting=alpha,seed=0"] | {"seed": 2}
    _, given = sweep_cells.arguments(found, found.cells["setting=alpha,seed=1"], tmp_path)
    assert sorted(given[1:-1]) == ["--config.model.fusion=alpha", "--config.seed=1", "--config.train.steps=7"]
    assert sweep_cells.arguments(found, found.cells["setting=MedP-CLIP,seed=0"], tmp_path)[1][1] == "--config.seed=0"
    for name in titles:
        finished(tmp_path, found, name)
    rows = sweep_table.write(tmp_path, found).rows
    assert [(row.name, len(row.cells)) for row in rows] == [("MedP-CLIP", 2), ("alpha", 3)]


def test_a_setting_crossed_with_another_field_is_a_row_each(tmp_path):
    body = "    s.config = 'configs/smoke.py'\n    s.grid = (('train.steps', (100, 200)), ('seed', (0, 1)))\n"
    body += "    s.settings = (('ours', {}), ('tau 0', {'loss.tau': 0.0}))\n"
    path = written(tmp_path, body)
    found = sweep_cells.read_sweep(path)
    for name, cell in found.cells.items():
        finished(tmp_path, found, name, cell["train.steps"] / 1000 + ("loss.tau" in cell) / 2)
    rows = sweep_table.write(tmp_path, found).rows
    assert [(row.name, len(row.cells), row.mean("region/mask/macro")) for row in rows] == [
        ("tau 0, steps 200", 2, 0.7),
        ("tau 0, steps 100", 2, 0.6),
        ("ours, steps 200", 2, 0.2),
        ("ours, steps 100", 2, 0.1),
    ]
    pathlib.Path(path).write_text(
        pathlib.Path(path).read_text().replace("return s", "s.pooled = ('train.steps',); return s")
    )
    rows = sweep_table.write(tmp_path, sweep_cells.read_sweep(path)).rows
    assert [(row.name, sorted(row.values["region/mask/macro"])) for row in rows] == [
        ("tau 0", [0.6, 0.6, 0.7, 0.7]),
        ("ours", [0.1, 0.1, 0.2, 0.2]),
    ]


@given(
    st.dictionaries(
        st.sampled_from(("data.corpus", "train.steps", "model.image.width", "model.text.width")),
        st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    ),
    st.booleans(),
    st.data(),
)
def test_rows_are_told_apart_by_all_that_is_not_pooled(grid, titled, data):
    cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    made = [{**({"setting": title} if titled else {}), **cell} for cell in cells for title in ("a", "b")[: 1 + titled]]
    pooled = tuple(data.draw(st.sets(st.sampled_from(sorted(grid)))) if grid else ())
    found = sweep_cells.Sweep("c", {sweep_cells.cell_name(cell): cell for cell in made}, (), tuple(grid), pooled)
    keys = {repr([(f, v) for f, v in sorted(cell.items()) if f not in pooled]) for cell in found.cells.values()}
    names = {sweep_table.Row(found.row(name), [], {}, {}).name for name in found.cells}
    assert len({repr(found.row(name)) for name in found.cells}) == len(keys) == len(names)


def test_evaluations_are_cells_too(tmp_path):
    body = "    s.grid = (('checkpoint', ('runs/a', 'runs/b')), ('data', ('d',)), ('kinds', (('mask', 'box'),)))\n"
    found = sweep_cells.read_sweep(written(tmp_path, body))
    module, given = sweep_cells.arguments(found, next(iter(found.cells.values())), tmp_path)
    assert module == "medp_clip_jax.evaluate"
    assert given == ["--checkpoint=runs/a", "--data=d", "--kinds=mask,box", f"--output={tmp_path}"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    s.grid = (('seed', 3),)\n", "expected pairs"),
        ("    s.config = 'c'\n", "no cells"),
        ("    s.config = 'c'\n    s.settings = (('late', 3),)\n", "settings: expected pairs"),
        ("    s.config = 'c'\n    s.grid = (('seed', (1, 1)),)\n", "twice"),
        (
            "    s.config = 'c'\n    s.grid = (('a', (1,)),)\n    s.settings = (('b', {'a': 2}),)\n",
            "'b' sets a, a field",
        ),
        ("    s.config = 'c'\n    s.grid = (('a', (1,)),)\n    s.pooled = ('b',)\n", "pooled: expected fields of the"),
        ("    s.grid = (('seed', (1, 2)),)\n", "a config to train, or a checkpoint"),
        ("    s.wrong = 1\n", "fields among"),
    ],
)
def test_what_is_no_sweep_is_refused_in_words(tmp_path, body, words):
    with pytest.raises(InputError, match=words):
        sweep_cells.read_sweep(written(tmp_path, body))


def test_a_missing_file_or_function_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        sweep_cells.read_sweep(str(tmp_path / "none.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match="get_sweep"):
        sweep_cells.read_sweep(str(tmp_path / "empty.py"))


def test_the_shipped_grids_can_be_read():
    folder = pathlib.Path(next(iter(configs.__path__)), "sweeps")
    counts = {"baselines_phantoms": 21, "baselines_regions": 18, "ablations_phantoms": 28}
    counts |= {"segmentation_cost_phantoms": 6, "global_view_regions": 16, "distillation_phantoms": 3}
    counts |= {"distillation_regions": 3}
    counts |= {
        "scaling_data_phantoms": 5,
        "scaling_models_phantoms": 5,
        "shipped_model": 3,
        "folds_regions": 27,
        "evaluators_shipped": 8,
    }
    for name, count in counts.items():
        assert len(sweep_cells.read_sweep(f"{folder / name}.py").cells) == count


def test_settings_of_equal_compute_train_for_the_same_flops():
    from configs import smoke
    from configs.sweeps import baselines_phantoms as grid
    from medp_clip_jax.flops import step_flops

    spent = {}
    for title, fields in grid.get_sweep().settings:
        config = smoke.get_config()
        config.update_from_flattened_dict(fields)
        assert all(
            config.to_dict()[top] != smoke.get_config().to_dict()[top]
            for top in {f.split(".")[0] for f in grid.WAYS[title]}
        )
        spent[title] = step_flops(config, grid.LABELS).model * config.train.steps
    budget = 0.5 * step_flops(smoke.get_config(), grid.LABELS).model * smoke.get_config().train.steps
    assert len(spent) == 7 and all(abs(flops / budget - 1) < 0.005 for flops in spent.values()), spent


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.one_of(st.integers(), st.text(max_size=200)), min_size=1))
def test_names_are_folders_and_tell_cells_apart(cell):
    name = sweep_cells.cell_name(cell)
    assert "/" not in name and 0 < len(name) <= sweep_cells.LONGEST + 9 and name not in (".", "..")
    key = next(iter(cell))
    assert sweep_cells.cell_name(cell | {key: f"{cell[key]}x"}) != name


def test_finished_cells_are_not_run_again_and_failed_ones_are(tmp_path):
    (tmp_path / "fail").touch()
    assert run(made(), tmp_path) == {
        "fusion=tokens,seed=0": 0,
        "fusion=tokens,seed=1": 0,
        "fusion=late,seed=0": 3,
        "fusion=late,seed=1": 3,
    }
    (tmp_path / "fail").unlink()
    assert run(made(), tmp_path, jobs=2) == {"fusion=late,seed=0": 0, "fusion=late,seed=1": 0}
    assert run(made(), tmp_path) == {}
    assert (tmp_path / "fusion=late,seed=1" / sweep_jobs.LOG).read_text().count("ran") == 2


def test_kept_cells_are_not_run(tmp_path):
    first = "fusion=tokens,seed=0"
    assert set(run(made(), tmp_path, kept=[first])) == set(made().cells) - {first}
    assert not (tmp_path / first).exists()


def test_cells_are_kept_as_long_as_their_configuration_is_the_same(tmp_path):
    found = made()
    wanted = sweep_cells.configurations(found)
    assert {name: (c.model.fusion, c.seed) for name, c in wanted.items()} == {
        name: (cell["model.fusion"], cell["seed"]) for name, cell in found.cells.items()
    }
    content = {"metrics": {"region/mask/macro": 0.5}, "commit": "abc", "data": {"name": "d", "checksum": "1"}}
    contents = {name: {**content, "config": config.to_dict()} for name, config in wanted.items()}
    same, other, older, _ = contents
    contents[same]["config"]["workdir"] = "elsewhere"
    contents[other]["config"]["train"]["steps"] += 1
    del contents[older]["config"]["eval"]["falsification"]  # which came later
    table = sweep_table.write(tmp_path, found, contents)
    assert [row.name for row in table.rows] == ["fusion tokens", "fusion late"]
    evidence.keep(tmp_path / "a.json", "a.py", table)
    assert set(evidence.finished(tmp_path / "a.json", wanted)) == set(contents) - {other}
    assert evidence.finished(tmp_path / "a.json", {same: wanted[same]}).keys() == {same}
    assert evidence.finished(tmp_path / "none" / "a.json", wanted) == {}
    renamed = {"the same": wanted[same], "another": wanted[other]}  # in another sweep
    assert evidence.finished(tmp_path / "b.json", renamed) == {"the same": evidence.kept(tmp_path / "a.json")[same]}
    for fields in ({"model.nothing": 1}, {"train.steps": "many"}):
        with pytest.raises(InputError, match="not fields of"):
            sweep_cells.configurations(sweep_cells.Sweep("configs/smoke.py", {"a": fields}, ()))


def test_evaluations_are_kept_as_long_as_they_ask_the_same(tmp_path):
    grid = sweep_cells.Sweep("", {n: {"setting": n, "checkpoint": "r", "kinds": ("mask", n)} for n in ("a", "b")})
    for name in grid.cells:
        finished(tmp_path / "here", grid, name)
    table = sweep_table.write(tmp_path / "here", grid)
    assert evidence.keep(tmp_path / "e.json", "e.py", table, grid.cells) == 0
    cells = evidence.kept(tmp_path / "e.json")
    assert evidence.finished(tmp_path / "e.json", sweep_match.asked(grid)) == cells and len(cells) == 2
    edited = sweep_cells.Sweep("", grid.cells | {"b": {**grid.cells["b"], "checkpoint": "s"}})
    assert set(evidence.finished(tmp_path / "e.json", sweep_match.asked(edited))) == {"a"}
    longer = sweep_cells.Sweep("", grid.cells | {"a": {**grid.cells["a"], "split": "val"}})
    assert set(evidence.finished(tmp_path / "e.json", sweep_match.asked(longer))) == {"b"}


def test_evidence_never_loses_cells_that_the_sweep_still_has(tmp_path):
    grid, file = made(), tmp_path / "e.json"
    (tmp_path / "none").mkdir()
    for name in grid.cells:
        finished(tmp_path / "here", grid, name)
    assert evidence.keep(file, "e.py", sweep_table.write(tmp_path / "here", grid), grid.cells) == 0
    before = file.read_text()
    assert evidence.keep(file, "e.py", sweep_table.write(tmp_path / "none", grid), grid.cells) == 4
    assert file.read_text() == before
    less = made(seeds=(0,))  # two cells of the four
    kept = evidence.finished(file, sweep_match.asked(less))
    assert evidence.keep(file, "e.py", sweep_table.write(tmp_path / "none", less, kept), less.cells) == 0
    assert set(evidence.kept(file)) == set(less.cells)


def test_cells_of_an_edited_definition_are_refused(tmp_path):
    one = "fusion=tokens,seed=0"
    finished(tmp_path, made(), one)
    edited = made()
    edited.cells[one]["loss.tau"] = 0.25
    launcher = f"{sys.executable} -c ''"
    for begin in (run, sweep_table.write, lambda grid, folder: sweep_jobs.submit(grid, folder, launcher)):
        folder_first = (edited, tmp_path) if begin is not sweep_table.write else (tmp_path, edited)
        with pytest.raises(InputError, match=r"\(loss.tau was 0.5 and is 0.25\): remove the folder, or name another"):
            begin(*folder_first)
    assert sweep_match.finished(made(), tmp_path) == [one] and len(list(tmp_path.iterdir())) == 1
    asks = sweep_cells.Sweep("", {"a": {"checkpoint": "r", "split": "val"}})
    finished(tmp_path, asks, "a")
    assert sweep_match.finished(asks, tmp_path) == ["a"]
    asks.cells["a"]["split"] = "test"
    with pytest.raises(InputError, match=r"a: finished, but .*\(split was val and is test\)"):
        sweep_table.write(tmp_path, asks)
    (tmp_path / "a" / sweep_match.ARGUMENTS).unlink()
    with pytest.raises(InputError, match="does not tell what it was asked"):
        sweep_table.write(tmp_path, asks)


@pytest.mark.parametrize("deaf", [False, True], ids=["training", "evaluation"])
def test_a_stop_reaches_the_running_cells_and_begins_no_others(tmp_path, deaf):
    (tmp_path / "wait").touch()
    if deaf:  # it ends by the signal itself
        (tmp_path / "deaf").touch()
    handlers = signal.getsignal(signal.SIGTERM)

    def when_both_run():
        while sum(1 for _ in tmp_path.glob("*/waiting")) < 2:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=when_both_run, daemon=True).start()
    codes = run(made(), tmp_path, jobs=2)
    assert set(codes.values()) == {EXIT_PREEMPTED} and len(codes) == 4
    assert sum((tmp_path / name / sweep_jobs.LOG).exists() for name in codes) == 2
    assert signal.getsignal(signal.SIGTERM) is handlers
    (tmp_path / "wait").unlink()
    assert set(run(made(), tmp_path).values()) == {0}


def test_submitted_cells_are_submitted_once(tmp_path):
    launcher = f"{sys.executable} -c 'import sys; print(len(sys.argv))'"
    assert sweep_jobs.submit(made(), tmp_path, launcher) == 4
    assert (tmp_path / "fusion=late,seed=0" / sweep_jobs.SUBMITTED).read_text() == "5\n"
    assert sweep_jobs.submit(made(), tmp_path, launcher) == 0
    with pytest.raises(InputError, match="no such partition"):
        sweep_jobs.submit(
            made(seeds=(5,)), tmp_path, f"{sys.executable} -c 'import sys; sys.exit(\"no such partition\")'"
        )
    assert not (tmp_path / "fusion=tokens,seed=5" / sweep_jobs.SUBMITTED).exists()
    with pytest.raises(InputError, match="evaluations"):
        sweep_jobs.submit(sweep_cells.Sweep("", {"a": {"checkpoint": "r"}}, ()), tmp_path, launcher)


def result(output, grid, name, answers, value, commit="abc"):
    """A finished evaluation whose regions are answered so."""
    rows = [(i, label) for i, label in enumerate(["liver", "tumor", "organ"] * 20)]
    regions_table = table([image(str(i)) for i in range(60)], rows)
    found = encoded(regions_table, mask=answers([label for _, label in rows]))
    _, _, predicted = region_recognition.evaluate(found, ONTOLOGY, TEXT, IDS, (), 0)
    folder = output / name
    folder.mkdir(parents=True)
    sweep_match.note(folder, grid, name)
    predictions.save(folder, regions_table, region_recognition.describe_regions(regions_table, IDS), predicted)
    content = {
        "metrics": {"region/mask/macro": value, "image/accuracy": None},
        "commit": commit,
        "data": {"name": "set", "checksum": "1"},
    }
    (folder / "results.json").write_text(json.dumps(content))


def test_rows_are_ranked_seeds_are_averaged_and_differences_to_the_first_setting_are_marked(tmp_path):
    named = {sweep_cells.cell_name(c): c for c in cells(fusions=("pool", "late", "tokens", "alpha"))}
    grid = sweep_cells.Sweep("", named, ("region/mask/macro",))
    for name, cell in named.items():
        if cell["model.fusion"] == "alpha":
            continue  # not finished

        def answers(labels, cell=cell):
            wrong = {"late": 30, "tokens": 0, "pool": 1}[cell["model.fusion"]]
            return ["kidney_left" if i < wrong else label for i, label in enumerate(labels)]

        result(
            tmp_path,
            grid,
            name,
            answers,
            {"late": 0.5, "tokens": 1.0, "pool": 0.98}[cell["model.fusion"]] - 0.01 * cell["seed"],
        )
    rows = sweep_table.write(tmp_path, grid).rows
    assert [row.name for row in rows] == ["fusion tokens", "fusion pool", "fusion late"]
    assert [len(row.cells) for row in rows] == [2, 2, 2]
    text = (tmp_path / "results.md").read_text()
    assert "| fusion tokens | 2 | 99.5 ± 0.7 |" in text and "| fusion late | 2 | 49.5 ± 0.7 * |" in text
    assert "| fusion pool | 2 | 97.5 ± 0.7 |" in text and "6 of 8 cells" in text
    assert (
        "fusion late" in (tmp_path / "results.html").read_text()
        and "<script" not in (tmp_path / "results.html").read_text()
    )
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "cell,model.fusion,seed,commit,data,metric,value" and len(lines) == 7
    assert rows[2].differences["region/mask/macro"]["mask"].estimate == pytest.approx(0.48, abs=0.02)
    assert rows[0].differences["region/mask/macro"]["mask"].estimate == pytest.approx(-0.02, abs=0.02)
    assert rows[1].differences == {} and "paired difference to fusion pool" in text


def test_other_code_is_told(tmp_path):
    grid = sweep_cells.Sweep("", {sweep_cells.cell_name(c): c for c in cells(fusions=("tokens",))})
    for name, commit in zip(grid.cells, ("abc", "def"), strict=True):
        result(tmp_path, grid, name, lambda labels: labels, 1.0, commit)
    sweep_table.write(tmp_path, grid)
    assert "differ in code or data" in (tmp_path / "results.md").read_text()


def test_without_any_result_there_is_an_empty_table_and_a_damaged_one_is_named(tmp_path):
    grid = made()
    assert sweep_table.write(tmp_path, grid).rows == []
    assert "0 of 4 cells" in sweep_table.screen(tmp_path)
    folder = tmp_path / next(iter(grid.cells))
    folder.mkdir()
    (folder / "results.json").write_text("{")
    with pytest.raises(InputError, match="start the sweep again"):
        sweep_table.write(tmp_path, grid)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["region/mask/macro", "region/box/macro"], ("region/*/macro", ["mask", "box"])),
        (["region/mask/macro", "region/mask/twins"], ("region/mask/*", ["macro", "twins"])),
        (["a/b/c", "a/d"], ("a/*", ["b/c", "d"])),
        (["a/b", "c/b"], ("*/b", ["a", "c"])),
        (["region/mask/macro", "cost/minutes"], ("", ["region/mask/macro", "cost/minutes"])),
        (["a/x", "a/x/x"], ("a/*", ["x", "x/x"])),
        (["image/auroc"], ("", ["image/auroc"])),
        ([], ("", [])),
    ],
)
def test_what_columns_share_is_said_once(names, expected):
    assert sweep_table.abbreviated(names) == expected
