"""From volumes with labels to a source: splits, labels, slices, windows and names are the same for every layout."""

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from data import burned_in, privacy
from data.burned_in import keeps
from data.report import Report
from data.sources import Items, Source, labels, splits
from data.sources.labels import Label
from data.sources.regions import BadRecord
from data.sources.slices import Labelled, Layer, check_grid, chosen_slices, planes_of, view_of
from data.sources.volume_options import Settings
from medp_clip_jax.corpus import FORMAT
from medp_clip_jax.errors import InputError
from medp_clip_jax.intensity import WINDOWS, to_uint8
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import RegionExample
from medp_clip_jax.volumes import PLANES, Volume, volume_range

VERSION = 1  # of what volumes become: a change of that must raise it
MANY = 32.0  # slices that a volume gives, about


@dataclasses.dataclass(frozen=True)
class Case:
    """One volume with its labels. `identifier` and `group` may name a patient and are never written or printed as they
    are; `variant` (channel, series) tells volumes of one identifier apart and may be. `split` is the official one."""

    identifier: str
    group: str
    image: Callable[[], Volume] | None  # or None, and `picture` gives the one image uint8 [height, width, 3]
    layers: tuple[Layer, ...]
    files: tuple[pathlib.Path, ...]  # all that its records depend on
    modality: str
    anatomy: str = ""
    variant: str = ""
    split: str = ""
    image_labels: tuple[Label, ...] = ()
    planes: tuple[str, ...] = ()  # those that it can be seen in; all if none are named
    spacing: Callable[[], Sequence[float]] | None = None  # voxel sizes in mm, any order, without reading the voxels
    picture: Callable[[], np.ndarray] | None = None
    burned_in: bool = False  # the data say that there is text in the pixels


def open_cases(
    found: Sequence[Case],
    folder: pathlib.Path,
    adapter: str,
    name: str,
    settings: Settings,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    provenance: Mapping[str, str],
    table: str = "",
) -> Source:
    """The source of these volumes, their labels resolved by the ontology's table `table` (else that of `name`).

    Splits are those of a splits.json in the folder (by identifier), else official ones, else by a hash of the group.
    Raises InputError if there is no volume.
    """
    if not found:
        raise InputError(f"{folder}: no {adapter} volumes there: see docs/sources for the layout that is expected")
    names = privacy.Names(name, settings.salt)
    found = [_stated(case, settings) for case in found]
    assigned = _assign(found, folder, names, only, report)
    cases = [row["case"] for rows in assigned.values() for row in rows]
    wanted = {
        label: name for case in cases for label in _labels_of(case) if not _left_out(ontology, label, table or name)
    }
    resolved = labels.resolve(wanted, ontology, shipped, table or name, report)
    for label, why in resolved.refused.items():
        report.skip(name, "label cannot be used", f"{label[0]!r}: {why}")
    _warn_of_faces(cases, name, report)
    if settings.key_file:
        privacy.write_key(settings.key_file, names, [text for case in found for text in (case.identifier, case.group)])
    make = functools.partial(examples, settings=settings, name=name, ids=dict(resolved.ids), report=report)
    items = {split: Items(rows, make, MANY) for split, rows in assigned.items()}
    return Source(
        name=name,
        adapter=adapter,
        fingerprint=_fingerprint(assigned, names, settings, resolved.ids),
        splits={split: item.stream for split, item in items.items()},
        provenance=settings.rule()
        | _spacing(cases)
        | dict(provenance)
        | ({"licence": settings.licence} if settings.licence else {}),
        nodes=resolved.nodes,
        items=items,
    )


def examples(
    row: Mapping, settings: Settings, name: str, ids: Mapping[Label, str], report: Report
) -> Iterator[RegionExample]:
    """All slices of one volume that are taken, plane by plane; what cannot be used is reported and left out."""
    case, shown = row["case"], row["shown"]
    place = f"{name}: volume {shown}"
    if case.picture is not None:
        yield from _picture(row, settings, name, ids, report)
        return
    try:
        volume = case.image()
        check_grid(volume)
        windows: Sequence[str] = settings.windows_for(case.modality, case.anatomy)
        ranges = {window: volume_range(volume, WINDOWS[window], "") for window in windows} or {
            "": volume_range(volume, None, "the volume", ct=not case.modality or case.modality.startswith("ct"))
        }
    except BadRecord as bad:
        report.skip(place, bad.reason, bad.detail)
        return
    except InputError as error:
        report.skip(place, "unusable volume", str(error))
        return
    for plane in planes_of(volume, settings.planes or case.planes):
        if case.planes and plane not in case.planes:
            report.skip(
                place, "plane not there", f"{plane}: slices are missing or uneven, only {case.planes[0]} is usable"
            )
            continue
        labelled = Labelled(volume, case.layers, plane, ids)
        for title, bad in labelled.problems:
            report.skip(f"{place}: {plane}, {title}", bad.reason, bad.detail)
        axis = PLANES.index(plane)
        taken = chosen_slices(
            labelled.counts, volume.shape[axis], volume.spacing[axis], settings.step_mm, settings.largest,
            settings.empty or bool(case.image_labels) or not case.layers,
        )  # fmt: skip
        for index in taken:
            try:
                values = volume.picture(plane, index)
            except InputError as error:
                report.skip(f"{place}: {plane} slice {index}", "unreadable slice", str(error))
                continue
            for window, (low, high) in ranges.items():
                pixels = to_uint8(values, low, high)
                suffix = f"_{window}" if len(ranges) > 1 else ""
                image_id = f"{shown}_{plane}_{index:04d}{suffix}"
                if keeps(pixels, settings.burned_in, f"{name}: {image_id}", report, case.burned_in):
                    regions = tuple(labelled.regions(index))
                    yield _example(row, name, image_id, pixels, view_of(volume, plane), ids, regions)


def _picture(
    row: Mapping, settings: Settings, name: str, ids: Mapping[Label, str], report: Report
) -> Iterator[RegionExample]:
    """The example of an image that is no slice of a volume."""
    place = f"{name}: image {row['shown']}"
    try:
        pixels = row["case"].picture()
    except InputError as error:
        report.skip(place, "unreadable image", str(error))
        return
    if keeps(pixels, settings.burned_in, place, report, row["case"].burned_in):
        yield _example(row, name, row["shown"], pixels, "", ids, ())


def _example(
    row: Mapping, name: str, image_id: str, pixels: np.ndarray, view: str, ids: Mapping[Label, str], regions: tuple
) -> RegionExample:
    case = row["case"]
    return RegionExample(
        image=_png(pixels),
        width=pixels.shape[1],
        height=pixels.shape[0],
        dataset=name,
        image_id=image_id,
        group=row["group"],
        modality=case.modality,
        anatomy=case.anatomy,
        view=view,
        caption="",
        image_labels=tuple(dict.fromkeys(ids[label] for label in case.image_labels if label in ids)),
        regions=regions,
    )


def _png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _stated(case: Case, settings: Settings) -> Case:
    return dataclasses.replace(
        case, modality=settings.modality or case.modality, anatomy=settings.anatomy or case.anatomy
    )


def _assign(
    found: Sequence[Case], folder: pathlib.Path, names: privacy.Names, only: str, report: Report
) -> dict[str, list[Mapping]]:
    rows = [
        {
            "image_id": names.of(case.identifier),
            "group": names.of(case.group),
            "shown": names.of(case.identifier) + (f"_{case.variant}" if case.variant else ""),
            "case": case,
        }
        for case in found
    ]
    kept: dict[str, Mapping] = {}
    for row in rows:
        if row["shown"] in kept:
            report.skip(f"{names.source}: volume {row['shown']}", "identifier used twice", "the first one is kept")
        kept.setdefault(row["shown"], row)
    stated = splits.read_splits(folder, names.source) if folder.is_dir() else None
    official = {names.of(case.identifier): case.split for case in found if case.split}
    table = {names.of(key): split for key, split in stated.items()} if stated is not None else official or None
    return splits.assign(list(kept.values()), names.source, table, only, names.source, report)


def _labels_of(case: Case) -> list[Label]:
    return [*case.image_labels, *(label for layer in case.layers for label in layer.labels.values())]


def _left_out(ontology: Ontology, label: Label, table: str) -> bool:
    """Whether a table says that a label is no structure, such as the background."""
    return label[0].strip().lower() == "background" or ontology.left_out(label[0], table)


def _spacing(cases: Sequence[Case]) -> dict[str, str]:
    """Voxel sizes for the provenance: a record has no field for them."""
    known = [sorted(sizes) for case in cases if case.spacing and len(sizes := case.spacing()) == 3]
    if not known:
        return {}
    columns = zip(*known, strict=True)
    told = " x ".join(f"{np.median(sizes):.3g} ({min(sizes):.3g} to {max(sizes):.3g})" for sizes in columns)
    return {"spacing_mm": f"{told}: medians and ranges of {len(known)} volumes, finest axis first"}


def _warn_of_faces(cases: Sequence[Case], name: str, report: Report) -> None:
    if any(privacy.shows_face(case.modality, case.anatomy, [label for label, _ in _labels_of(case)]) for case in cases):
        privacy.warn_of_faces(name, report)


def _fingerprint(
    assigned: Mapping[str, Sequence[Mapping]], names: privacy.Names, settings: Settings, ids: Mapping[Label, str]
) -> str:
    """A hash of everything that decides the records: files, splits, names, labels, options and the version."""
    order = {
        split: [
            [row["shown"], row["group"], row["case"].modality, row["case"].anatomy, *row["case"].image_labels]
            for row in rows
        ]
        for split, rows in assigned.items()
    }
    known = [FORMAT, VERSION, burned_in.VERSION, names.fingerprint(), repr(settings), order, sorted(ids.items())]
    digest = hashlib.sha256(json.dumps(known).encode())
    content = functools.cache(_content)
    for rows in assigned.values():
        for row in rows:
            for path in row["case"].files:
                digest.update(content(path))
    return digest.hexdigest()


def _content(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b"missing"
