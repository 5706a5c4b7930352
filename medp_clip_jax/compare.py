"""Is run A better than run B? Paired difference over the same regions and images, with an interval over patient groups.

    python -m medp_clip_jax.compare A B [--kinds=mask,box,point] [--reference=none] [--output=comparison.json]

A and B are folders written by `medp_clip_jax.evaluate` on the same split. `--reference` names the prompt kind read from
B where it is not the same as A's, so that a promptable model can be set against another run's global embedding. Says
where the two were not asked by the same prompts.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from medp_clip_jax import paired, results
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.evaluators import predictions
from medp_clip_jax.evaluators.region_recognition import tallies
from medp_clip_jax.prompt_kinds import EXACT, SEGMENTED

METRICS = ("micro", "macro", "within_image")

FLAGS = flags.FLAGS


def compare(
    first: predictions.Saved,
    second: predictions.Saved,
    pairs: Sequence[tuple[str, str]],
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, float]]]:
    """`{"mask - none": {"macro": {"first", "second", "estimate", "low", "high"}}}` for pairs of prompt kinds.

    Only regions that both runs predicted count, and which labels are averaged is decided on those. InputError if there
    are none, or if a prompt kind is missing.
    """
    first, second = shared(first, second)
    # Groups are numbered per file: read the second run's values against the first run's regions.
    result: dict[str, dict[str, dict[str, float]]] = {}
    for kind, other in pairs:
        for name, saved, side in ((kind, first, "first"), (other, second, "second")):
            if name not in saved.kinds:
                raise InputError(f"the {side} results have no prompt kind {name!r}, they have {', '.join(saved.kinds)}")
        mine, theirs = tallies(first.kinds[kind], first.regions), tallies(second.kinds[other], first.regions)
        key = kind if kind == other else f"{kind} - {other}"
        result[key] = {metric: paired.lead(mine[metric], theirs[metric], replicates, seed) for metric in METRICS}
    return result


def shared(first: predictions.Saved, second: predictions.Saved) -> tuple[predictions.Saved, predictions.Saved]:
    """The regions that both have, in the same order; InputError if there are none."""
    _, rows, others = np.intersect1d(first.keys, second.keys, return_indices=True)
    if not len(rows):
        raise InputError("the two results share no region: evaluate both runs on the same split of the same data")
    return predictions.take(first, rows), predictions.take(second, others)


def prompt_notes(first: predictions.Saved, second: predictions.Saved, kinds: Sequence[str]) -> list[str]:
    """A line for each of the prompt `kinds` that the shared regions were not asked by alike, or are not known to be."""
    first, second = shared(first, second)
    lines = []
    for kind in kinds:
        mine, theirs = first.prompts.get(kind), second.prompts.get(kind)
        if mine is not None and theirs is not None:
            if different := int((mine != theirs).sum()):
                lines.append(
                    f"note: {kind}: {different} of {len(mine)} regions were asked by different prompts, so that the "
                    "difference is not of the models alone: evaluate both with the same input settings"
                )
        elif kind in (*EXACT, SEGMENTED):
            lines.append(f"note: {kind}: results of an older version do not say by which prompts; evaluate again")
    return lines


def table(result: dict[str, dict[str, dict[str, float]]]) -> str:
    """The comparison as text, one line per prompt kind and metric; a star marks intervals that exclude zero."""
    wide = max(16, *(len(kind) + 2 for kind in result))
    long = max(15, *(len(metric) + 2 for metrics in result.values() for metric in metrics))
    lines = [f"{'kind':<{wide}}{'metric':<{long}}{'A':>7}{'B':>8}{'A - B':>9}  95 % interval"]
    for kind, metrics in result.items():
        for metric, v in metrics.items():
            star = " *" if v["low"] > 0 or v["high"] < 0 else ""
            lines.append(
                f"{kind:<{wide}}{metric:<{long}}{v['first']:7.3f} {v['second']:7.3f} {v['estimate']:+8.3f}"
                f"  [{v['low']:+.3f}, {v['high']:+.3f}]{star}"
            )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    if len(argv) != 3:
        raise InputError(f"expected two result folders, got {len(argv) - 1}: python -m medp_clip_jax.compare A B")
    first, second = (predictions.load(path) for path in argv[1:])
    kinds = FLAGS.kinds or [kind for kind in first.kinds if FLAGS.reference or kind in second.kinds]
    if set(first.regions.ids) != set(second.regions.ids):
        print("note: the label banks differ, so that only within_image compares like with like")
    pairs = [(kind, FLAGS.reference or kind) for kind in kinds]
    about_images, notes = paired.images(first, second)
    result = {}
    if pairs or not about_images:
        result = compare(first, second, pairs)
        notes += prompt_notes(first, second, [kind for kind, other in pairs if kind == other])
        found, more = paired.searches(first, second, pairs)
        result |= found
        notes += more
    result |= about_images
    regions = len(np.intersect1d(first.keys, second.keys))
    print("\n".join([*notes, f"{regions} regions of {len(first.keys)} and {len(second.keys)}", table(result)]))
    if FLAGS.output:
        store(FLAGS.output, result)


def store(path: str, numbers: Mapping[str, Any]) -> None:
    """Writes a comparison as JSON, numbers that do not exist as null; InputError where that cannot be done."""
    try:
        pathlib.Path(path).write_text(json.dumps(results.plain(numbers), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): name a writable file") from error


if __name__ == "__main__":
    flags.DEFINE_list("kinds", None, "Prompt kinds of A to compare; all that both have if not given.")
    flags.DEFINE_string("reference", "", "Prompt kind read from B; the same as A's if not given.")
    flags.DEFINE_string("output", "", "JSON file for the numbers.")
    run_cli(main)
