"""Prints the region tables of docs/results.md from three runs: MedP-CLIP, the crop baseline and no prompt.

python -m benchmarks.region_results runs/regions_cpu runs/regions_crop runs/regions_no_prompt
"""

import json
import pathlib
import sys

from medp_clip_jax import compare
from medp_clip_jax.evaluators import predictions

METRICS = ("micro", "macro", "within_image")
# (row, run, prompt kind read from it)
ROWS = (
    ("no prompt: global embedding", 2, "none"),
    ("crop, trained on crops", 1, "crop"),
    ("crop of the no-prompt model", 2, "crop"),
    ("**MedP-CLIP**, mask", 0, "mask"),
    ("**MedP-CLIP**, box", 0, "box"),
    ("**MedP-CLIP**, one click", 0, "point"),
)


def row(*cells) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def header(*cells) -> list[str]:
    return [row(*cells), "|" + "---|" * len(cells)]


def number(value) -> str:
    return "–" if value is None else f"{value:.3f}"


def overall(results: list[dict]) -> list[str]:
    lines = header("row", "micro", "macro", "within image")
    for name, run, kind in ROWS:
        intervals = results[run]["details"]["kinds"][kind]["intervals"]
        cells = [
            f"{number(v['estimate'])} [{number(v['low'])}, {number(v['high'])}]" for v in map(intervals.get, METRICS)
        ]
        lines.append(row(name, *cells))
    return lines


def differences(folders: list[str]) -> list[str]:
    saved = [predictions.load(folder) for folder in folders]
    lines = header("difference, paired over groups", "micro", "macro", "within image")
    for name, other, reference in (("no prompt", 2, "none"), ("crop", 1, "crop")):
        pairs = [(kind, reference) for kind in ("mask", "box", "point")]
        for pair, metrics in compare.compare(saved[0], saved[other], pairs).items():
            kind = pair.split(" - ")[0]
            cells = [f"{v['estimate']:+.3f} [{v['low']:+.3f}, {v['high']:+.3f}]" for v in map(metrics.get, METRICS)]
            lines.append(row(f"MedP-CLIP {kind} – {name}", *cells))
    return lines


def by(results: list[dict], field: str) -> list[str]:
    """Micro and within-image accuracy per data set, modality or area of MedP-CLIP and the trained crop baseline."""
    names = ("mask", "box", "click", "crop", "none")
    lines = header(field, "regions", *(f"{name} micro / within" for name in names))
    kinds = results[0]["details"]["kinds"]
    parts = [
        kinds["mask"],
        kinds["box"],
        kinds["point"],
        results[1]["details"]["kinds"]["crop"],
        results[2]["details"]["kinds"]["none"],
    ]
    for key, entry in kinds["mask"][field].items():
        cells = (f"{number(part[field][key]['micro'])} / {number(part[field][key]['within_image'])}" for part in parts)
        lines.append(row(key, entry["regions"], *cells))
    return lines


def labels(results: list[dict]) -> list[str]:
    mask, crop = results[0]["details"]["kinds"]["mask"]["labels"], results[1]["details"]["kinds"]["crop"]["labels"]
    lines = header("label (at least 5 groups)", "regions", "groups", "mask", "crop")
    averaged = {name: entry for name, entry in mask.items() if entry["averaged"]}
    for name, entry in averaged.items():
        cells = entry["regions"], entry["groups"], number(entry["accuracy"]), number(crop[name]["accuracy"])
        lines.append(row(name, *cells))
    rest = [
        f"{name} ({entry['accuracy']:.2f} of {entry['regions']})"
        for name, entry in mask.items()
        if not entry["averaged"]
    ]
    return [*lines, "", f"Fewer than 5 groups, listed and not averaged (mask): {', '.join(rest)}."]


def image_level(results: list[dict]) -> list[str]:
    lines = header("image level", "with region losses", "without")
    names = [
        name
        for name in results[0]["metrics"]
        if name.startswith("image/") or name in ("presence/auroc", "presence/map")
    ]
    return lines + [row(name, *(number(results[run]["metrics"].get(name)) for run in (0, 2))) for name in names]


def main(folders: list[str]) -> None:
    results = [json.loads((pathlib.Path(folder) / "results.json").read_text()) for folder in folders]
    data = results[0]["data"]
    print(f"{data['regions']} regions, {data['images']} images, {data['groups']} groups, split {data['split']}\n")
    for lines in (overall(results), differences(folders), *(by(results, f) for f in ("dataset", "modality", "area"))):
        print("\n".join(lines), end="\n\n")
    print("\n".join(labels(results)), end="\n\n")
    print("\n".join(image_level(results)))


if __name__ == "__main__":
    main(sys.argv[1:])
