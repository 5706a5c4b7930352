"""Tables of the report as HTML."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from medp_clip_jax.report.charts import colour
from medp_clip_jax.results import percent

KIND_NAMES = {
    "mask": "mask prompt",
    "box": "box prompt",
    "point": "one click",
    "segmented": "mask made of the box",
    "none": "no prompt",
    "crop": "crop of the box",
    "blackout": "all else black",
    "blur": "all else blurred",
    "red_circle": "red circle",
}
METRIC_NAMES = {
    "macro": "macro",
    "micro": "micro",
    "within_image": "within image",
    "twins": "twins",
    "top5": "top-5",
    "macro_hierarchical": "macro, hier.",
    "micro_hierarchical": "micro, hier.",
    "within_dataset": "in data set",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways on its own; cells are HTML, those starting with `<td` are taken as they are."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr>{''.join(cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def heat(value: float | None, best: bool = False) -> str:
    """A share as a cell whose tint grows with it."""
    if value is None or value != value:
        return "<td>–</td>"
    strong = ' class="strong"' if best else ""
    return f'<td{strong} style="background:rgba(var(--heat),{0.34 * value:.3f})">{percent(value)}</td>'


def kind_name(kind: str) -> str:
    """A prompt kind with its colour."""
    return f'<i class="dot" style="background:{colour(kind)}"></i>{html.escape(KIND_NAMES.get(kind, kind))}'


def kinds(details: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """Region recognition by prompt kind, with intervals where they were computed."""
    names = [name for name in METRIC_NAMES if any(f"region/{kind}/{name}" in metrics for kind in details["kinds"])]
    best = {name: max(_number(metrics.get(f"region/{kind}/{name}")) for kind in details["kinds"]) for name in names}
    rows = []
    for kind, entry in details["kinds"].items():
        row = [kind_name(kind)]
        for name in names:
            value = metrics.get(f"region/{kind}/{name}")
            row.append(_with_range(value, entry["intervals"].get(name), _number(value) >= best[name] > 0))
        rows.append(row)
    return table(["top-1, %", *(METRIC_NAMES[name] for name in names)], rows)


def differences(details: Mapping[str, Any]) -> str:
    """Paired differences between prompt kinds in percentage points; those whose interval excludes zero are marked."""
    rows = []
    for name, entry in details["differences"].items():
        cells = [html.escape(name.replace(" - ", " − "))]
        for metric in ("macro", "micro", "within_image"):
            v = entry[metric]
            mark = "yes" if v["low"] > 0 else "no" if v["high"] < 0 else ""
            cells.append(f'<td><span class="{mark}">{points(v["estimate"])}</span>{_range(v, points)}</td>')
        rows.append(cells)
    return table(["difference, points", "macro", "micro", "within image"], rows)


def breakdown(details: Mapping[str, Any], axis: str, metric: str, title: str) -> str:
    """One row per data set, modality or area stratum, one column per prompt kind."""
    found = list(details["kinds"])
    entries = details["kinds"][found[0]][axis]
    rows = []
    for name, entry in entries.items():
        values = [details["kinds"][kind][axis][name][metric] for kind in found]
        top = max(map(_number, values))
        cells = [heat(value, _number(value) >= top > 0) for value in values]
        rows.append([html.escape(name.replace("_", " ")), f"{entry['regions']:,}", *cells])
    return table([title, "regions", *found], rows)


def labels(details: Mapping[str, Any], names: Mapping[str, str], seen: Mapping[str, bool], averaged: bool) -> str:
    """Accuracy of each label by prompt kind; the labels that are averaged, or those with too few groups."""
    found = list(details["kinds"])
    first = details["kinds"][found[0]]["labels"]
    chosen = [label for label, entry in first.items() if entry["averaged"] == averaged]
    rows = []
    for label in sorted(chosen, key=lambda label: -first[label]["regions"]):
        cells = [heat(details["kinds"][kind]["labels"][label]["accuracy"]) for kind in found]
        new = "" if seen.get(label, True) else "<small>not in training</small>"
        counts = [f"{first[label]['regions']:,}", f"{first[label]['groups']:,}"]
        rows.append([html.escape(names.get(label, label)) + new, *counts, *cells])
    return table(["label", "regions", "groups", *found], rows)


def images(entries: Mapping[str, Any]) -> str:
    """Whole-image classification, one row per data set."""
    columns = [
        n for n in ("accuracy", "balanced_accuracy", "auroc", "map") if any(n in e["metrics"] for e in entries.values())
    ]
    rows = []
    for name, entry in entries.items():
        cells = [_with_range(entry["metrics"].get(column), entry["intervals"].get(column)) for column in columns]
        size = [f"{entry['images']:,}", f"{len(entry['labels'])}"]
        rows.append(
            [html.escape(name.replace("_", " ")), "one of" if entry["kind"] == "single" else "each", *size, *cells]
        )
    titles = {"balanced_accuracy": "balanced acc.", "auroc": "AUROC", "map": "mean AP"}
    return table(
        ["data set", "question", "images", "labels", *(titles.get(column, column) for column in columns)], rows
    )


def context(metrics: Mapping[str, float]) -> str:
    """How much prompts change the embedding, one row per prompt kind."""
    columns = {
        "cosine_between_regions_mean": "mean",
        "cosine_between_regions_p5": "5 %",
        "cosine_between_regions_p50": "50 %",
        "cosine_between_regions_p95": "95 %",
        "image_accuracy_kept": "image kept",
    }
    rows = []
    for kind in KIND_NAMES:
        values = [metrics.get(f"context/{kind}/{column}") for column in columns]
        if any(value is not None for value in values):
            rows.append([kind_name(kind), *("–" if value is None else f"{value:.3f}" for value in values)])
    return table(["cosine between regions", *columns.values()], rows) if rows else ""


def sensitivity(metrics: Mapping[str, float]) -> str:
    """What a sloppy and a wrong prompt change, one row per prompt kind and way; empty where that was not asked."""
    columns = {
        "cosine_p5": "5 %",
        "cosine_p50": "50 %",
        "cosine_p95": "95 %",
        "micro_before": "top-1, exact prompt, %",
        "micro_after": "then",
        "within_image_before": "in image, exact prompt, %",
        "within_image_after": "then",
    }
    rows = []
    for kind, way in dict.fromkeys(tuple(name.split("/")[1:3]) for name in metrics if name.startswith("sensitivity/")):
        values = {column: metrics[f"sensitivity/{kind}/{way}/{column}"] for column in columns}
        cells = [_cosine(value) if name.startswith("cosine") else percent(value) for name, value in values.items()]
        rows.append([kind_name(kind), {"jitter": "sloppy", "wrong": "wrong place"}[way], *cells])
    if not rows:
        return ""
    note = "A sample of the regions was asked again, by a sloppy prompt and by the same shape at a wrong place."
    head = ["prompt", "asked again, cosine", *columns.values()]
    return f'<p style="margin-top:18px">{note}</p><div class="card">{table(head, rows)}</div>'


def _cosine(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"


def retrieval(metrics: Mapping[str, float], details: Mapping[str, Any]) -> str:
    """Searches by prompt kind, one row per direction, with intervals where they were computed."""
    columns = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "p10": "P@10", "map_r": "mAP@R"}
    names = dict.fromkeys(tuple(name.split("/")[1:3]) for name in metrics if name.startswith("retrieval/"))
    rows = []
    for kind, direction in names:
        found = [metrics.get(f"retrieval/{kind}/{direction}/{column}") for column in columns]
        ranges = [details.get(kind, {}).get(direction, {}).get(column) for column in columns]
        cells = [_with_range(value, interval) for value, interval in zip(found, ranges, strict=True)]
        rows.append([kind_name(kind), direction.replace("_", " "), *cells])
    if not rows:
        return ""
    note = "<p>Any region of the label is right. A patient has one region per label, and never finds its own.</p>"
    return f'{note}<div class="card">{table(["asked by", "search, %", *columns.values()], rows)}</div>'


def calibration(metrics: Mapping[str, float], details: Mapping[str, Any]) -> str:
    """How far probabilities can be trusted, one row per prompt kind, with intervals where they were computed."""
    columns = {
        "accuracy": "accuracy",
        "confidence": "confidence",
        "ece": "ECE",
        "absent_auroc_probability": "absent, AUROC",
        "absent_auroc_cosine": "by cosine",
        "absent_rejected_probability": "absent rejected",
        "absent_rejected_cosine": "by cosine",
    }
    rows = []
    for kind, entry in details.items():
        found = [(metrics[f"calibration/{kind}/{column}"], entry["intervals"].get(column)) for column in columns]
        rows.append([kind_name(kind), *(_with_range(value, interval) for value, interval in found)])
    if not rows:
        return ""
    note = (
        "<p>ECE is the mean distance of probability and accuracy over 15 bins. For <em>absent</em> every region is "
        "asked again without its label and that label's kin, when every answer is wrong: how well the best score tells "
        "this, and the share rejected by the threshold that keeps 95 % of the others.</p>"
    )
    return f'{note}<div class="card">{table(["asked by, %", *columns.values()], rows)}</div>'


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _with_range(value: float | None, interval: Mapping[str, float] | None, best: bool = False) -> str:
    strong = ' class="strong"' if best else ""
    return f"<td{strong}>{percent(value)}{_range(interval, percent)}</td>"


def _range(interval: Mapping[str, float] | None, form) -> str:
    if interval is None or interval["low"] != interval["low"]:
        return ""
    return f"<small class='under'>{form(interval['low'])} to {form(interval['high'])}</small>"


def _number(value: float | None) -> float:
    return -1.0 if value is None or value != value else value
