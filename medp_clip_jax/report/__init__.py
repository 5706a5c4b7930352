"""A self-contained HTML page about one evaluation: no network, no script, readable on a phone and in the dark."""

import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators.region_recognition import Predictions, Regions, describe_regions
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.report import charts, gallery, tables
from medp_clip_jax.report.style import CSS
from medp_clip_jax.results import percent

FILE = "report.html"
CONFUSED = 18  # labels in the confusion matrix
MISTAKES = 12  # pairs of labels in the list beside it
# Which prompt kind the headline and the pictures show.
PREFERENCE = ("mask", "box", "point", "segmented", "crop", "blackout", "blur", "red_circle", "none")


def write_report(
    directory: pathlib.Path,
    content: Mapping[str, Any],
    corpus,
    table,
    answers: Mapping[str, Predictions],
    bank: Sequence[str],
    ontology: Ontology,
    run_dir: pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes `report.html` about `content` (see `results.collect`) and returns its path.

    `table` is the `EvalTable`, `answers` the predictions per prompt kind over the labels `bank`; training curves come
    from the metrics.jsonl of `run_dir` where there is one. InputError if the file cannot be written.
    """
    sections = []
    if answers:
        regions = describe_regions(table, bank)
        kind = next(kind for kind in PREFERENCE if kind in answers)
        config, details = content["config"]["eval"], content["details"]
        rows = gallery.choose(answers[kind], regions, config["gallery"], content["seed"])
        cards = gallery.pictures(corpus, table, answers[kind], regions, ontology, kind, rows)
        sections = [
            ("Recognising regions", "regions", recognition(content)),
            ("Pictures", "pictures", pictures(cards)),
            ("Where it goes wrong", "confusion", confusion(answers[kind], regions, ontology, kind)),
            ("By data set, modality and size", "breakdown", breakdowns(content)),
            ("By label", "labels", by_label(content, ontology)),
            ("Do prompts matter?", "context", context(content)),
            ("How sure is it?", "calibration", tables.calibration(content["metrics"], details["calibration"])),
            ("Search", "search", tables.retrieval(content["metrics"], details["retrieval"])),
        ]
    sections += [("Whole images", "images", whole_images(content)), ("Training", "training", training(run_dir))]
    sections = [section for section in sections if section[2]]
    path = directory / FILE
    try:
        path.write_text(page(content, sections), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): name a writable folder") from error
    return path


def page(content: Mapping[str, Any], sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole document from (title, anchor, HTML) sections."""
    data = content["data"]
    title = f"MedP-CLIP on {data['name']}, {data['split']} split"
    facts = [
        f"{data['images']:,} images",
        f"{data['regions']:,} regions",
        f"{data['groups']:,} groups",
        f"{len(content['labels']['evaluated'])} labels",
        content["time"].replace("T", " ").replace("+00:00", " UTC"),
        f"version {content['version']}" + (f" ({content['commit']})" if content["commit"] else ""),
    ]
    links = "".join(f'<a href="#{anchor}">{html.escape(name)}</a>' for name, anchor, _ in sections)
    body = "".join(
        f'<section id="{anchor}"><h2>{html.escape(name)}</h2>{text}</section>' for name, anchor, text in sections
    )
    settings = html.escape(json.dumps(content["config"], indent=1, default=str))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1>"
        f'<div class="meta">{"".join(f"<span>{html.escape(fact)}</span>" for fact in facts)}</div>'
        f'<p class="note">{html.escape(content["notice"])}</p>'
        f"{headline(content)}<nav>{links}</nav>{body}"
        f"<footer>{html.escape(content['notice'])} "
        f"Data checksum {html.escape(data['checksum'])}, seed {content['seed']}."
        f"<details><summary>Configuration</summary><pre>{settings}</pre></details></footer></main></body></html>\n"
    )


def headline(content: Mapping[str, Any]) -> str:
    """The few numbers to read first."""
    metrics, found = content["metrics"], content["details"]["kinds"]
    kind = next((kind for kind in PREFERENCE if kind in found), None)
    names = {
        "macro": "region top-1, mean of labels",
        "micro": "region top-1, all regions",
        "within_image": "region top-1, labels of the image",
        "twins": "twins that only context tells apart",
        "top5": "region top-5",
    }
    cards = []
    for metric, name in names.items():
        value = metrics.get(f"region/{kind}/{metric}")
        if value is not None and value == value:
            interval = found[kind]["intervals"].get(metric)
            cards.append(_head(value, f"{name}, by {kind}", interval))
    for metric, name in (
        ("image/balanced_accuracy", "images, balanced accuracy"),
        ("presence/auroc", "presence, AUROC"),
    ):
        if metric in metrics:
            cards.append(_head(metrics[metric], name, None))
    return f'<div class="grid heads">{"".join(cards)}</div>'


def _head(value: float, name: str, interval: Mapping[str, float] | None) -> str:
    known = interval is not None and interval["low"] == interval["low"]
    spread = f"{percent(interval['low'])} to {percent(interval['high'])}" if known else "&nbsp;"
    return (
        f'<div class="card head"><div class="value">{percent(value)}<small>%</small></div>'
        f'<div class="name">{html.escape(name)}</div><div class="range">{spread}</div></div>'
    )


def recognition(content: Mapping[str, Any]) -> str:
    """Per prompt kind, and the paired differences to the reference rows."""
    details = content["details"]
    text = (
        "<p>Share of regions whose best label is the right one. Strict: all labels of the bank compete; hierarchical: "
        "the true label's own superordinate labels do not. Macro is the mean over labels with at least 5 groups "
        "(patients, volumes). Within image: only the labels of that image compete, and each of them counts the same. "
        "No prompt: the global embedding answers for every region; crop: the box plus a margin is "
        "encoded as an image of its own. Small numbers are 95 % intervals over resampled groups.</p>"
        f'<div class="card">{tables.kinds(details, content["metrics"])}</div>'
    )
    if details["differences"]:
        text += (
            "<p style='margin-top:18px'>Paired differences on the same regions; coloured where the interval excludes "
            f'zero.</p><div class="card">{tables.differences(details)}</div>'
        )
    return text


def pictures(cards: str) -> str:
    """The gallery with its legend."""
    return (
        "<p>Chosen by seed, about half right and half wrong, in turn over the data sets. Outline: the region's mask; "
        "dashed: its box. Scores are cosines with the label's text, the true label in green.</p>"
        f'<div class="grid gallery">{cards}</div>'
        if cards
        else ""
    )


def confusion(predictions: Predictions, regions: Regions, ontology: Ontology, kind: str) -> str:
    """The most frequent labels against the answers, all other answers in the last column."""
    count = np.bincount(regions.target, minlength=len(regions.ids))
    chosen = [int(row) for row in np.argsort(-count, kind="stable")[:CONFUSED] if count[row]]
    place = np.full(len(regions.ids), len(chosen))
    place[chosen] = np.arange(len(chosen))
    matrix = np.zeros((len(chosen), len(chosen) + 1), int)
    kept = place[regions.target] < len(chosen)
    np.add.at(matrix, (place[regions.target[kept]], place[predictions.top[kept, 0]]), 1)
    names = [ontology[regions.ids[row]].name for row in chosen]
    chart = charts.confusion(matrix, names, [*names, "other"])
    wrong = np.zeros((len(regions.ids), len(regions.ids)), int)
    np.add.at(wrong, (regions.target, predictions.top[:, 0]), 1)
    np.fill_diagonal(wrong, 0)
    pairs = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:MISTAKES]]
    mistakes = [
        [
            f"{html.escape(ontology[regions.ids[row]].name)} → {html.escape(ontology[regions.ids[answer]].name)}",
            f"{wrong[row, answer]:,}",
            percent(wrong[row, answer] / count[row]),
        ]
        for row, answer in pairs
        if wrong[row, answer]
    ]
    frequent = tables.table(["most frequent mistakes", "regions", "%"], mistakes) if mistakes else ""
    return (
        f"<p>The most frequent labels, true label down the side, answer by {kind} across; percent of the row.</p>"
        f'<div class="card beside"><div class="scroll">{chart}</div><div>{frequent}</div></div>'
    )


def breakdowns(content: Mapping[str, Any]) -> str:
    """Data sets, modalities and area strata, top-1 over the whole bank and within the image."""
    details = content["details"]
    cards = [
        ("Data set, top-1 of all regions, %", "dataset", "micro"),
        ("Data set, within image, %", "dataset", "within_image"),
        ("Modality, top-1 of all regions, %", "modality", "micro"),
        ("Size on a 224 px canvas with 16 px patches, %", "area", "micro"),
        ("Labels of the training and others, top-1 of all regions, %", "training", "micro"),
    ]
    first = next(iter(details["kinds"].values()))
    made = "".join(
        f'<div class="card"><h3>{title}</h3>{tables.breakdown(details, axis, metric, "")}</div>'
        for title, axis, metric in cards
        if axis in first
    )
    return f'<div class="grid two" style="margin-top:10px">{made}</div>'


def by_label(content: Mapping[str, Any], ontology: Ontology) -> str:
    """Every label; those with too few groups to be averaged are listed apart."""
    details, seen = content["details"], content["labels"]
    names = {label: ontology[label].name for label in seen["evaluated"]}
    known = dict.fromkeys(seen.get("unseen", ()), False)
    first = next(iter(details["kinds"].values()))["labels"].values()
    averaged = sum(entry["averaged"] for entry in first)
    parts = []
    if known:
        parts.append(f"<p>{len(known)} of {len(names)} labels had no region in training.</p>")
    for count, which, title in (
        (averaged, True, "labels with at least 5 groups"),
        (len(first) - averaged, False, "labels with fewer than 5 groups, listed and not averaged"),
    ):
        if count:
            body = tables.labels(details, names, known, which)
            parts.append(
                f"<details{' open' if which and count <= 30 else ''}><summary>{count} {title}</summary>{body}</details>"
            )
    return f'<div class="card" style="margin-top:10px">{"".join(parts)}</div>'


def context(content: Mapping[str, Any]) -> str:
    """Cosines between regions of an image, agreement of prompt kinds, and the empty prompt."""
    metrics, histograms = content["metrics"], content["details"]["histograms"]
    same = {name.split("/")[1]: value for name, value in metrics.items() if name.endswith("cosine_same_region")}
    notes = [f"{' and '.join(pair.split('_'))}: {value:.3f}" for pair, value in same.items()]
    text = "<p>Different regions of one image should get different embeddings; prompts of one region should agree"
    text += f" (cosine of {', '.join(notes)})." if notes else "."
    empty = metrics.get("context/empty_prompt_max_difference")
    text += (
        f" An empty prompt differs from the global embedding by at most {empty:.1e}.</p>"
        if empty is not None
        else "</p>"
    )
    cards = [f'<div class="card">{tables.context(metrics)}</div>']
    if histograms:
        chart = charts.histograms(histograms, "Cosine between regions of one image")
        legend = charts.legend(list(histograms))
        cards.append(f'<div class="card"><h3>Cosine between regions of one image</h3>{chart}{legend}</div>')
    return f'{text}<div class="grid two">{"".join(cards)}</div>{tables.sensitivity(metrics)}'


def whole_images(content: Mapping[str, Any]) -> str:
    """Zero-shot classification and presence."""
    details, cards = content["details"], []
    for key, title in (("image", "Image labels, zero-shot, %"), ("presence", "Is the structure in the image? %")):
        if details[key]:
            cards.append(f'<div class="card"><h3>{title}</h3>{tables.images(details[key])}</div>')
    if not cards:
        return ""
    return (
        "<p>The global embedding, which no prompt changes, against the labels' texts. Presence ranks images by a "
        "region label and takes an absent annotation for an absent structure.</p>"
        f'<div class="grid two">{"".join(cards)}</div>'
    )


def training(run_dir: pathlib.Path | None) -> str:
    """Curves from a run's metrics.jsonl; nothing where there is none, and damaged lines are passed over."""
    path = pathlib.Path(run_dir or "") / "metrics.jsonl"
    if run_dir is None or not path.is_file():
        return ""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            step = float(record.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in record.items():
            if isinstance(value, (int, float)) and np.isfinite(value):
                series.setdefault(name, []).append((step, float(value)))
    groups = {
        "Losses": [name for name in ("loss", "image_text", "region_to_text", "text_to_region") if name in series],
        "Region accuracy in training batches, %": ["region_accuracy"],
        "Validation, region top-1 (macro), %": [f"region/{kind}/macro" for kind in charts.COLOURS],
        "Learning rate": ["learning_rate"],
        "Gradient norm": ["grad_norm"],
    }
    cards = []
    for title, names in groups.items():
        curves = {name.removeprefix("region/").removesuffix("/macro"): series[name] for name in names if name in series}
        if curves:
            chart = charts.lines(curves, title.endswith("%"), title)
            legend = charts.legend(list(curves)) if len(curves) > 1 else ""
            cards.append(f'<div class="card"><h3>{title}</h3>{chart}{legend}</div>')
    return f'<div class="grid two" style="margin-top:10px">{"".join(cards)}</div>' if cards else ""
