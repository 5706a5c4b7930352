"""Adapter for SA-Med2D-20M: one binary PNG per mask, whose name tells image, class and instance.

The layout is that of the data set's README (OpenGVLab/SA-Med2D-20M): images/ and masks/, SAMed2D_v1.json with the masks
of each image, SAMed2D_v1_class_mapping_id.json with the classes of each data set in it. The table has gigabytes and is
read as a stream.
"""

import collections
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping

from data.report import Report
from data.sources import Source, labels, regions, rows, tables
from data.sources.files import shown
from data.sources.options import COMMON, FRAME, choice, provenance
from data.sources.pictures import BadRecord, Picture
from data.sources.rows import Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import Region

VERSION = 1
OPTIONS = (
    COMMON
    | FRAME
    | {
        "datasets": "only these of the data sets in it, with commas, such as AbdomenCT1K,BraTS2021",
        "unions": "drop (default) or keep masks of the classes named union_..., which join others",
    }
)
TABLES = ("SAMed2D_v1.json", "SAMed2Dv1.json")
CLASSES = ("SAMed2D_v1_class_mapping_id.json", "SAMed2Dv1_class_mapping_id.json")
# The part of a modality's name before its sub-modality -> what the corpus calls it.
_MODALITIES = {
    "ct": "ct", "mr": "mri", "x": "x-ray", "pet": "pet", "ultrasound": "ultrasound", "dermoscopy": "dermoscopy",
    "endoscopy": "endoscopy", "fundus": "colour fundus photography", "microscopy": "microscopy",
    "histopathology": "histopathology",
}  # fmt: skip
_CARDIAC = ("cmr", "lge")


def open_samed2d(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images of SA-Med2D-20M in `path`, the folder with the two tables; see `folder.open_folder`.

    A row takes about 200 bytes of memory. Raises InputError if a table is absent or damaged.
    """
    stated = options or {}
    table, classes = _table(path, TABLES), _classes(_table(path, CLASSES))
    frame = choice(stated, "exif", (regions.STORED, regions.SHOWN))
    keep_unions = choice(stated, "unions", ("drop", "keep")) == "keep"
    wanted = frozenset(filter(None, stated.get("datasets", "").split(",")))
    if unknown := wanted - classes.keys():
        raise InputError(f"--option=datasets: {', '.join(sorted(unknown))} not in {shown(table)}: it lists the classes")
    dropped: collections.Counter[str] = collections.Counter()
    found = _rows(path, table, classes, wanted, keep_unions, dropped, report)
    gathered = rows.gather(found, "SA-Med2D-20M", path, only, stated, report)
    for dataset, count in sorted(dropped.items()):
        report.warn(f"{shown(table)}: {dataset}", f"{count} masks of union classes left out (--option=unions=keep)")
    read = functools.partial(_regions, path, frame, report)
    told = provenance(
        stated,
        licence="CC BY-NC-SA 4.0; those of the data sets in it apply, too",
        origin="https://huggingface.co/datasets/OpenGVLab/SA-Med2D-20M",
        annotation="mixed",
        citation="Ye et al. 2023, arXiv 2311.11969",
    )
    return rows.open_source("samed2d", gathered, read, [VERSION], stated, told, ontology, shipped, report)


def _table(path: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path:
    for name in names:
        for folder in (path, path / "annotations"):
            if (folder / name).is_file():
                return folder / name
    raise InputError(f"{shown(path)}: holds no {names[0]}: --input names the unpacked SAMed2Dv1 folder")


def _classes(path: pathlib.Path) -> dict[str, dict[int, str]]:
    """Data set -> class number -> class name."""
    table = tables.read_json(path)
    classes: dict[str, dict[int, str]] = {}
    try:
        for dataset, names in table.items():
            classes[dataset] = {int(number): str(name) for name, number in names.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{shown(path)}: expected data set -> class name -> number: take the original file") from error
    return classes


def _rows(
    folder: pathlib.Path,
    table: pathlib.Path,
    classes: Mapping[str, Mapping[int, str]],
    wanted: frozenset[str],
    keep_unions: bool,
    dropped: collections.Counter[str],
    report: Report,
) -> Iterator[Row]:
    for image, masks in tables.stream_json(table, "", pairs=True):
        stem = _stem(image)
        parts = stem.split("--")
        place = f"{table.name}: {shown(image)}"
        if len(parts) < 4 or not isinstance(masks, list):
            detail = "expected modality--dataset--case--slice.png with a list of masks"
            report.skip(f"{shown(folder)}/{place}", "unknown file name", detail)
            continue
        dataset = parts[1]
        if wanted and dataset not in wanted:
            continue
        chosen = []
        for mask in map(str, masks):
            label = _label(mask, classes.get(dataset, {}))
            if label is None:
                detail = f"{shown(mask)}: no class of that number in {dataset}"
                report.skip(f"{shown(folder)}/{place}", "class absent from the table", detail)
            elif label.startswith("union_") and not keep_unions:
                dropped[dataset] += 1
            else:
                # By its number alone where it has the usual name: a third of the memory.
                usual = f"masks/{stem}--"
                chosen.append([label, mask[len(usual) :] if mask.startswith(usual) else f"/{mask}"])
        yield Row(
            place=table.name,
            image_id=shown(stem),
            image=image,
            group="--".join(parts[1:-1]),
            labels=tuple(dict.fromkeys(label for label, _ in chosen)),
            modality=_modality(parts[0]),
            detail=chosen,
            files=tuple(_mask_path(stem, name) for _, name in chosen),
        )


def _stem(image: str) -> str:
    return image.rsplit("/", 1)[-1].removesuffix(".png")


def _label(mask: str, classes: Mapping[int, str]) -> str | None:
    number = re.search(r"--(\d+)_\d+\.png$", mask)
    return classes.get(int(number[1])) if number else None


def _mask_path(stem: str, name: str) -> str:
    return name[1:] if name.startswith("/") else f"masks/{stem}--{name}"


def _modality(text: str) -> str:
    """`mr_t1` -> `mri (t1)`; a sub-modality of 00 is none."""
    kind, _, sub = text.partition("_")
    name = _MODALITIES.get(kind, text.replace("_", " "))
    if kind not in ("ct", "mr") or sub in ("", "00"):
        return name
    return f"{name} ({'cardiac' if sub in _CARDIAC else sub})"


def _regions(
    folder: pathlib.Path, frame: str, report: Report, row: Row, picture: Picture, resolved: labels.Resolved
) -> Iterator[Region]:
    for label, name in row.detail:
        path = folder / _mask_path(_stem(row.image), name)
        try:
            mask = regions.mask_in(picture, regions.read_mask(path) != 0, shown(path), frame)
            yield regions.of_mask(resolved.node(label), mask, shown(path))
        except BadRecord as bad:
            report.skip(f"{shown(folder)}/{row.place}: {row.image_id}, {shown(label)}", bad.reason, bad.detail)
