"""The table of a sweep: rows, ranks, stars, and the page with its plots."""

import itertools
import math
import pathlib
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_cases import cells, finished, made, result, written

from medp_clip_jax import metric_meaning, statistics, sweep_cells, sweep_page, sweep_table
from medp_clip_jax.errors import InputError
from medp_clip_jax.report import charts


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


def of_rows(metric="region/mask/macro", **values):
    rows = [sweep_table.Row((("setting", name),), [name], {metric: each}, {}) for name, each in values.items()]
    return sweep_table.Table(rows, [metric], len(rows), {}, rows[0].name)


@pytest.mark.parametrize(
    ("metric", "less"),
    [
        ("region/mask/macro", False),
        ("calibration/box/ece", True),
        ("calibration/box/absent_auroc_cosine", False),
        ("context/mask/cosine_between_regions_p50", True),
        ("context/mask_box/cosine_same_region", False),
        ("sensitivity/mask/jitter/cosine_p50", False),
        ("sensitivity/mask/wrong/cosine_p50", True),
        ("cost/minutes", True),
        ("segmentation/mean/hd95/box", True),
        ("segmentation/mean/dice/box", False),
        ("segmentation/noc/NoC@85/clicks", True),
        ("robustness/noise_0.16/mask/micro/difference", False),
    ],
)
def test_the_best_comes_first_where_less_is_better_too(metric, less):
    table = of_rows(metric, middle=[0.5], none=[], low=[0.1, 0.3], high=[0.9])
    names = [row.name for row in sweep_table.rank(table.rows, [metric])]
    assert names == (["low", "middle", "high"] if less else ["high", "middle", "low"]) + ["none"]


def test_shares_are_percent_and_other_numbers_as_they_are():
    written = {
        name: metric_meaning.written(name, [4.0, 9.0]) for name in ("cost/minutes", "segmentation/mean/hd95/box")
    }
    assert written == {"cost/minutes": "6.5", "segmentation/mean/hd95/box": "6.5 ± 3.5"}
    assert metric_meaning.written("region/mask/macro", [0.25, 0.75]) == "50.0 ± 35.4"
    assert metric_meaning.written("region/mask/macro", []) == "–"


OUT, ACROSS = statistics.Interval(0.3, 0.1, 0.5), statistics.Interval(0.1, -0.1, 0.3)
BELOW, EMPTY = statistics.Interval(-0.3, -0.5, -0.1), statistics.Interval(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("found", "mark"),
    [
        ({"mask": OUT}, " *"),
        ({"mask": BELOW}, " *"),
        ({"mask": ACROSS}, ""),
        ({"mask": OUT, "box": OUT, "point": BELOW}, " *"),  # a crop
        ({"mask": OUT, "box": ACROSS, "point": OUT}, ""),
        ({"mask": EMPTY}, " °"),
        ({}, " °"),
    ],
)
def test_a_star_needs_every_interval_and_what_was_not_tested_is_told(found, mark):
    metric = "region/crop/macro"
    table = of_rows(metric, first=[0.5], other=[0.25], third=[0.25])
    first, other, third = table.rows
    third.differences[metric] = {"mask": ACROSS}
    if found:
        other.differences[metric] = found
    assert sweep_table.cell(table, first, metric) == "50.0" and sweep_table.cell(table, other, metric) == "25.0" + mark
    lines = sweep_table.markdown(table).splitlines()
    assert lines[0] == "|  | runs | region/crop/macro |" and lines[3] == f"| other | 1 | 25.0{mark} |"
    assert f"<td>25.0{mark}</td>" in sweep_page.page(table)
    third.differences.clear()
    lines = sweep_table.markdown(table).splitlines()
    if mark == " °":  # in the whole column
        assert lines[0].endswith("region/crop/macro ° |") and lines[3] == "| other | 1 | 25.0 |"
        assert "<th>region/crop/macro °</th>" in sweep_page.page(table)


def test_costs_are_not_marked():
    table = of_rows("cost/minutes", first=[4.0], other=[9.0])
    assert "°" not in sweep_table.markdown(table, noted=False)


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.lists(st.floats(0.001, 50), min_size=1, max_size=3), min_size=1
    ),
    st.booleans(),
)
def test_dots_stand_where_the_axis_says(rows, percent):
    drawing = ET.fromstring(charts.dots(rows, "x", percent))
    svg = "{http://www.w3.org/2000/svg}"
    ticks = [each for each in drawing.iter(f"{svg}text") if each.get("text-anchor") == "middle"]
    shown = [float(each.text) / (100 if percent else 1) for each in ticks]
    places = [float(each.get("x")) for each in ticks]
    dots = [float(each.get("cx")) for each in drawing.iter(f"{svg}circle")]
    values = [value for row in rows.values() for value in row]
    assert len(dots) == len(values)
    if len(ticks) > 1:
        slope = (shown[-1] - shown[0]) / (places[-1] - places[0])
        read = [shown[0] + slope * (dot - places[0]) for dot in dots]
        assert read == pytest.approx(values, abs=0.2 * abs(slope) + 1e-3 * max(values))


def test_the_page_plots_runs_in_their_units_and_the_fitted_law():
    law = {x: 0.9 * x**-0.4 for x in (10, 100, 1000, 5000)}
    rows = [
        sweep_table.Row(
            (("setting", f"{x} images"),), [], {"cost/train_regions": [x], "region/mask/macro": [1 - e]}, {}
        )
        for x, e in law.items()
    ]
    table = sweep_table.Table(rows, ["cost/train_regions"], 4, {}, "10 images")
    text = sweep_page.page(table, [("region/mask/macro", "cost/train_regions"), ("image/auroc", "cost/train_regions")])
    dots, curve = [ET.fromstring(found) for found in re.findall("<svg.*?</svg>", text)]
    svg = "{http://www.w3.org/2000/svg}"
    assert {"0", "5000"} <= {each.text for each in dots.iter(f"{svg}text")}
    assert "error = 0.9 x^-0.400" in text and text.count("<h3>") == 2  # nothing is known of image/auroc
    line = next(each for each in curve.iter(f"{svg}polyline") if "," in each.get("points"))
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    circles = [(float(each.get("cx")), float(each.get("cy"))) for each in curve.iter(f"{svg}circle")]
    assert len(points) == sweep_page.STEPS and len(circles) == 4
    for x, y in circles:  # the law made them
        assert min(abs(a - x) + abs(b - y) for a, b in points) < 15
    assert points[0] == pytest.approx(circles[0], abs=0.1) and points[-1] == pytest.approx(circles[-1], abs=0.1)
