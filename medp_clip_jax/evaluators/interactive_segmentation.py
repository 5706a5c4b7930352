"""How well regions are segmented by clicks and boxes, and how many clicks they need; one protocol per table.

    python -m medp_clip_jax.evaluators.interactive_segmentation --checkpoint=RUN_OR_RELEASE --data=CORPUS_OR_FOLDER

prints a table and writes `segmentation_PROTOCOL.json`, with its numbers, `clicks_PROTOCOL.json`, with every click, and
`segmentation_PROTOCOL.html`, with curves and the worst, median and best regions.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from medp_clip_jax import results, statistics
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.eval_input import EvalTable, eval_table
from medp_clip_jax.evaluate import define_flags, from_flags
from medp_clip_jax.evaluators import mask_metrics
from medp_clip_jax.evaluators.click_protocols import PROTOCOLS
from medp_clip_jax.evaluators.click_sessions import STARTS, Session, sessions
from medp_clip_jax.statistics import rounded

FLAGS = flags.FLAGS
SHOWN = (1, 3, 5, 8, 20)  # clicks
AFTER_BOX = (1, 3, 5)  # clicks after a box
CLICKS = 20
GOALS = (0.85, 0.90)  # IoU of NoC
STRATA = (0.005, 0.02, 0.1)  # borders of the area strata, shares of the image


def evaluate(
    model: Any,
    params: Any,
    corpus: Any,
    split: str,
    config: Any,
    protocol: str = "center",
    replicates: int = 1000,
    clicks: int = CLICKS,
    report: pathlib.Path | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs the sessions of one protocol on every region with a mask: (numbers, clicks), both plain values for JSON.

    Numbers are means over labels, then over data sets, with 95 % intervals over patient groups, per prompt and metric;
    the same per data set; Dice per area stratum and per label; NoC with the share of regions that miss the goal. With
    `report` a page with curves and pictures is written there. Raises InputError for an unknown protocol, a model
    without mask decoder, a split without masks, or a page that cannot be written.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if not model.config.segmenter.width:
        raise InputError("this run has no mask decoder: train one, with config.model.segmenter and loss.segment")
    table = eval_table(corpus, split, tuple(config.data.sources) or None)
    if not table.has_mask.any():
        raise InputError(f"split {split!r}: no region has a mask to compare with; name another split or corpus")
    counts = {"click": clicks, "box": max(c for c in AFTER_BOX if c <= clicks), "noisy_box": 0}
    found = {
        start: list(sessions(model, params, corpus, table, config, start, counts[start], protocol, seed))
        for start in STARTS
    }
    numbers = {
        "protocol": protocol,
        "split": split,
        "seed": seed,
        "regions": len(found["click"]),
        "tolerance_px": mask_metrics.TOLERANCE,
        **summary(found, table, clicks, replicates, seed),
    }
    if report:
        # Imported here: its libraries are not needed for the numbers.
        from medp_clip_jax.report import segmentation

        segmentation.write_report(report, numbers, found["click"], corpus, table)
    replay = {"protocol": protocol, "seed": seed, "split": split, "sessions": _replay(found, table)}
    return numbers, replay


def summary(
    found: dict[str, list[Session]], table: EvalTable, clicks: int, replicates: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Numbers of finished sessions by start; see `evaluate`."""
    rows = np.array([session.row for session in found["click"]])
    images = [table.images[table.image_index[row]] for row in rows]
    sets = np.array([image.dataset for image in images])
    labels = np.array([table.label[row] for row in rows])
    groups = statistics.group_index(sets.tolist(), [image.group for image in images])
    values = columns(found, clicks)
    numbers: dict[str, Any] = {"mean": {}, "data_sets": {}, "area": {}, "labels": {}, "noc": {}}
    for name, value in values.items():
        each = {}
        for dataset in sorted(set(sets)):
            here = np.where(sets == dataset, statistics.group_index(labels.tolist()), -1)
            each[dataset] = statistics.tally(value, groups, here)
        numbers["mean"][name] = statistics.mean_of(list(each.values()), replicates, seed)
        for dataset, item in each.items():
            numbers["data_sets"].setdefault(dataset, {})[name] = rounded(statistics.estimate(item))
    stratum = np.searchsorted(STRATA, table.area_fraction[rows], side="right")
    names = [f"under {STRATA[0]:.1%}", *(f"{a:.1%} to {b:.1%}" for a, b in zip(STRATA, STRATA[1:], strict=False))]
    for number, name in enumerate([*names, f"over {STRATA[-1]:.1%}"]):
        here = stratum == number
        if here.any():
            picked = {key: value[here].mean() for key, value in values.items() if key.startswith("dice")}
            numbers["area"][name] = {
                "regions": int(here.sum()),
                **{k: rounded(v) for k, v in picked.items()},
            }
    for label in sorted(set(labels)):
        numbers["labels"][label] = {
            "regions": int((labels == label).sum()),
            **{key: rounded(value[labels == label].mean()) for key, value in values.items() if key.startswith("dice")},
        }
    iou = np.array([session.iou for session in found["click"]])
    for goal in GOALS:
        needed, failed = clicks_needed(iou, goal)
        numbers["noc"][f"NoC@{goal * 100:.0f}"] = {
            "clicks": rounded(needed.mean()),
            "failures": rounded(failed.mean()),
        }
    return numbers


def columns(found: dict[str, list[Session]], clicks: int) -> dict[str, np.ndarray]:
    """Scores by name, such as `dice/click_3`, `nsd/box`, `dice/box_click_1`: float [regions] each."""
    values = {}
    for metric in ("dice", "iou", "nsd", "hd95"):
        score = {start: np.array([getattr(session, metric) for session in found[start]]) for start in found}
        for count in (count for count in SHOWN if count <= clicks):
            values[f"{metric}/click_{count}"] = score["click"][:, count - 1]
        for start in ("box", "noisy_box"):
            values[f"{metric}/{start}"] = score[start][:, 0]
        for count in (count for count in AFTER_BOX if count < score["box"].shape[1]):
            values[f"{metric}/box_click_{count}"] = score["box"][:, count]
    return values


def clicks_needed(iou: np.ndarray, goal: float) -> tuple[np.ndarray, np.ndarray]:
    """NoC: the first click [regions] whose IoU [regions, clicks] reaches the goal, else all clicks; and who failed."""
    reached = iou >= goal
    failed = ~reached.any(1)
    return np.where(failed, iou.shape[1], reached.argmax(1) + 1), failed


def _replay(found: dict[str, list[Session]], table: EvalTable) -> list[dict[str, Any]]:
    rows = []
    for start, each in found.items():
        for session in each:
            image = table.images[table.image_index[session.row]]
            place = {"dataset": image.dataset, "group": image.group, "image": image.image_id}
            place["region"] = int(table.region_index[session.row])
            asked = {"start": start, "box": session.box, "clicks": [list(click) for click in session.clicks]}
            rows.append(
                {
                    **place,
                    "label": table.label[session.row],
                    **asked,
                    "dice": [rounded(d) for d in session.dice],
                }
            )
    return rows


def screen_table(numbers: dict[str, Any]) -> str:
    """The means as text: a row per prompt, a column per metric."""
    prompts = list(dict.fromkeys(name.split("/")[1] for name in numbers["mean"]))
    lines = [f"{'prompt':<14}{'Dice':>8}{'IoU':>8}{'NSD':>8}{'HD95 px':>9}   95 % interval of Dice"]
    for prompt in prompts:
        row = [numbers["mean"][f"{metric}/{prompt}"] for metric in ("dice", "iou", "nsd", "hd95")]
        span = (
            f"   {row[0]['low']:.3f} to {row[0]['high']:.3f}" if "low" in row[0] and row[0]["low"] is not None else ""
        )
        lines.append(
            f"{prompt:<14}" + "".join(f"{cell['value']:>8.3f}" for cell in row[:3]) + f"{row[3]['value']:>9.2f}{span}"
        )
    noc = (f"{name} {item['clicks']:.2f}, failures {item['failures']:.1%}" for name, item in numbers["noc"].items())
    return "\n".join([*lines, f"{numbers['regions']} regions; " + "; ".join(noc)])


def main(argv: Sequence[str]) -> None:
    o = from_flags(argv)
    report = o.output / f"segmentation_{FLAGS.protocol}.html"
    given = (o.model, o.params, o.corpus, FLAGS.split, o.config, FLAGS.protocol)
    numbers, replay = evaluate(*given, clicks=FLAGS.clicks, report=report, seed=FLAGS.seed)
    for stem, content in (("segmentation", numbers), ("clicks", replay)):
        (o.output / f"{stem}_{FLAGS.protocol}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"protocol {FLAGS.protocol}\n{screen_table(numbers)}\n\n{results.NOTICE}")
    print(f"report: {report}\nclicks and numbers: {o.output}")


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_enum("protocol", "center", PROTOCOLS, "Whose rule places the clicks.")
    flags.DEFINE_integer("clicks", CLICKS, "Most clicks per region.", lower_bound=1)
    run_cli(main)
