"""What a sweep's table rests on comes back from its file as it was, and a page holds what its template asks for."""

import json
import pathlib

import pytest
from encoded_cases import IDS, ONTOLOGY, TEXT, encoded, image, table

from medp_clip_jax import cost, evidence, sweep_table, sweep_views
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import predictions, region_recognition
from medp_clip_jax.flops import step_flops
from medp_clip_jax.sweep_cells import Sweep

CELLS = {
    f"setting={title},seed={seed}": {"setting": title, "seed": seed} for title in ("ours", "crop") for seed in (0, 1)
}
SWEEP = Sweep("configs/smoke.py", CELLS, ("region/mask/macro", "region/crop/macro"))
WRONG = {("ours", "mask"): 0, ("ours", "box"): 3, ("ours", "point"): 6, ("crop", "crop"): 30}


def finished(folder, title, config):
    """A cell of 60 images with a region each, of which so many are named wrongly."""
    labels = ["liver", "tumor", "organ"] * 20
    regions = table([image(str(i)) for i in range(60)], list(enumerate(labels)))
    kinds = {kind: wrong for (whose, kind), wrong in WRONG.items() if whose == title}
    said = {k: ["kidney_left" if i < wrong else label for i, label in enumerate(labels)] for k, wrong in kinds.items()}
    metrics, _, answers = region_recognition.evaluate(encoded(regions, **said), ONTOLOGY, TEXT, IDS, (), 0)
    folder.mkdir(parents=True)
    predictions.save(folder, regions, region_recognition.describe_regions(regions, IDS), answers)
    content = {
        "metrics": {**metrics, "image/accuracy": float("nan")},
        "labels": {"evaluated": IDS},
        "config": config.to_dict(),
        "seed": 0,
        "machine": "2 cores (cpu)",
        "commit": "abc",
        "data": {"name": "set", "checksum": "1"},
    }
    (folder / "results.json").write_text(json.dumps(content).replace("NaN", "null"))
    (folder / cost.CLOCK).write_text(json.dumps({"seconds": {"step": 90.0, "save": 30.0}}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from configs import smoke

    folder = tmp_path_factory.mktemp("sweep")
    for name, cell in CELLS.items():
        config = smoke.get_config()
        config.seed = cell["seed"]
        finished(folder / name, cell["setting"], config)
    return sweep_table.write(folder, SWEEP)


def test_a_table_comes_back_from_its_file(made, tmp_path):
    evidence.keep(tmp_path / "a.json", "configs/sweeps/a.py", made)
    back = evidence.read(tmp_path / "a.json")
    assert sweep_table.markdown(back) == sweep_table.markdown(made)
    assert sweep_views.differences(back, "micro") == sweep_views.differences(made, "micro")
    cells = json.loads((tmp_path / "a.json").read_text())["cells"]
    assert set(cells) == set(CELLS)
    for cell in cells.values():
        assert cell["config"]["train"]["steps"] == 1600
        assert (cell["seed"], cell["commit"], cell["data"]["checksum"], cell["machine"]) == (
            0,
            "abc",
            "1",
            "2 cores (cpu)",
        )
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]
    again = sweep_table.write(tmp_path, SWEEP, evidence.kept(tmp_path / "a.json"))
    assert repr(again.rows) == repr(made.rows) and again.contents == made.contents


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": {}}'])
def test_a_damaged_file_is_told(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    for read in (evidence.read, evidence.kept):
        with pytest.raises(InputError, match="expected a file of"):
            read(tmp_path / "a.json")


def curved(errors):
    rows = [
        sweep_table.Row(
            (("setting", f"{x} images"),), [], {"cost/train_regions": [x], "region/mask/macro": [1 - e]}, {}
        )
        for x, e in errors.items()
    ]
    return sweep_table.Table(rows[::-1], [], len(rows), {})


def test_a_curve_finds_the_power_law_that_made_it():
    law = {x: 0.9 * x**-0.4 for x in (10, 100, 1000, 5000)}
    text = sweep_views.curve(curved(law), "region/mask/macro", "cost/train_regions")
    assert "Fit: error = 0.9 x^-0.400, over 4 rows." in text
    rows = [line.split(" | ") for line in text.splitlines()[2:6]]
    assert [row[0] for row in rows] == ["| 10 images", "| 100 images", "| 1000 images", "| 5000 images"]
    assert all(row[2] == row[3].removesuffix(" |") for row in rows)


@pytest.mark.parametrize("errors", [{}, {10: 0.3, 100: 0.1}, {10: 0.3, 100: 0.1, 1000: 0.0}])
def test_a_curve_needs_three_rows_and_no_perfect_one(errors):
    with pytest.raises(InputError, match="three rows or more"):
        sweep_views.curve(curved(errors), "region/mask/macro", "cost/train_regions")


def test_a_crop_is_told_from_each_prompt_of_the_first_setting(made):
    found = made.rows[1].differences["region/crop/micro"]
    assert {kind: interval.estimate for kind, interval in found.items()} == {
        "mask": pytest.approx(0.5),
        "box": pytest.approx(27 / 60),
        "point": pytest.approx(24 / 60),
    }
    text = sweep_views.differences(made, "micro")
    assert "| ours minus | asked by | mask | box | point |" in text
    assert "| crop | crop | +50.0 [" in text


def test_data_sets_stand_apart(made):
    text = sweep_views.by_dataset(made, "micro", ["ours/mask", "ours/point", "crop/crop"])
    assert text.splitlines()[0] == "| data set | regions | ours/mask | ours/point | crop/crop |"
    assert text.splitlines()[2] == "| set | 60 | 100.0 | 90.0 | 50.0 |"
    for column in ("ours/crop", "theirs/mask", "mask"):
        with pytest.raises(InputError, match="expected the name of a row"):
            sweep_views.by_dataset(made, "micro", [column])


def test_labels_stand_apart_and_their_mean_is_macro(made):
    lines = sweep_views.by_label(made, ["ours/mask", "ours/box", "crop/crop"]).splitlines()
    assert lines[0] == "| label | groups | regions | ours/mask | ours/box | crop/crop |"
    assert sorted(lines[2:5]) == [f"| {name} | 20 | 20 | 100.0 | 95.0 | 50.0 |" for name in ("liver", "organ", "tumor")]
    assert lines[5:] == [
        "| *mean, fewer than 10 groups* | | 0 | – | – | – |",
        "| *mean of the others* | | 60 | 100.0 | 95.0 | 50.0 |",
    ]
    assert made.rows[0].mean("region/box/macro") == pytest.approx(0.95)
    with pytest.raises(InputError, match="expected the name of a row"):
        sweep_views.by_label(made, ["theirs/mask"])


def test_costs_are_those_of_the_configuration_and_the_clock(made):
    from configs import smoke

    row, config = made.rows[0], smoke.get_config()
    assert row.mean("cost/minutes") == 2.0
    assert row.mean("cost/train_tflop") == step_flops(config, len(IDS)).model * 1600 / 1e12
    forward = step_flops(config, 22).forward
    config.input.regions = 16
    twice = step_flops(config, 22).forward
    per_image = (forward["image"] + twice["regions"] + twice["prompts"] + twice["windows"]) / 24
    assert row.mean("cost/image_gflop") == pytest.approx(per_image / 1e9)
    config = smoke.get_config()
    config.loss.update(region_to_text=0.0, text_to_region=0.0)
    assert cost.image_flops(config) == pytest.approx(forward["image"] / 24)  # without regions: the image itself
    config = smoke.get_config()
    config.input.update(view="crop", regions=1)
    assert cost.image_flops(config) == pytest.approx(16 * forward["image"] / 24)  # a crop per region


def test_a_page_is_its_template_with_tables(made, tmp_path):
    (tmp_path / "evidence").mkdir()
    evidence.keep(tmp_path / "evidence" / "a.json", "configs/sweeps/a.py", made)
    template = tmp_path / "results.template.md"
    template.write_text(
        "# Results\n\n<!-- table: a -->\n\n<!-- table: a region/crop/micro cost/minutes -->\n\n"
        "<!-- differences: a macro -->\nEnd.\n"
    )
    page = evidence.write_page(str(template))
    text = page.read_text()
    assert page == tmp_path / "results.md" and text.startswith("<!-- Made from results.template.md")
    assert "| ours | 2 | 100.0 ± 0.0 | – |" in text and "| crop | 2 | 50.0 ± 0.0 * | 2 |" in text
    assert "| ours minus |" in text and text.endswith("\nEnd.\n") and "<!-- table" not in text
    evidence.write_page(str(template))
    assert page.read_text() == text


def test_a_sweep_without_finished_cells_is_an_empty_table(tmp_path):
    (tmp_path / "evidence").mkdir()
    evidence.keep(tmp_path / "evidence" / "a.json", "configs/sweeps/a.py", sweep_table.write(tmp_path, SWEEP))
    template = tmp_path / "results.template.md"
    template.write_text("<!-- table: a -->\n\n<!-- differences: a macro -->\n")
    assert evidence.write_page(str(template)).read_text().count("0 of 4 cells") == 1


TEMPLATES = sorted(pathlib.Path(__file__).parents[1].glob("docs/*.template.md"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_the_pages_of_results_are_those_of_their_files(template):
    page = template.with_name(template.name.replace(evidence.SUFFIX, ".md"))
    assert evidence.render(template) == page.read_text("utf-8")
