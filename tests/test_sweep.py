"""Sweeps as they are defined: cells and their names, and what counts as one of them."""

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_cases import finished, made, written

import configs
from medp_clip_jax import evidence, sweep_cells, sweep_match, sweep_table
from medp_clip_jax.errors import InputError

GRID = (("model.fusion", ("tokens", "late")), ("seed", (0, 1)))


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
        "folds_regions": 18,
        "folds_anew_regions": 21,
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
