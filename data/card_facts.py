"""The numbers behind a corpus's card: what its manifest counts, and what a walk over its records adds."""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medp_clip_jax.corpus import Corpus
from medp_clip_jax.records import Region, RegionExample

CANVAS, PATCH = 224, 16  # px: what `smaller than a patch` refers to, ViT-B/16 at 224 px
LARGE = 0.9  # share of the image's area from which a region is nearly the image
AREA_EDGES = tuple(10 ** (k / 2) for k in range(-12, 1))  # shares of the image area, half decades from 1e-6 to 1
Counter = collections.Counter


@dataclasses.dataclass
class Walk:
    """What the records say that the manifest does not: counted over the first records of each split of each source."""

    images: int = 0
    regions: int = 0
    unread: int = 0  # records that were not looked at, where only a part is walked
    anatomies: Counter[str] = dataclasses.field(default_factory=collections.Counter)
    views: Counter[str] = dataclasses.field(default_factory=collections.Counter)
    without_regions: Counter[str] = dataclasses.field(default_factory=collections.Counter)  # source -> images
    captions: Counter[str] = dataclasses.field(default_factory=collections.Counter)  # source -> images with one
    prompts: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)  # source -> trait -> regions
    areas: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # modality -> regions per area bin

    def add(self, source: str, example: RegionExample) -> None:
        """Counts one record."""
        self.images += 1
        self.anatomies[example.anatomy] += 1
        self.views[example.view] += 1
        self.captions[source] += bool(example.caption)
        self.without_regions[source] += not example.regions
        traits = self.prompts.setdefault(source, collections.Counter())
        for region in example.regions:
            self.regions += 1
            traits.update(region_traits(region, example.width, example.height))
            share = region.area / (example.width * example.height)
            row = self.areas.setdefault(example.modality, [0] * (len(AREA_EDGES) + 1))
            row[sum(share >= edge for edge in AREA_EDGES)] += 1


def region_traits(region: Region, width: int, height: int) -> Iterator[str]:
    """How a region can be asked about: `mask` or `box`, and what makes that hard: `small` (less area than one patch of
    the canvas), `thin` (a box side under one patch), `large` (nearly the whole image)."""
    scale = CANVAS / max(width, height)
    yield "regions"
    yield "mask" if region.rle else "box"
    if region.area * scale**2 < PATCH**2:
        yield "small"
        if region.rle:
            yield "small_mask"
    x0, y0, x1, y1 = region.box
    if min(x1 - x0, y1 - y0) * scale < PATCH:
        yield "thin"
    if region.area >= LARGE * width * height:
        yield "large"


def walk(corpus: Corpus, most: int) -> Walk:
    """Walks over at most `most` records of each split of each source, without decoding images."""
    found = Walk()
    for name in corpus.sources:
        for split in corpus.manifest["sources"][name]["splits"]:
            records = corpus.source(name, split)
            for index in range(min(most, len(records))):
                found.add(name, records[index])
            found.unread += max(0, len(records) - most)
    return found


def total(corpus: Corpus, field: str, sources: Sequence[str] | None = None, split: str = "") -> Counter[str]:
    """Sums a field of the manifest over splits (one, if named) and sources: `labels`, `image_labels`, `modalities`."""
    counts: Counter[str] = collections.Counter()
    for name in corpus.sources if sources is None else sources:
        for key, statistics in corpus.manifest["sources"][name]["splits"].items():
            if not split or key == split:
                counts.update(statistics[field])
    return counts


def number(corpus: Corpus, field: str, source: str = "", split: str = "") -> int:
    """Sums a number of the manifest (`images`, `regions`, `masks`, `groups`) over sources and splits."""
    names = [source] if source else corpus.sources
    entries = (corpus.manifest["sources"][name]["splits"].items() for name in names)
    return sum(statistics[field] for splits in entries for key, statistics in splits if not split or key == split)


def balance(corpus: Corpus, temperature: float, split: str = "train") -> dict[str, Any]:
    """Shares of sources, modalities and labels in a split, in proportion to size and as training draws them by default.

    Training draws a source with weight images ** temperature (`config.data.temperature`) and all images of a source
    alike; a region's share then follows from its source's. `effective` is the exponential of the entropy: the number of
    equally frequent classes that would be as balanced.
    """
    sizes = {name: corpus.count(name, split) for name in corpus.sources if corpus.count(name, split)}
    result: dict[str, Any] = {}
    for way, power in (("before", 1.0), ("after", temperature)):
        weights = {name: size**power for name, size in sizes.items()}
        scale = sum(weights.values()) or 1.0
        drawn = {name: weight / scale for name, weight in weights.items()}
        shares = {"sources": drawn}
        for field in ("modalities", "labels"):
            mixed: Counter[str] = collections.Counter()
            for name, share in drawn.items():
                for key, count in corpus.manifest["sources"][name]["splits"][split][field].items():
                    mixed[key] += share * count / sizes[name]  # type: ignore[assignment]
            sums = sum(mixed.values()) or 1.0
            shares[field] = {key: value / sums for key, value in mixed.items()}
        result[way] = {field: {"shares": value, "effective": effective(value)} for field, value in shares.items()}
    return result


def effective(shares: Mapping[str, float]) -> float:
    """The exponential of the entropy of shares that sum to 1; 0 of none."""
    return math.exp(-sum(p * math.log(p) for p in shares.values() if p > 0)) if shares else 0.0


@dataclasses.dataclass(frozen=True)
class Bias:
    """What the counts alone say about shortcuts that a model could learn."""

    largest: tuple[tuple[str, float], ...]  # sources that hold most regions, with their shares
    labels: int
    one_source: int  # labels that live in one source
    few_groups: int  # labels with fewer than 5 groups in all
    modalities: int
    one_source_modalities: int
    ungrouped: tuple[str, ...]  # sources where every image is its own group: patients unknown
    sided_test: Mapping[str, int]  # side -> regions of the test split whose label names that side


def bias(corpus: Corpus) -> Bias:
    """Counts what could be learnt instead of the task; groups are summed over sources and splits."""
    regions = {name: number(corpus, "regions", name) for name in corpus.sources}
    sum_of = sum(regions.values()) or 1
    ranked = sorted(regions.items(), key=lambda item: (-item[1], item[0]))[:2]
    sources_of: Counter[str] = collections.Counter()
    modality_sources: Counter[str] = collections.Counter()
    groups: Counter[str] = collections.Counter()
    for name in corpus.sources:
        sources_of.update(total(corpus, "labels", [name]).keys())
        modality_sources.update(total(corpus, "modalities", [name]).keys())
        for statistics in corpus.manifest["sources"][name]["splits"].values():
            groups.update(statistics["label_groups"])
    alone = [name for name in corpus.sources if number(corpus, "groups", name) == number(corpus, "images", name)]
    sided: Counter[str] = collections.Counter()
    for label, count in total(corpus, "labels", split="test").items():
        sided[corpus.ontology[label].laterality] += count
    return Bias(
        tuple((name, count / sum_of) for name, count in ranked),
        len(sources_of),
        sum(count == 1 for count in sources_of.values()),
        sum(groups[label] < 5 for label in sources_of),
        len(modality_sources),
        sum(count == 1 for count in modality_sources.values()),
        tuple(alone),
        {side: sided[side] for side in ("left", "right")},
    )


def body_parts(corpus: Corpus) -> Counter[str]:
    """Regions by the body part that the ontology gives their label; "" where it occurs in several."""
    parts: Counter[str] = collections.Counter()
    for label, count in total(corpus, "labels").items():
        parts[corpus.ontology[label].body_part] += count
    return parts


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts with the most frequent first; what has no name is called unknown."""
    return sorted(((key or "unknown", count) for key, count in counts.items()), key=lambda item: (-item[1], item[0]))
