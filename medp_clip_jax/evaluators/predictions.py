"""Predictions on disk, so that two runs can be compared region by region without their models."""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import saved_answers
from medp_clip_jax.evaluators.region_recognition import MIN_GROUPS, Predictions, Regions

FILE = "predictions.npz"
MISSING = 255  # a metric that does not apply to a region
FIELDS = ("target", "group", "image", "dataset", "modality", "stratum")


@dataclasses.dataclass(frozen=True)
class Saved:
    """Predictions of a run: `keys` str [regions] names each region the same way in every run of the same data.

    `prompts` are digests of what the regions were asked by, per kind that has prompts: uint64 [regions], see
    `prompt_record.py`. `answers` are those about images, and the searches. Files of older versions have neither.
    """

    keys: np.ndarray
    regions: Regions
    kinds: dict[str, Predictions]
    prompts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    answers: saved_answers.Answers | None = None


def region_keys(table) -> np.ndarray:
    """`data set/image/number of the region in its image/label` per region of an `EvalTable`, str [regions]."""
    count: dict[int, int] = {}
    keys = []
    for image, label in zip(table.image_index, table.label, strict=True):
        number = count[image] = count.get(image, -1) + 1
        example = table.images[image]
        keys.append(f"{example.dataset}/{example.image_id}/{number}/{label}")
    return np.array(keys, str)


def save(
    directory: str | os.PathLike[str],
    table,
    regions: Regions,
    kinds: Mapping[str, Predictions],
    prompts: Mapping[str, np.ndarray] | None = None,
    answers: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes `predictions.npz` into `directory`: no pickle, a few bytes per region and kind, and per image and label.

    `prompts` and `answers` are as in `prompt_record.per_region` and `saved_answers.pack`.
    """
    arrays: dict[str, np.ndarray] = {"keys": region_keys(table), "ids": np.array(regions.ids, str)}
    for name in FIELDS:
        value = getattr(regions, name)
        arrays[name] = value.astype(str) if value.dtype == object else value.astype(np.int32)
    for kind, predictions in kinds.items():
        arrays[f"{kind}|top"] = predictions.top.astype(np.int32)
        arrays[f"{kind}|score"] = predictions.score.astype(np.float16)
        for name, values in predictions.values.items():
            arrays[f"{kind}|value|{name}"] = np.where(np.isnan(values), MISSING, np.nan_to_num(values)).astype(np.uint8)
    arrays |= {f"{kind}|prompt": digests for kind, digests in (prompts or {}).items()}
    np.savez_compressed(pathlib.Path(directory) / FILE, **arrays, **(answers or {}))


def load(path: str | os.PathLike[str]) -> Saved:
    """Reads what `save` wrote; `path` is the file or its directory. InputError if it is absent or damaged."""
    path = pathlib.Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        fields = {name: arrays[name] for name in FIELDS}
        ids, keys = tuple(arrays["ids"].tolist()), arrays["keys"]
        answers = saved_answers.unpack(arrays, fields["target"], fields["group"])
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file: run `python -m medp_clip_jax.evaluate` first") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a predictions file ({error}): run the evaluation again") from error
    regions = Regions(ids=ids, averaged=np.zeros(0, bool), groups_per_label=np.zeros(0, int), **fields)
    kinds = {}
    for kind in [name.removesuffix("|top") for name in arrays if name.endswith("|top")]:
        prefix = f"{kind}|value|"
        values = {
            name[len(prefix) :]: np.where(value == MISSING, np.nan, value.astype(np.float64))
            for name, value in arrays.items()
            if name.startswith(prefix)
        }
        kinds[kind] = Predictions(arrays[f"{kind}|top"], arrays[f"{kind}|score"].astype(np.float32), values)
    prompts = {kind: arrays[f"{kind}|prompt"] for kind in kinds if f"{kind}|prompt" in arrays}
    return Saved(keys, with_averages(regions), kinds, prompts, answers)


def with_averages(regions: Regions) -> Regions:
    """Decides anew which labels have enough groups to be averaged."""
    pairs = np.unique(np.stack([regions.target, regions.group], 1), axis=0)
    count = np.bincount(pairs[:, 0], minlength=len(regions.ids))
    return dataclasses.replace(regions, averaged=count >= MIN_GROUPS, groups_per_label=count)


def take(saved: Saved, rows: np.ndarray) -> Saved:
    """The regions `rows` (int [some]) of saved predictions, in that order, without the `answers`."""
    regions = dataclasses.replace(saved.regions, **{name: getattr(saved.regions, name)[rows] for name in FIELDS})
    kinds = {
        kind: Predictions(p.top[rows], p.score[rows], {name: value[rows] for name, value in p.values.items()})
        for kind, p in saved.kinds.items()
    }
    prompts = {kind: digests[rows] for kind, digests in saved.prompts.items()}
    return Saved(saved.keys[rows], with_averages(regions), kinds, prompts)
