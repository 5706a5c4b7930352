"""The model card of a release: what the run's files say about data, licences, architecture and measurements."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from medp_clip_jax import __version__
from medp_clip_jax.results import NOTICE

_HEAD = """---
library_name: medp-clip-jax
pipeline_tag: zero-shot-image-classification
license: other
license_name: see-training-data
tags: [clip, medical-imaging, region-prompts, jax, research-only]
---
"""
_EXAMPLE = """```python
import medp_clip_jax as medp

model, params, processor = medp.load("FOLDER_OR_NAME")  # of a name on the Hub, pin a commit: revision="..."
```
"""
_USE = """## Intended use

Research on medical images: naming regions given by points, boxes or masks, embeddings of images and regions, retrieval,
and as a start for further training. **Not intended** for diagnosis, treatment, triage or any other decision about a
patient, nor for identifying people.
"""
_LIMITS = """## Limits

- Only the modalities, body parts and labels above were trained. Elsewhere scores mean nothing, and the model does not
  say so: the best of the given labels always comes first.
- Scores are softmax shares among the labels that are asked about, not probabilities of a finding. They are not
  calibrated.
- Left and right are learned from how the training images lie. Mirrored images get mirrored answers.
- Public data sets over-represent some hospitals, devices and populations. No group of patients was tested on its own.
- A volume is seen slice by slice.
"""
_LICENCE = """## Licence

The code is Apache-2.0. The weights inherit the licences of the data that they were trained on, above: check them before
you pass the weights on or use them commercially.
"""
_KINDS = {
    "mask": "mask", "box": "box", "point": "one click", "segmented": "mask predicted from the box",
    "none": "no prompt (global embedding)", "crop": "crop",
    "blackout": "all else black", "blur": "all else blurred", "red_circle": "red circle",
}  # fmt: skip


def model_card(name: str, run: pathlib.Path, config: Any, parameters: int, dtype: str) -> str:
    """Markdown with the front matter of the Hugging Face Hub; `run` is the run's directory, files of which may be
    missing: the card then says what is not known."""
    labels, results = _json(run / "labels.json"), _json(run / "results.json")
    image, text = config.model.image, config.model.text
    lines = [
        f"{_HEAD}\n# {name}\n",
        f"MedP-CLIP: a CLIP for medical images that reads an image once and then embeds any of its regions. {NOTICE}\n",
        _EXAMPLE,
        "## Architecture\n",
        f"ViT with patches of {image.patch} px at {image.size} px, width {image.width}, {image.depth} blocks; text "
        f"tower of width {text.width}, {text.depth} blocks, {text.context} tokens; joint space of "
        f"{config.model.embed}; {parameters:,} parameters stored as {dtype}; medp-clip-jax {__version__}.\n",
        _USE,
        "## Training data and licences\n",
        *_data(run, config, labels),
        *_start(config),
        "## Evaluation\n",
        *_metrics(results),
        _LIMITS,
        _LICENCE,
    ]
    return "\n".join(lines)


def _data(run: pathlib.Path, config: Any, labels: Mapping[str, Any]) -> list[str]:
    corpus = _json(pathlib.Path(config.data.corpus) / "corpus.json") if config.data.corpus else {}
    described = corpus.get("sources", {})
    sources = labels.get("sources") or list(config.data.sources) or sorted(described)
    counts = labels.get("train_regions") or {}
    lines = []
    if sources:
        rows = [(source, *_source(described.get(source, {}), config.data.train_split)) for source in sources]
        lines.append(_table(("source", "training images", "regions", "licence as stated", "origin"), rows))
    else:
        lines.append("The run does not say what it was trained on.\n")
    if labels.get("labels"):
        lines.append(f"{len(labels['labels'])} region labels, listed in labels.json.")
        if counts:
            few = sum(count < 10 for count in counts.values())
            lines.append(f"{sum(counts.values()):,} training regions; {few} labels have fewer than 10.")
        lines.append("")
    return lines


def _start(config: Any) -> list[str]:
    if not config.init:
        return []
    kept = f", and `{'`, `'.join(config.optim.frozen)}` stayed as it came" if config.optim.frozen else ""
    return [
        f"Training started from the parameters in `{pathlib.Path(config.init).name}`{kept}: their licence holds, too.\n"
    ]


def _source(described: Mapping[str, Any], split: str) -> tuple[str, ...]:
    provenance, counts = described.get("provenance", {}), described.get("splits", {}).get(split, {})
    stated = [str(provenance[key]) for key in ("licence", "license", "licence_stated") if provenance.get(key)]
    regions = sum(counts.get("labels", {}).values())
    known = bool(counts)
    return (
        f"{counts.get('images', 0):,}" if known else "not known",
        f"{regions:,}" if known else "not known",
        stated[0] if stated else "not stated: ask the source",
        str(provenance.get("origin") or "not stated"),
    )


def _metrics(results: Mapping[str, Any]) -> list[str]:
    metrics, data = results.get("metrics", {}), results.get("data", {})
    rows = []
    for kind, shown in _KINDS.items():
        values = [metrics.get(f"region/{kind}/{name}") for name in ("micro", "macro", "within_image")]
        if any(value is not None for value in values):
            rows.append((shown, *("–" if value is None else f"{100 * value:.1f}" for value in values)))
    if not rows:
        return ["Not evaluated: `python -m medp_clip_jax.evaluate` measures a run, and the card is written after it.\n"]
    evaluated = len(results.get("labels", {}).get("evaluated", [])) or "all"
    return [
        f"Region recognition on the split `{data.get('split')}` of `{data.get('name')}` ({data.get('images')} images, "
        f"{data.get('regions')} regions, {evaluated} labels), top-1 in %, zero-shot against all labels:\n",
        _table(("asked by", "all regions", "mean of labels", "within image"), rows),
        f"Measured on {str(results.get('time', 'an unknown day'))[:10]} with commit {results.get('commit')}.\n",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[" ".join(cell.split()).replace("|", "/") for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def _json(path: pathlib.Path) -> dict[str, Any]:
    """The content of a file that may be missing or unreadable: a card says then what is not known."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
