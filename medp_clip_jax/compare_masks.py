"""Whose masks are better? Runs under the same clicks, as Markdown: means, paired differences, a row per data set.

    python -m medp_clip_jax.compare_masks A B [C ...] [--protocol=center] [--output=comparison.json]

Each is a folder that `medp_clip_jax.evaluators.interactive_segmentation` wrote on the same split. The first run is
compared with every other one, region by region; intervals resample patient groups.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from medp_clip_jax import compare, statistics
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.evaluators.click_protocols import PROTOCOLS
from medp_clip_jax.evaluators.interactive_segmentation import AFTER_BOX, SHOWN

FLAGS = flags.FLAGS
Key = tuple[str, str, int]  # data set, image, region
Numbers = dict[str, Any]


def load(folder: str, protocol: str) -> dict[str, dict[Key, Mapping[str, Any]]]:
    """The sessions of a run, `{start: {(data set, image, region): session}}`.

    Raises InputError where the file is missing, damaged, or of an earlier version, without patient groups.
    """
    path = pathlib.Path(folder) / f"clicks_{protocol}.json"
    try:
        stored = json.loads(path.read_text())
        found: dict[str, dict[Key, Mapping[str, Any]]] = {}
        for each in stored["sessions"]:
            key = each["dataset"], each["image"], each["region"]
            found.setdefault(each["start"], {})[key] = {name: each[name] for name in ("label", "group", "dice")}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a folder of interactive_segmentation") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable as sessions ({error}); run interactive_segmentation anew") from None
    if not found:
        raise InputError(f"{path}: no sessions; expected regions with masks, run interactive_segmentation on others")
    return found


def compared(runs: Mapping[str, Mapping[str, Any]], replicates: int = 1000, seed: int = 0) -> Numbers:
    """Dice of every run by prompt, the first run's lead over each other one, and means per data set.

    `runs` are those of `load` by name. Only regions that all runs were asked about count; means are over labels, then
    data sets. Plain values for JSON: `mean` {run: {prompt: {value, low, high}}}, `lead` {run: {prompt: ...}},
    `data_sets` {data set: {"regions", run: {prompt: value}}}. Raises InputError where the runs share no region.
    """
    names = list(runs)
    numbers: Numbers = {"mean": {name: {} for name in names}, "lead": {name: {} for name in names[1:]}}
    numbers["data_sets"] = {}
    starts = [start for start in runs[names[0]] if all(start in run for run in runs.values())]
    for start in starts:
        keys = sorted(set.intersection(*(set(run[start]) for run in runs.values())))
        if not keys:
            raise InputError("the runs share no region: evaluate all on the same split of the same data")
        about = [runs[names[0]][start][key] for key in keys]
        sets = np.array([key[0] for key in keys])
        groups = statistics.group_index(sets.tolist(), [each["group"] for each in about])
        labels = statistics.group_index([each["label"] for each in about])
        scores = {name: [runs[name][start][key]["dice"] for key in keys] for name in names}
        fewest = min(len(each) for run in scores.values() for each in run)
        for prompt, count in _prompts(start, fewest):
            tallies = {}
            for name in names:
                dice = np.array([each[count] for each in scores[name]])
                tallies[name] = {
                    one: statistics.tally(dice, groups, np.where(sets == one, labels, -1)) for one in sorted(set(sets))
                }
                for one, item in tallies[name].items():
                    entry = numbers["data_sets"].setdefault(one, {"regions": int((sets == one).sum())})
                    entry.setdefault(name, {})[prompt] = statistics.rounded(statistics.estimate(item))
                mean = statistics.mean_of(list(tallies[name].values()), replicates, seed)
                numbers["mean"][name][prompt] = mean
            for name in names[1:]:
                pair = (list(tallies[one].values()) for one in (names[0], name))
                numbers["lead"][name][prompt] = statistics.difference_of(*pair, replicates, seed)
    return numbers


def _prompts(start: str, answers: int) -> list[tuple[str, int]]:
    """Names of the prompts that a start led to, and which answer is theirs."""
    if start == "click":
        return [(f"{count} click" + "s" * (count > 1), count - 1) for count in SHOWN if count <= answers]
    first = [(start.replace("_", " "), 0)]
    return first + [(f"{first[0][0]} + {count}", count) for count in AFTER_BOX if count < answers]


def tables(numbers: Numbers) -> str:
    """The numbers as Markdown tables; a star marks leads whose interval excludes zero."""
    names = list(numbers["mean"])
    prompts = list(numbers["mean"][names[0]])

    def row(*cells: object) -> str:
        return "| " + " | ".join(map(str, cells)) + " |"

    def span(item: Mapping[str, Any], sign: str = "") -> str:
        star = " *" if sign and item["low"] is not None and (item["low"] > 0 or item["high"] < 0) else ""
        return "{value:{s}.3f} [{low:{s}.3f}, {high:{s}.3f}]".format(s=sign, **item) + star

    lines = [row("Dice", *prompts), "|" + "---|" * (len(prompts) + 1)]
    lines += [row(name, *(span(numbers["mean"][name][prompt]) for prompt in prompts)) for name in names]
    for name in names[1:]:
        lead = numbers["lead"][name]
        lines.append(row(f"{names[0]} – {name}", *(span(lead[prompt], "+") for prompt in prompts)))
    lines += ["", row("data set", "regions", "run", *prompts), "|" + "---|" * (len(prompts) + 3)]
    for one, entry in numbers["data_sets"].items():
        for name in names:
            cells = ("–" if (value := entry[name].get(prompt)) is None else f"{value:.3f}" for prompt in prompts)
            lines.append(row(one, entry["regions"], name, *cells))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    if len(argv) < 3:
        raise InputError(
            f"expected two or more folders, got {len(argv) - 1}: python -m medp_clip_jax.compare_masks A B"
        )
    names = [pathlib.Path(folder).resolve().name for folder in argv[1:]]
    if len(set(names)) < len(names):
        raise InputError(f"folders need different names, got {', '.join(names)}; rename one")
    numbers = compared({name: load(folder, FLAGS.protocol) for name, folder in zip(names, argv[1:], strict=True)})
    print(tables(numbers))
    if FLAGS.output:
        compare.store(FLAGS.output, numbers)


if __name__ == "__main__":
    flags.DEFINE_enum("protocol", "center", PROTOCOLS, "Whose clicks to compare.")
    flags.DEFINE_string("output", "", "JSON file for the numbers.")
    run_cli(main)
