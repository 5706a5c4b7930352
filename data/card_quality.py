"""The card's sections on quality: what the build left out, what curation found, near-duplicates and leakage.

The report read is curation.json of `python -m data.curate`, whose fields `data.curation.summary` documents.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from data import card_charts, card_facts
from data.card_render import Chart, Section, Table, Text
from medp_clip_jax.corpus import Corpus

# The rules of data/curation/config.py in words.
RULES = {
    "corrupt": "image cannot be decoded, or has another size than stated",
    "small": "image with a very short side",
    "flat": "image of nearly one grey value",
    "empty": "mask without a pixel, or box without area",
    "damaged": "mask that does not fit its image, box or area",
    "tiny": "region of a few pixels",
    "border": "region that lies wholly at the image's border",
    "noise": "mask made of specks, as label maps leave them",
    "fragments": "mask in many parts, none of which is large",
    "whole": "region that is nearly the whole image",
    "repeated": "region drawn twice with one label",
    "conflict": "one place with two labels, neither a kind of the other",
    "bare": "image that lost all its regions",
    "groups": "patient in training and in another split",
    "exact": "same bytes as another image",
    "relabelled": "same bytes as another image, with labels that it lacks",
    "near": "looks like another image (perceptual hash and thumbnail)",
    "near_group": "looks like another image of the same patient",
    "leak_group": "training image of a patient of an evaluation set",
    "leak_exact": "training image with the bytes of an evaluation image",
    "leak_near": "training image that looks like an evaluation image",
}
BETWEEN = "between images"  # what such rules say they look at
NOT_RUN = (
    "No curation report was given (`python -m data.curate --corpus=CORPUS --report=FILE.json`): tiny, fragmentary "
    "and border-only masks, flat images, near-duplicates and leakage have not been looked for."
)


def quality_section(corpus: Corpus, curation: Mapping[str, Any] | None) -> Section:
    """What was checked and dropped, with its numbers; says so where no curation has been run."""
    rows = []
    for name in corpus.sources:
        for reason, count in sorted(corpus.manifest["sources"][name]["skipped"].items()):
            rows.append([name, reason, f"{count:,}"])
    left_out = sum(int(row[2].replace(",", "")) for row in rows)
    blocks: list[Any] = [
        Text(
            "The build takes no record on trust: an image must decode, a mask must have its image's size and a "
            "pixel, a box must lie in the image and fit the mask, a label must become a node without losing its "
            f"side. What fails is reported line by line and left out: {left_out:,} records of this corpus."
        ),
        Table(["source", "left out in the build because", "records"], rows),
    ]
    if curation is None:
        return Section("Quality filtering", [*blocks, Text(NOT_RUN)])
    rules = [rule for rule in curation["rules"] if rule["of"] != BETWEEN]
    before, after = curation["before"], curation["after"]
    dropped = {field: before[field] - after[field] for field in ("images", "regions")}
    blocks += [
        Text(
            "`python -m data.curate` then looks for each of the rules below (limits in `data/curation/config.py`). Of "
            f"{before['images']:,} images and {before['regions']:,} regions it drops {dropped['images']:,} and "
            f"{dropped['regions']:,}. The first rule that fits is the one counted."
        ),
        Table(["rule", "what it finds", "of", "found", "and it is", "where most"], [_row(rule) for rule in rules]),
    ]
    found = {_name(rule): rule["found"] for rule in rules if rule["found"]}
    if found:
        about = "Images and regions found by each rule"
        blocks.append(Chart("curation_found", about, card_charts.bars(card_facts.ranked(found), about)))
    return Section("Quality filtering", blocks)


def leakage_section(curation: Mapping[str, Any] | None) -> Section | None:
    """Near-duplicates within and across sources, and what of the training is in an evaluation set; None without a
    report."""
    if curation is None:
        return None
    rules = [rule for rule in curation["rules"] if rule["of"] == BETWEEN]
    looked = [rule for rule in rules if rule["action"] != "keep"]
    against = ", ".join(f"{entry['directory']} ({entry['images']:,} images)" for entry in curation["evaluation"])
    leaks = sum(rule["found"] for rule in looked if rule["rule"] == "groups" or rule["rule"].startswith("leak"))
    twins = sum(rule["found"] for rule in looked if rule["rule"] in ("exact", "relabelled", "near"))
    near = curation["config"]["near"]
    pairs = [
        [_name(rule), name, partner, f"{count:,}"]
        for rule in rules
        for name, partner, count in sorted(rule["pairs"], key=lambda pair: (-pair[2], pair))
    ]
    return Section(
        "Near-duplicates and leakage",
        [
            Text(
                "Two images are near-duplicates where their 64-bit perceptual hashes differ in at most "
                f"{near['distance']} bits and their 16 x 16 thumbnails by at most {near['difference']:g} of 256 grey "
                "values in the mean, within and across sources. Leakage is looked for between the training split and "
                "all others, and " + (f"against {against}." if against else "against no further corpus.")
            ),
            Text(
                f"**Found**: images with a twin or near-duplicate: {twins:,}; images of training that share a patient, "
                f"their bytes or their look with evaluation images: {leaks:,}."
            ),
            Table(["rule", "what it finds", "of", "found", "and it is", "where most"], [_row(rule) for rule in rules]),
            Table(["rule", "images of", "are like images of", "images"], pairs),
        ],
    )


def curated_balance(curation: Mapping[str, Any] | None) -> Sequence[Text | Chart]:
    """Regions by modality before and after the weights that curation gives the training images."""
    balance = (curation or {}).get("balance") or {}
    if not balance.get("before"):
        return []
    sums = {
        way: {modality or "unknown": sum(labels.values()) for modality, labels in balance[way].items()}
        for way in ("before", "after")
    }
    total = {way: sum(numbers.values()) or 1.0 for way, numbers in sums.items()}
    items = [
        (modality, sums["before"][modality] / total["before"], sums["after"].get(modality, 0.0) / total["after"])
        for modality, _ in card_facts.ranked({key: int(value) for key, value in sums["before"].items()})
    ]
    cells = {way: [n for labels in balance[way].values() for n in labels.values() if n > 0] for way in sums}
    even = {way: card_facts.effective({str(i): n / sum(ns) for i, n in enumerate(ns)}) for way, ns in cells.items()}
    ways = ("as they are", f"as drawn (power {balance['temperature']:g}, at most x {balance['most']:g})")
    return [
        Text(
            f"`python -m data.curate` also weighs the training images over modality x label: {len(cells['before']):,} "
            f"cells are drawn as if they had count ** {balance['temperature']:g} regions, no image more than "
            f"{balance['most']:g} times as often as the average. The effective number of cells goes from "
            f"{even['before']:.1f} to {even['after']:.1f}."
        ),
        Chart("balance_curated", "Regions by modality, weighed", card_charts.paired(items, ways, "Curated balance")),
    ]


def _row(rule: Mapping[str, Any]) -> list[str]:
    action = {"drop": "dropped", "flag": "kept and flagged", "keep": "not looked for"}[rule["action"]]
    most = card_facts.ranked(rule["by_source"])[:3]
    where = ", ".join(f"{name} {count:,}" for name, count in most)
    found = "–" if rule["action"] == "keep" else f"{rule['found']:,}"
    return [_name(rule), RULES.get(rule["rule"], ""), rule["of"], found, action, where or "–"]


def _name(rule: Mapping[str, Any]) -> str:
    return rule["rule"].replace("_", " ")
