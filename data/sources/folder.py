"""Adapter for folders of images.jsonl, annotations.jsonl, images/ and masks/.

images.jsonl holds one image a line: image_id and image (path) are needed; width, height, modality, anatomy, view,
group, caption, image_labels, flips and dataset may be there. annotations.jsonl holds one region a line: image_id and
label, a mask (path; with mask_value an instance map) or a box [x0, y0, x1, y1) in pixels, and label_text where the
label is no plain phrase. splits.json, summary.json and SOURCE.md are optional.
"""

import concurrent.futures
import functools
import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.parallel import cores
from data.report import Report
from data.sources import Items, Source, labels, regions, splits
from data.sources.packed import PackedRows
from data.sources.pictures import Picture
from medp_clip_jax.corpus import FORMAT
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import Region, RegionExample

IMAGES, ANNOTATIONS = "images.jsonl", "annotations.jsonl"
VERSION = 2  # of this adapter's output: a change of what it yields from the same files must raise it
# Views without left and right: a mirrored cell, skin lesion or tissue section is as real as the original.
MIRRORABLE = ("microscopy", "dermoscopy", "histopathology", "histology")

Row = Mapping[str, Any]


def find_folders(directory: pathlib.Path) -> list[pathlib.Path]:
    """The data set folders at or directly below `directory`, sorted by name; InputError if there are none."""
    if not directory.is_dir():
        raise InputError(
            f"{directory}: no such directory: --input names a folder with {IMAGES}, or a folder of such folders"
        )
    if (directory / IMAGES).is_file():
        return [directory]
    folders = sorted(path for path in directory.iterdir() if (path / IMAGES).is_file())
    if not folders:
        raise InputError(f"{directory}: neither it nor a folder in it holds an {IMAGES}: give a folder of that schema")
    return folders


def open_folder(folder: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report) -> Source:
    """Reads the tables of one data set and resolves its labels; images and masks are decoded as the source is streamed.

    `only` puts all images into one split. Labels outside `shipped` are reported, those outside `ontology` become nodes.
    Raises InputError if the folder cannot be used at all.
    """
    rows = _image_rows(folder, report)
    name = _name(folder, rows)
    table = splits.read_splits(folder, name)
    assigned = splits.assign(rows, name, table, only, str(folder / IMAGES), report)
    used = {row["image_id"] for part in assigned.values() for row in part}
    annotations = _annotation_rows(folder, {row["image_id"] for row in rows}, used, report)
    parts = {split: _WithRegions(part, annotations) for split, part in assigned.items()}
    wanted = labels.wanted(itertools.chain.from_iterable(parts.values()))
    resolved = labels.resolve(wanted, ontology, shipped, name, report)
    make = functools.partial(_examples, folder, name, resolved, report)
    items = {split: Items(part, make) for split, part in parts.items()}
    return Source(
        name=name,
        adapter="folder",
        fingerprint=_fingerprint(folder, assigned, annotations, resolved.ids),
        splits={split: part.stream for split, part in items.items()},
        provenance=_provenance(folder),
        nodes=resolved.nodes,
        items=items,
    )


class _WithRegions(Sequence[tuple[Row, list[dict[str, Any]]]]):
    """Images of a split, each with its annotations."""

    def __init__(self, rows: Sequence[Row], annotations: PackedRows):
        self._rows, self._annotations = rows, annotations

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[index]
        return row, self._annotations.of(row["image_id"])


def _lines(path: pathlib.Path, report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                place = f"{path}:{number}"
                try:
                    row = json.loads(line)
                except ValueError as error:
                    report.skip(place, "not JSON", f"{error}; each line is one JSON object")
                    continue
                if isinstance(row, dict) and isinstance(row.get("image_id"), str | int):
                    yield place, {**row, "image_id": str(row["image_id"])}
                else:
                    report.skip(place, "no image_id", "each line is a JSON object with an image_id")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): make it a UTF-8 file of JSON lines") from error


def _image_rows(folder: pathlib.Path, report: Report) -> list[Row]:
    rows: dict[str, Row] = {}
    for place, row in _lines(folder / IMAGES, report):
        image_id = row["image_id"]
        if image_id in rows:
            report.skip(place, "image_id used twice", f"{image_id} stands in an earlier line, which is kept")
        elif not isinstance(row.get("image"), str):
            report.skip(
                place, "no image path", f"{image_id}: `image` is {row.get('image')!r}; give a path below {folder}"
            )
        else:
            rows[image_id] = {**row, "group": _text(row, "group") or image_id, "place": place}
    return list(rows.values())


def _annotation_rows(folder: pathlib.Path, known: set[str], used: set[str], report: Report) -> PackedRows:
    rows = PackedRows()
    path = folder / ANNOTATIONS
    for place, row in _lines(path, report) if path.is_file() else ():
        if row["image_id"] not in known:
            report.skip(place, "region of an unknown image", f"{row['image_id']} is not in {IMAGES}")
        elif row["image_id"] in used:
            if labels.slug(row):
                rows.add(row["image_id"], {**row, "place": place})
            else:
                report.skip(place, "region without a label", f"image {row['image_id']}: give `label`")
    return rows


def _name(folder: pathlib.Path, rows: Sequence[Row]) -> str:
    name = next(
        (row["dataset"] for row in rows if isinstance(row.get("dataset"), str) and row["dataset"]),
        folder.resolve().name,
    )
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-") or "folder"


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value).strip()


def _examples(
    folder: pathlib.Path,
    name: str,
    resolved: labels.Resolved,
    report: Report,
    item: tuple[Row, Sequence[Row]],
) -> Iterator[RegionExample]:
    """The example of an image and its annotations; none if the image cannot be used."""
    row, annotations = item
    try:
        picture = regions.read_image(folder / row["image"], row)
    except regions.BadRecord as bad:
        report.skip(f"{row['place']}: {row['image_id']}", bad.reason, bad.detail)
        return
    if picture.changes:
        report.warn(f"{row['place']}: {row['image_id']}", "; ".join(picture.changes))
    image_labels = []
    for label in labels.of_image(row):
        if label in resolved.ids:
            image_labels.append(resolved.ids[label])
        else:
            report.skip(f"{row['place']}: {row['image_id']}", "label cannot be used", resolved.refused[label])
    yield RegionExample(
        image=picture.data,
        width=picture.width,
        height=picture.height,
        dataset=name,
        image_id=row["image_id"],
        group=row["group"],
        modality=_text(row, "modality"),
        anatomy=_text(row, "anatomy"),
        view=_text(row, "view"),
        caption=_text(row, "caption"),
        image_labels=tuple(dict.fromkeys(image_labels)),
        regions=tuple(_regions(folder, row, annotations, resolved, picture, report)),
        flips=_flips(row),
    )


def _regions(
    folder: pathlib.Path,
    row: Row,
    annotations: Sequence[Row],
    resolved: labels.Resolved,
    picture: Picture,
    report: Report,
) -> Iterator[Region]:
    size = regions.stated_size(row, picture)
    read_mask = functools.lru_cache(maxsize=1)(regions.read_mask)  # the regions of an instance map share one file
    for annotation in annotations:
        label = labels.of_region(annotation)
        try:
            if label in resolved.refused:
                raise regions.BadRecord("label cannot be used", resolved.refused[label])
            yield regions.read_region(folder, annotation, resolved.ids[label], picture, size, read_mask)
        except regions.BadRecord as bad:
            report.skip(f"{annotation['place']}: {row['image_id']}, {label[0]}", bad.reason, bad.detail)


def _flips(row: Row) -> bool:
    if isinstance(row.get("flips"), bool):
        return row["flips"]
    return any(word in _text(row, "modality").lower() for word in MIRRORABLE)


def _fingerprint(
    folder: pathlib.Path,
    assigned: Mapping[str, Sequence[Row]],
    annotations: PackedRows,
    names: Mapping[labels.Label, str],
) -> str:
    """A hash of everything that decides the records: tables, files, splits and the nodes that the labels resolve to."""
    order = {split: [row["image_id"] for row in rows] for split, rows in assigned.items()}
    digest = hashlib.sha256(json.dumps([FORMAT, VERSION, order, sorted(names.items())]).encode())
    tables = [folder / table for table in (IMAGES, ANNOTATIONS, "summary.json", "SOURCE.md")]
    images = [folder / row["image"] for rows in assigned.values() for row in rows]
    masks = {folder / str(row["mask"]) for row in annotations if row.get("mask")}
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:  # reading and hashing leave the interpreter free
        for file_digest in pool.map(_file_digest, [*tables, *images, *sorted(masks)]):
            digest.update(file_digest)
    return digest.hexdigest()


def _file_digest(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return hashlib.sha256(b"missing").digest()


def _provenance(folder: pathlib.Path) -> dict[str, str]:
    """Origin, licence and caveats as the folder states them: summary.json, and the `- **key**: value` lines of
    SOURCE.md."""
    facts: dict[str, str] = {}
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        facts |= {
            key: summary[key] for key in ("licence", "license", "basis", "origin") if isinstance(summary.get(key), str)
        }
    except (OSError, ValueError, AttributeError):
        pass  # both files are optional and free-form
    try:
        text = (folder / "SOURCE.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return facts
    stated = dict(re.findall(r"^- \*\*([^*\n]+)\*\*: *(.+)$", text, re.MULTILINE))
    return facts | {key: value for key, value in stated.items() if key not in ("counts", "classes", "image labels")}
