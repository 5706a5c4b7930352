"""What a corpus's card says, section by section; every number is counted from the corpus."""

from collections.abc import Iterable, Sequence
from typing import Any

from data import card_charts, card_facts, card_render, labels
from data.card_render import Chart, Section, Table, Text
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.ontology import Ontology

MOST_BARS = 24


def composition(corpus: Corpus, walk: card_facts.Walk) -> Section:
    """Counts by source, modality and anatomy."""
    rows = []
    for name in corpus.sources:
        entry = corpus.manifest["sources"][name]
        counts = [card_facts.number(corpus, field, name) for field in ("images", "regions", "masks", "groups")]
        found = len(card_facts.total(corpus, "labels", [name]))
        splits = ", ".join(f"{split} {entry['splits'][split]['images']:,}" for split in _ordered(entry["splits"]))
        modalities = ", ".join(sorted(key or "unknown" for key in card_facts.total(corpus, "modalities", [name])))
        rows.append([name, modalities, *(f"{count:,}" for count in counts), f"{found:,}", splits])
    modalities = card_facts.ranked(card_facts.total(corpus, "modalities"))
    anatomies = card_facts.ranked(walk.anatomies)
    parts = card_facts.body_parts(corpus)
    named = {part or "no single one": count for part, count in parts.items()}
    regions = card_render.bar_chart("regions_by_source", "Regions by source", _by(corpus, "regions"))
    return Section(
        "Composition",
        [
            Text(
                "One row per source. A region is a labelled mask or box; a group is a patient or volume where the "
                "source tells it, else an image; images of one group stay in one split."
            ),
            Table(["source", "modality", "images", "regions", "masks", "groups", "labels", "images by split"], rows),
            card_render.bar_chart("images_by_modality", "Images by modality", modalities),
            regions,
            card_render.bar_chart(
                "images_by_anatomy", f"Images by body part as the source states it{_part(walk)}", anatomies
            ),
            card_render.bar_chart(
                "regions_by_body_part",
                "Regions by the body part of their label in the ontology",
                card_facts.ranked(named),
            ),
        ],
    )


def label_section(corpus: Corpus, shipped: Ontology) -> Section:
    """How often each label occurs, and what became of labels that the ontology lacks."""
    counts, images = card_facts.total(corpus, "labels"), card_facts.total(corpus, "image_labels")
    ranked = card_facts.ranked(counts)
    kinds: dict[str, int] = {}
    for label in counts:
        kinds[corpus.ontology[label].kind] = kinds.get(corpus.ontology[label].kind, 0) + 1
    told = ", ".join(f"{kind} {count:,}" for kind, count in card_facts.ranked(kinds))
    rows = []
    for label, count in ranked:
        node = corpus.ontology[label]
        having = [name for name in corpus.sources if label in card_facts.total(corpus, "labels", [name])]
        codes = ", ".join(node.xrefs[:2])
        where = ", ".join(having) if len(having) < 4 else f"{len(having)} sources"
        rows.append([node.name, node.kind, node.body_part or "–", f"{count:,}", where, codes or "–"])
    unmapped = labels.of_corpus(corpus, shipped)
    blocks: list[Any] = [
        Text(
            f"{len(counts):,} region labels ({told}) and {len(images):,} image labels, each a node of the ontology. "
            f"Half of the regions carry {_head(ranked):,} labels, {sum(c < 10 for c in counts.values()):,} labels "
            "have fewer than 10 regions."
        ),
        Chart("labels_by_rank", "Regions per label, most frequent first; both axes logarithmic", _rank_curve(ranked)),
        Table(["label", "kind", "body part", "regions", "sources", "identifiers"], rows, "All region labels"),
        Text(
            f"{len(unmapped):,} labels were not in the shipped ontology and became nodes of their own (`python -m "
            "data.labels CORPUS` lists them)."
            if unmapped
            else "Every label of the sources is a node of the shipped ontology; none had to be made up."
        ),
    ]
    if unmapped:
        found = [[item.label, item.source, f"{item.count:,}", _told(item)] for item in unmapped[:50]]
        blocks.append(Table(["unknown label", "source", "regions and images", "spelled alike, not applied"], found))
    return Section("Labels", blocks)


def area_section(corpus: Corpus, walk: card_facts.Walk) -> Section:
    """Sizes of the regions and how they can be asked about."""
    names = ["less", *(f"{float(f'{100 * edge:.1g}'):g} %" for edge in card_facts.AREA_EDGES)]
    sums = [sum(row[i] for row in walk.areas.values()) for i in range(len(names))]
    first = next((i for i, count in enumerate(sums) if count), 0)
    traits = ("regions", "mask", "box", "small", "thin", "large")
    rows, stacked = [], {}
    for name in corpus.sources:
        found = walk.prompts.get(name, {})
        sizes = [found.get(trait, 0) for trait in traits]
        rows.append([name, *(f"{size:,}" for size in sizes), f"{walk.without_regions[name]:,}"])
        if sizes[0]:
            stacked[name] = [sizes[1] - found.get("small_mask", 0), found.get("small_mask", 0), sizes[2]]
    total = [sum(walk.prompts.get(name, {}).get(trait, 0) for name in corpus.sources) for trait in traits]
    rows.append(["**all**", *(f"{size:,}" for size in total), f"{sum(walk.without_regions.values()):,}"])
    patch = f"{card_facts.PATCH} px patch at {card_facts.CANVAS} px"
    regions = max(1, total[0])
    return Section(
        "Region area and prompt suitability",
        [
            Text(
                f"{100 * total[1] / regions:.1f} % of the regions have a mask, the others a box only: they can be "
                f"asked about by box and click, but teach nothing of shape. {100 * total[3] / regions:.1f} % have "
                f"less area than one {patch} and {100 * total[4] / regions:.1f} % a box side shorter than it: what "
                f"the prompt covers is then one patch or two. {100 * total[5] / regions:.1f} % fill at least "
                f"{100 * card_facts.LARGE:.0f} % of the image, where a prompt says little. Images without a region "
                f"serve captions and image labels only{_part(walk)}."
            ),
            Chart(
                "region_area",
                "Regions by share of the image area: from the percentage below a column to the next",
                card_charts.columns(names[first:], sums[first:], "Regions by area"),
            ),
            Table(
                ["source", "regions", "mask", "box only", "under a patch", "thinner than a patch", "nearly all",
                 "images without"],
                rows,
            ),
            Chart(
                "prompts_by_source",
                "Share of regions with a mask, with a mask smaller than a patch, and with a box only",
                card_charts.stacked(("mask", "mask under a patch", "box only"), stacked, "Prompts by source"),
            ),
        ],
    )  # fmt: skip


def balance_section(corpus: Corpus, temperature: float, more: Sequence[Text | Chart] = ()) -> Section:
    """Modalities and labels before and after the mixing of training; `more` is put at the end."""
    split = "train" if "train" in corpus.splits else corpus.splits[0]
    found = card_facts.balance(corpus, temperature, split)
    before, after = found["before"], found["after"]
    effective = [
        [
            field,
            f"{len(before[field]['shares']):,}",
            f"{before[field]['effective']:.1f}",
            f"{after[field]['effective']:.1f}",
        ]
        for field in ("sources", "modalities", "labels")
    ]

    def pairs(field: str) -> list[tuple[str, float, float]]:
        shares = [(key, before[field]["shares"][key], after[field]["shares"][key]) for key in before[field]["shares"]]
        shares.sort(key=lambda item: -item[1])
        names = [corpus.ontology[key].name if field == "labels" else key or "unknown" for key, _, _ in shares]
        return [(name, a, b) for name, (_, a, b) in zip(names, shares, strict=True)][:MOST_BARS]

    ways = ("in proportion to size", f"as training draws (power {temperature:g})")
    blocks: list[Any] = [
        Text(
            f"Shares within the split {split!r}. Training draws a source with weight images ** {temperature:g} "
            "(`config.data.temperature`), so that a small modality is not drowned by a large one; within a batch, "
            "one region of each label comes before the second of any, and the text-to-region loss gives each label "
            "the same weight, which the last row does not count. The effective number is the exponential of the "
            "entropy: as many equally frequent classes would be as balanced."
        ),
        Table(["of", "present", "effective, before", "effective, after"], effective),
        Chart("balance_modalities", "Images by modality", card_charts.paired(pairs("modalities"), ways, "Modalities")),
        Chart(
            "balance_labels", "Regions by label, the most frequent", card_charts.paired(pairs("labels"), ways, "Labels")
        ),
    ]
    return Section("Cross-modality and long-tail balance", [*blocks, *more])


def _ordered(splits: Iterable[str]) -> list[str]:
    known = ("train", "val", "test")
    return sorted(splits, key=lambda split: (known.index(split) if split in known else len(known), split))


def _by(corpus: Corpus, field: str) -> list[tuple[str, int]]:
    return card_facts.ranked({name: card_facts.number(corpus, field, name) for name in corpus.sources})


def _rank_curve(ranked: Sequence[tuple[str, int]]) -> str:
    return card_charts.log_curve([count for _, count in ranked], "Regions per label by rank")


def _head(ranked: Sequence[tuple[str, int]]) -> int:
    sum_of, seen = sum(count for _, count in ranked), 0
    for rank, (_, count) in enumerate(ranked, 1):
        seen += count
        if 2 * seen >= sum_of:
            return rank
    return 0


def _told(item: labels.Unmapped) -> str:
    return ", ".join(f"{node_id} ({score:.2f})" for node_id, score in item.candidates) or "–"


def _part(walk: card_facts.Walk) -> str:
    return f" (of {walk.images:,} images looked at, {walk.unread:,} not)" if walk.unread else ""
