"""What a table needs of a finished cell: what a training or an evaluation command wrote, as flat metrics.

The numbers of each command keep their names below a prefix of its own, such as `robustness/noise_0.16/mask/micro`, so
that the results of several commands about one model stand in one row.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from medp_clip_jax import cost, results
from medp_clip_jax.compare import METRICS
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import outcomes, predictions
from medp_clip_jax.sweep_cells import EVALUATOR, result_file
from medp_clip_jax.sweep_match import noted

PARTS = {  # of what a command writes: the prefix of its metrics, and the parts that hold its numbers
    "robustness": ("robustness", ("unchanged", "changes")),
    "linear_probe": ("probe", ("regions", "images")),
    "falsification": ("falsification", ("global", "region", "change")),
    "interactive_segmentation": ("segmentation", ("mean", "data_sets", "area", "noc")),
    "text_to_mask": ("text_to_mask", ("dice", "found", "rejected", "auroc", "data_sets")),
}
HEAD = ("time", "version", "machine", "seed", "config")
MODEL = ("checkpoint",)  # of evaluations: which parameters were asked
CENTRES = ("estimate", "value", "mean")  # of an interval, whose bounds are left out


def read_cell(folder: pathlib.Path, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of what the cell wrote, its metrics, what a training cost, and which regions it named.

    Raises:
      InputError: its files cannot be read.
    """
    path = folder / result_file(cell)
    try:
        content = json.loads(path.read_text())
        kept = {name: content.get(name) for name in (*HEAD, "commit")}
        kept |= {name: content[name] for name in MODEL if name in content}
        kept["data"] = {"name": "", "checksum": None} | content.get("data", {})
        kept["metrics"] = _metrics(content, cell.get(EVALUATOR, "evaluate")) | cost.of_run(folder, content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not readable ({error}): remove it, and start the sweep again") from error
    if fields := noted(folder):
        kept["fields"] = fields
    if path.name == results.FILE and (folder / predictions.FILE).is_file():
        kept["outcomes"] = outcomes.of_run(folder)
    return kept


def _metrics(content: Mapping[str, Any], evaluator: str) -> dict[str, float | None]:
    if evaluator not in PARTS:
        return content["metrics"] | dict(_strata(content.get("details", {})))
    prefix, parts = PARTS[evaluator]
    found = {part: content[part] for part in parts if part in content}
    if evaluator == "robustness":
        changes = {f"{each['change']}_{each['strength']}": each["kinds"] for each in found.pop("changes")}
        found |= changes
    if evaluator == "falsification":  # as `falsification.flat` has it
        found["change"] = max(found["change"].values())
    return dict(flat(found, prefix))


def _strata(details: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Recognition by the size of the region: `region/mask/micro/under_1_patch`."""
    for kind, found in details.get("kinds", {}).items():
        for stratum, numbers in found.get("area", {}).items():
            for metric in METRICS:
                yield f"region/{kind}/{metric}/{stratum.replace(' ', '_')}", numbers.get(metric)


def flat(value: Any, name: str) -> Iterator[tuple[str, float | None]]:
    """The numbers in nested mappings, named by their way; of an interval the estimate, and of what is no number none.

    A number that does not exist is None.
    """
    if isinstance(value, Mapping):
        centre = next((key for key in CENTRES if key in value and not isinstance(value[key], Mapping)), None)
        if centre:
            yield name, value[centre]
        for key, each in value.items() if not centre else ():
            yield from flat(each, f"{name}/{str(key).replace(' ', '_')}")
    elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        yield name, value
