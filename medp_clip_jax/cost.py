"""What a run cost: FLOPs of its training and of an answer, minutes, and annotated regions."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from medp_clip_jax.flops import step_flops

PREFIX = "cost/"
REGIONS = 16  # per image, of an answer
CLOCK, LABELS = "goodput.json", "labels.json"


def of_run(folder: pathlib.Path, content: Mapping[str, Any]) -> dict[str, float]:
    """Figures of a run whose results.json is `content`, in the folder of its goodput clock; none where they are not
    known.

    * `cost/train_tflop`: forward and backward passes of the whole training (`flops.step_flops`);
    * `cost/image_gflop`: one image with 16 regions asked about, forward, in the way that it was trained;
    * `cost/minutes`: the training by the clock, with its input, saves and evaluations, not the one at its end;
    * `cost/train_regions`: annotated regions of the training split.
    """
    figures = {}
    if content.get("config") and (folder / CLOCK).is_file():  # an evaluation's folder has no clock, and trained nothing
        config = ml_collections.ConfigDict(content["config"])
        labels = len(content["labels"]["evaluated"])
        figures[f"{PREFIX}train_tflop"] = step_flops(config, labels).model * config.train.steps / 1e12
        figures[f"{PREFIX}image_gflop"] = image_flops(config) / 1e9
        figures[f"{PREFIX}minutes"] = sum(json.loads((folder / CLOCK).read_text())["seconds"].values()) / 60
        if (folder / LABELS).is_file():
            seen = json.loads((folder / LABELS).read_text()).get("train_regions", {})
            figures[f"{PREFIX}train_regions"] = float(sum(seen.values()))
    return figures


def image_flops(config: Any, regions: int = REGIONS) -> float:
    """Forward FLOPs of one image of which `regions` regions are asked about, texts apart.

    A model trained on crops reads a crop per region, and one trained without regions answers with the image itself.
    """
    regional = config.loss.region_to_text or config.loss.text_to_region
    config = ml_collections.ConfigDict(config.to_dict())
    config.input.update(batch_size=1, regions=regions)
    config.loss.update(region_to_text=1.0, text_to_region=1.0)
    parts = step_flops(config, 0).forward
    if config.input.view == "crop" or not regional:
        return parts["image"] * (regions if config.input.view == "crop" else 1)
    return sum(parts[name] for name in ("image", "regions", "prompts", "windows"))
