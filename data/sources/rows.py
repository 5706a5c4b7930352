"""From the tables of a data set to a source: the images before their pixels are read, in splits, in little memory.

An adapter yields one `Row` per image; `gather` checks ids, splits and groups and packs the rows, about as many bytes as
their text has; `make` turns one into an example when a build asks for it, in any process.
"""

import array
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from data.report import Report
from data.sources import Items, Source, labels, splits
from data.sources.files import shown
from data.sources.labels import Label
from data.sources.options import choice, flips, source_name
from data.sources.pictures import BadRecord, Picture, read_picture
from medp_clip_jax.corpus import FORMAT
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import Region, RegionExample


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One image before it is read; all of it is text, lists and numbers, as JSON holds them. Paths are relative to the
    folder of the data set."""

    place: str  # file and line, for messages
    image_id: str
    image: str
    group: str = ""  # patient or volume; the image id where unknown
    split: str = ""  # as the data set has it (see splits.named); "" = by a hash of the group
    labels: tuple[str, ...] = ()  # of its regions, as the source writes them
    image_labels: tuple[str, ...] = ()
    caption: str = ""
    modality: str = ""
    anatomy: str = ""
    view: str = ""
    detail: Any = None  # what only the adapter understands
    files: tuple[str, ...] = ()  # others that decide the record; only looked at by `gather`, not kept


Read = Callable[[pathlib.Path, Row, str], Picture]
RegionsOf = Callable[[Row, Picture, labels.Resolved], Iterable[Region]]


class Packed(Sequence[Row]):
    """Rows in one block of memory: a list of objects would take ten times as much, and be copied into each process."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array.array("Q")

    def append(self, row: Row) -> bytes:
        """Adds a row and returns what decides its record, as bytes."""
        values = [getattr(row, field) for field in Row.__slots__[1:-1]]
        packed = json.dumps(values, separators=(",", ":")).encode()  # names of any bytes survive, escaped
        self._bytes += json.dumps(row.place).encode() + b"\n" + packed
        self._ends.append(len(self._bytes))
        return packed

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        begin = self._ends[index - 1] if index else 0
        place, packed = self._bytes[begin : self._ends[index]].split(b"\n")
        *values, detail = json.loads(packed)
        return Row(json.loads(place), *(tuple(v) if isinstance(v, list) else v for v in values), detail)


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The rows of a data set by split, the labels they need and where each stands first, a digest of it all."""

    name: str
    folder: pathlib.Path
    splits: Mapping[str, Packed]
    labels: Mapping[Label, str]
    digest: str


def gather(
    rows: Iterable[Row], default_name: str, folder: pathlib.Path, only: str, options: Mapping[str, str], report: Report
) -> Gathered:
    """Sorts rows into splits: by splits.json, else by what the data set says, else by a hash of the group; `only` puts
    all into one. Reports ids that come twice and groups in several splits. InputError if there is no row at all."""
    name = source_name(options, default_name)
    look = choice(options, "check", ("files", "tables")) == "files"
    table = splits.read_splits(folder, name)
    packed: dict[str, Packed] = {}
    found: dict[Label, str] = {}
    homes: dict[int, str] = {}  # hash of a group -> its split
    shared: dict[int, tuple[str, str, str]] = {}
    seen: set[int] = set()
    digest = hashlib.sha256()
    for row in rows:
        place = f"{shown(folder)}/{row.place}"
        key = hash(row.image_id)
        if key in seen:
            report.skip(f"{place}: {row.image_id}", "image_id used twice", "an earlier image has it, which is kept")
            continue
        seen.add(key)
        row = dataclasses.replace(row, group=row.group or row.image_id)
        split = _split(row, name, table, only)
        if split is None:
            report.skip(f"{place}: {row.image_id}", "image not in the splits", f"name it in {splits.FILE}")
        elif split != splits.UNUSED:
            home = homes.setdefault(hash(row.group), split) if row.group != row.image_id else split
            if home != split:
                shared.setdefault(hash(row.group), (row.group, home, split))
            for label in row.labels + row.image_labels:
                found.setdefault(labels.of_name(label), place)
            digest.update(packed.setdefault(split, Packed()).append(row) + split.encode())
            for file in (row.image, *row.files) if look else ():
                digest.update(_state(folder / file))
    if not seen:
        raise InputError(f"{shown(folder)}: no image of this format is there: check --input and its options")
    if shared:
        group, *two = next(iter(shared.values()))
        splits.warn_shared(f"{shown(folder)}: {name}", len(shared), len(homes), group, sorted(two), report)
    return Gathered(name, folder, dict(sorted(packed.items())), found, digest.hexdigest())


def open_source(
    adapter: str,
    gathered: Gathered,
    regions_of: RegionsOf,
    recipe: Sequence[Any],
    options: Mapping[str, str],
    provenance: Mapping[str, str],
    ontology: Ontology,
    shipped: Ontology,
    report: Report,
    other_labels: Mapping[Label, str] | None = None,
    private: bool = False,
    read: Read | None = None,
) -> Source:
    """The source of gathered rows.

    `regions_of(row, picture, resolved)` yields the regions of an image and reports those that cannot be used. `recipe`
    is what else decides the records, such as the adapter's version; `other_labels` are those that only pixels tell of.
    With `private`, messages name no image file. `read(path, row, where)` is the picture of a row whose file holds
    more than it; `where` names it in messages.
    """
    found = dict(gathered.labels)
    for label, place in (other_labels or {}).items():
        found.setdefault(label, place)
    resolved = labels.resolve(found, ontology, shipped, ontology.with_table(gathered.name, adapter), report)
    stated = {key: value for key, value in options.items() if key != "salt_file"}
    make = functools.partial(_make, gathered.name, gathered.folder, regions_of, resolved, stated, report, private, read)
    items = {split: Items(rows, make) for split, rows in gathered.splits.items()}
    decides = [FORMAT, adapter, list(recipe), sorted(stated.items()), sorted(resolved.ids.items()), gathered.digest]
    return Source(
        name=gathered.name,
        adapter=adapter,
        fingerprint=hashlib.sha256(json.dumps(decides).encode()).hexdigest(),
        splits={split: part.stream for split, part in items.items()},
        provenance=provenance,
        nodes=resolved.nodes,
        items=items,
    )


def _make(
    name: str,
    folder: pathlib.Path,
    regions_of: RegionsOf,
    resolved: labels.Resolved,
    stated: Mapping[str, str],
    report: Report,
    private: bool,
    read: Read | None,
    row: Row,
) -> Iterator[RegionExample]:
    place = f"{shown(folder)}/{row.place}: {row.image_id}"
    where = "its image" if private else shown(folder / row.image)
    try:
        picture = read(folder / row.image, row, where) if read else read_picture(folder / row.image, where)
    except BadRecord as bad:
        report.skip(place, bad.reason, bad.detail)
        return
    if picture.changes:
        report.warn(place, f"{where}: {'; '.join(picture.changes)}")
    image_labels = []
    for label in row.image_labels:
        try:
            image_labels.append(resolved.node(label))
        except BadRecord as bad:
            report.skip(f"{place}, {shown(label)}", bad.reason, bad.detail)
    try:
        regions = tuple(regions_of(row, picture, resolved))
    except BadRecord as bad:  # something that all regions depend on, such as the size of the image
        report.skip(place, bad.reason, bad.detail)
        return
    modality = stated.get("modality") or row.modality
    yield RegionExample(
        image=picture.data,
        width=picture.width,
        height=picture.height,
        dataset=name,
        image_id=row.image_id,
        group=row.group,
        modality=modality,
        anatomy=stated.get("anatomy") or row.anatomy,
        view=stated.get("view") or row.view,
        caption=row.caption,
        image_labels=tuple(dict.fromkeys(image_labels)),
        regions=regions,
        flips=flips(stated, modality),
    )


def no_regions(row: Row, picture: Picture, resolved: labels.Resolved) -> Iterable[Region]:
    """The regions of a format that has none."""
    return ()


def _split(row: Row, name: str, table: Mapping[str, str] | None, only: str) -> str | None:
    if table:
        split = table.get(row.image_id)
        return split if split in (None, splits.UNUSED) and not (only and split is None) else only or split
    return only or row.split or splits.hashed(name, row.group)


def _state(path: pathlib.Path) -> bytes:
    """What tells a changed file without reading it: among millions, reading each one twice takes hours."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return b"missing"
    return b"%d:%d" % (state.st_size, state.st_mtime_ns)
