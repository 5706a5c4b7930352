"""Counts that the manifest keeps of a split, so that nobody has to scan the records for them."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from medp_clip_jax.records import RegionExample


@dataclasses.dataclass
class SplitCounts:
    """Counts the records that pass through `watch`."""

    images: int = 0
    regions: int = 0
    masks: int = 0
    labels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    image_labels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    modalities: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    groups: set[str] = dataclasses.field(default_factory=set)
    groups_of: dict[str, set[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(set))

    def watch(self, examples: Iterable[RegionExample]) -> Iterator[RegionExample]:
        """Passes the examples on unchanged."""
        for example in examples:
            self.images += 1
            self.groups.add(example.group)
            self.modalities[example.modality] += 1
            self.image_labels.update(example.image_labels)
            for region in example.regions:
                self.regions += 1
                self.masks += bool(region.rle)
                self.labels[region.label] += 1
                self.groups_of[region.label].add(example.group)
            yield example

    def as_json(self) -> dict[str, Any]:
        """The split's entry in the manifest, keys sorted."""
        return {
            "images": self.images,
            "regions": self.regions,
            "masks": self.masks,
            "groups": len(self.groups),
            "labels": dict(sorted(self.labels.items())),
            "label_groups": {label: len(groups) for label, groups in sorted(self.groups_of.items())},
            "image_labels": dict(sorted(self.image_labels.items())),
            "modalities": dict(sorted(self.modalities.items())),
        }
