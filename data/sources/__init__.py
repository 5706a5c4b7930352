"""One adapter per source format; each yields `Source`s, which stream `RegionExample`s split by split."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from medp_clip_jax.ontology import Node
from medp_clip_jax.records import RegionExample


@dataclasses.dataclass(frozen=True)
class Items:
    """The work of one split in pieces that any process may do in any order: `make(item)` yields the examples of
    `items[i]`, always the same ones, whatever was made before. The split's records are those of its items in order.

    `items` is cheap to index and stays in memory: rows, paths, a `range`; the pieces of a long volume are several items
    (path, first slice, last slice). `records` is about how many examples an item gives: it decides how many items share
    a shard. For Beam, `make` and the items must pickle (cloudpickle); a local build on Linux asks nothing of them.
    """

    items: Sequence[Any]
    make: Callable[[Any], Iterator[RegionExample]]
    records: float = 1.0

    def stream(self) -> Iterator[RegionExample]:
        """All examples in order."""
        for item in self.items:
            yield from self.make(item)


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set, ready to be written: its records per split in a fixed order, and what is known about its origin.

    Two sources with the same name and fingerprint give the same records; `nodes` are the labels it needs and the
    ontology lacks. A split also named in `items` is made from there, in parallel; one that is not comes out of its
    stream, which one process reads from the start (again after a restart: what is finished is read past, not written).
    With items, `splits` is `{split: items.stream for split, items in ...}`.
    """

    name: str
    adapter: str
    fingerprint: str
    splits: Mapping[str, Callable[[], Iterator[RegionExample]]]
    provenance: Mapping[str, str]
    nodes: tuple[Node, ...] = ()
    items: Mapping[str, Items] = dataclasses.field(default_factory=dict)
