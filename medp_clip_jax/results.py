"""What an evaluation leaves behind: `results.json`, and the table on screen."""

import dataclasses
import datetime
import hashlib
import json
import math
import os
import pathlib
import subprocess
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from medp_clip_jax import __version__
from medp_clip_jax.corpus import MANIFEST, Corpus
from medp_clip_jax.errors import InputError

NOTICE = "Research tool, not a medical device: do not use it for diagnosis or treatment."
FILE = "results.json"


def header(
    corpus: Corpus,
    split: str,
    config,
    checkpoint: Mapping[str, str | None],
    prompts: Mapping[str, Any],
    sentences: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, Any]:
    """What every file of numbers says first: which code, machine, settings and data, which model (see `origin`), what
    it was asked by (digests per kind of prompt, see `evaluators/prompt_record.py`) and in which words (see `words`).

    `seed` is that of the evaluation, while `config` holds that of the training.
    """
    return {
        "notice": NOTICE,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "config": config.to_dict(),
        "data": {"name": corpus.directory.name, "split": split, "checksum": checksum(corpus)},
        "checkpoint": dict(checkpoint),
        "prompts": dict(prompts),
        "sentences": dict(sentences),
    }


def origin(run_dir: str | os.PathLike[str] | None, params: Any) -> dict[str, str | None]:
    """A model as `name`, that of its folder without the path, and `parameters`, the SHA-256 of the names, types, shapes
    and bytes of its parameters as they are evaluated. Every process of a job has to ask."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        value = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape} ".encode())
        digest.update(value.view(np.uint8).data if value.ndim and value.size else value.tobytes())
    name = None if run_dir is None else pathlib.Path(run_dir).resolve().name
    return {"name": name, "parameters": digest.hexdigest()[:16]}


def words(labels: Mapping[str, Sequence[str]], **others: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The sentences of each label, and of what else was asked, with one `digest` of all."""
    asked = plain({"labels": labels, **others})
    return {"digest": hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16], **asked}


def collect(
    heading: Mapping[str, Any],
    table,
    metrics: Mapping[str, float],
    details: Mapping[str, Any],
    seen: Collection[str] | None,
) -> dict[str, Any]:
    """Everything about one evaluation as plain values: the `header`, what was measured, and the numbers.

    `seen` are the labels that had a region in training, None where unknown.
    """
    groups = {(example.dataset, example.group) for example in table.images}
    data = {
        **heading["data"],
        "images": len(table.images),
        "regions": len(table.label),
        "groups": len(groups),
        "datasets": sorted({example.dataset for example in table.images}),
    }
    found = sorted(set(table.label))
    labels: dict[str, Any] = {"evaluated": found}
    if seen is not None:
        labels |= {
            "seen": [label for label in found if label in seen],
            "unseen": [label for label in found if label not in seen],
        }
    return {**heading, "data": data, "labels": labels, "metrics": dict(metrics), "details": dict(details)}


def checksum(corpus: Corpus) -> str:
    """Of the corpus's manifest, which holds those of its files."""
    return hashlib.sha256((corpus.directory / MANIFEST).read_bytes()).hexdigest()[:16]


def machine() -> str:
    """What computes, in words: `2 cores (cpu)`, `4 x NVIDIA H100`."""
    kind = jax.devices()[0].device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # no affinity on macOS
    return f"{cores} cores ({kind})" if kind == "cpu" else f"{jax.device_count()} x {kind}"


def commit() -> str | None:
    """The git commit of the running code, with `+` where files differ from it; None outside a checkout."""
    folder = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)  # an installed copy is nobody's checkout
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def write(directory: pathlib.Path, content: Mapping[str, Any], file: str = FILE) -> None:
    """Writes `results.json`, or another `file` of numbers; numbers that do not exist (nan) become null."""
    (directory / file).write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` as JSON has it: tuples and dataclasses of numbers are lists, and numbers that do not exist null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return plain(dataclasses.astuple(value))
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def writable(directory) -> pathlib.Path:
    """Makes the output folder; InputError where that cannot be done."""
    path = pathlib.Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): name a writable folder") from error
    return path


COLUMNS = {
    "micro": "micro",
    "macro": "macro",
    "macro_hierarchical": "macro hier.",
    "within_image": "in image",
    "top5": "top-5",
    "twins": "twins",
}
SEARCHES = {
    "text_to_region/map_r": "text to region",
    "region_to_text/r1": "region to text (R@1)",
    "region_to_region/map_r": "region to region",
}
SENSITIVITY = {"cosine_p50": "cosine", "micro_before": "top-1", "micro_after": "then"}  # per way of asking again
CONTEXT = ("max_difference", "regions_p50", "same_region", "accuracy_kept")  # of many, what is shown on screen


def screen_table(metrics: Mapping[str, float]) -> str:
    """Region recognition and retrieval by prompt kind, then the other headline numbers, in percent; nan is a dash."""
    kinds = list(dict.fromkeys(name.split("/")[1] for name in metrics if name.startswith("region/")))
    columns = [name for name in COLUMNS if any(f"region/{kind}/{name}" in metrics for kind in kinds)]
    blocks = []
    if kinds:
        rows = [["regions, %", *(COLUMNS[name] for name in columns)]]
        for kind in kinds:
            rows.append([kind, *(percent(metrics.get(f"region/{kind}/{name}", math.nan)) for name in columns)])
        blocks.append(_aligned(rows))
    searched = [name for name in SEARCHES if any(f"retrieval/{kind}/{name}" in metrics for kind in kinds)]
    if searched:
        rows = [["search, mAP@R %", *(SEARCHES[name] for name in searched)]]
        for kind in kinds:
            rows.append([kind, *(percent(metrics.get(f"retrieval/{kind}/{name}", math.nan)) for name in searched)])
        blocks.append(_aligned(rows))
    asked = [kind for kind in kinds if f"sensitivity/{kind}/jitter/cosine_p50" in metrics]
    if asked:
        rows = [["prompts", *(f"{way}: {name}" for way in ("jitter", "wrong") for name in SENSITIVITY.values())]]
        for kind in asked:
            values = [
                metrics[f"sensitivity/{kind}/{way}/{name}"] for way in ("jitter", "wrong") for name in SENSITIVITY
            ]
            rows.append([kind, *("–" if math.isnan(value) else f"{value:.3f}" for value in values)])
        blocks.append(_aligned(rows))
    means = [name for name in metrics if name.startswith(("image/", "presence/")) and name.count("/") == 1]
    if means:
        rows = [["images, %", "mean of sets"], *([name, percent(metrics[name])] for name in means)]
        blocks.append(_aligned(rows))
    context = [name for name in metrics if name.startswith("context/") and name.endswith(CONTEXT)]
    if context:
        rows = [["context", ""], *([name.removeprefix("context/"), f"{metrics[name]:.3g}"] for name in context)]
        blocks.append(_aligned(rows))
    return "\n\n".join("\n".join(block) for block in blocks)


def percent(value: float | None) -> str:
    """A share as percent with one decimal, a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
