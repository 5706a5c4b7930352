"""One adapter per source format; each yields `Source`s, which stream `RegionExample`s split by split."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from medp_clip_jax.ontology import Node
from medp_clip_jax.records import RegionExample


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set, ready to be written: its records per split in a fixed order, and what is known about its origin.

    Two sources with the same name and fingerprint give the same records; `nodes` are the labels it needs and the
    ontology lacks.
    """

    name: str
    adapter: str
    fingerprint: str
    splits: Mapping[str, Callable[[], Iterator[RegionExample]]]
    provenance: Mapping[str, str]
    nodes: tuple[Node, ...] = ()
