"""Small sweeps and their finished cells."""

import json

from encoded_cases import IDS, ONTOLOGY, TEXT, encoded, image, table

from medp_clip_jax import sweep_cells, sweep_match
from medp_clip_jax.evaluators import predictions, region_recognition


def made(**fields) -> sweep_cells.Sweep:
    return sweep_cells.Sweep(
        "configs/smoke.py", {sweep_cells.cell_name(c): c for c in cells(**fields)}, ("region/mask/macro",)
    )


def cells(fusions=("tokens", "late"), seeds=(0, 1)):
    return [{"model.fusion": fusion, "seed": seed} for fusion in fusions for seed in seeds]


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
