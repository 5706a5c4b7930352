"""Adapter for images with mask files: indexed or colour-coded masks with a table of classes, or one mask per class.

No standard describes them; what is here are the layouts that data sets of segmentations share: masks in a folder beside
that of the images (images/x.jpg, masks/x.png), masks next to their image (x.png, x_mask.png), and one binary mask per
class named after it (IDRiD_01_MA.tif, EDD2020_00001_BE.tif, masks/liver/x.png).
"""

import functools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image
from scipy import ndimage

from data.report import Report
from data.sources import Source, labels, mask_files, regions, rows, splits
from data.sources.class_table import Classes, read_classes
from data.sources.files import shown
from data.sources.options import COMMON, ENCODING, FRAME, GROUP, choice, group_of, pattern, provenance
from data.sources.pictures import BadRecord, Picture
from data.sources.rows import Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import Region

VERSION = 1
OPTIONS = (
    COMMON
    | GROUP
    | FRAME
    | ENCODING
    | {
        "images": "folder of the images, below --input; default: images, or --input itself",
        "masks": "where the masks are, below --input, such as masks/{stem}.png, {stem}_mask.png or "
        "masks/{stem}_{label}_{n}.tif: {stem} is the image's name without suffix, {n} digits, * anything",
        "label": "label of all non-zero pixels (from 128 in JPEG), for masks of a single class",
        "classes": "file with the names of values or colours, or 1=liver,2=spleen, #ff0000=liver, MA=microaneurysm,ST=",
        "instances": "no (default): a region per class; components: one per connected part; values: one per value",
    }
)
_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are connected


def open_mask_png(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images below `path` with their mask files; see `folder.open_folder`. InputError if there are none, or if
    nothing says what their pixels mean."""
    stated = options or {}
    classes = read_classes(stated.get("classes", ""), path, stated.get("encoding", ""))
    label = stated.get("label", "").strip()
    images, masks = mask_files.layout(path, stated)
    if not label and "{label}" not in masks and not classes.values and not classes.colours:
        raise InputError(
            f"{shown(path)}: nothing says what the pixels mean: give --option=label=NAME, --option=classes=TABLE, or "
            "{label} in --option=masks="
        )
    frame = choice(stated, "exif", (regions.STORED, regions.SHOWN))
    instances = choice(stated, "instances", ("no", "components", "values"))
    found = _rows(path, images, masks, label, classes, pattern(stated, "group"), report)
    gathered = rows.gather(found, path.resolve().name, path, only, stated, report)
    place = f"{shown(path)}: --option=classes"
    others = {labels.of_name(name): place for name in [label, *classes.labels()] if name}
    read = functools.partial(_regions, path, classes, frame, instances, report)
    recipe = [VERSION, sorted(classes.values.items()), sorted(classes.colours.items()), sorted(classes.names.items())]
    told = provenance(stated, annotation="unknown")
    return rows.open_source("mask_png", gathered, read, recipe, stated, told, ontology, shipped, report, others)


def _rows(
    folder: pathlib.Path,
    images: pathlib.Path,
    masks: str,
    label: str,
    classes: Classes,
    expression: re.Pattern[str] | None,
    report: Report,
) -> Iterator[Row]:
    for stem, image, found in mask_files.pairs(folder, images, masks, report):
        mine = []
        for mask, named in found:
            name = classes.names.get(named, named) if named else label
            if not named or name:  # a class mapped to nothing is left out
                mine.append([mask, name])
        place, image_id = shown(image), shown(stem)
        if not found:
            report.warn(f"{shown(folder)}/{place}", f"no mask of the form {masks}: the image has no region")
        yield Row(
            place=place,
            image_id=image_id,
            image=image,
            group=group_of(expression, image_id, ""),
            split=splits.named(os.path.dirname(image)),
            labels=tuple(dict.fromkeys(name for _, name in mine if name)),
            detail=mine,
            files=tuple(mask for mask, _ in mine),
        )


def _regions(
    folder: pathlib.Path,
    classes: Classes,
    frame: str,
    instances: str,
    report: Report,
    row: Row,
    picture: Picture,
    resolved: labels.Resolved,
) -> Iterator[Region]:
    place = f"{shown(folder)}/{row.place}: {row.image_id}"
    for mask, label in row.detail:
        where = shown(folder / mask)
        try:
            image = regions.open_mask(folder / mask)
            values, names = _one_class(image, label, instances) if label else _values(image, classes, where)
            values = regions.mask_in(picture, values, where, frame)
            found = dict(regions.of_values(values))
            if label and not any(found):
                raise BadRecord("empty mask", f"{where} has no pixel: correct the mask or remove it")
            _tell_unknown(found, names, names is classes.colours, where, place, report)
            # In the order of the table; the values of instances have no names of their own.
            for value in [value for value in names if value in found] if names else filter(None, found):
                name = names[value] if names else label
                if name and instances == "components":
                    parts, _ = ndimage.label(values == value, _EIGHT)
                    pieces = [counts for part, counts in regions.of_values(parts) if part]
                else:
                    pieces = [found[value]] if name else []
                for counts in pieces:
                    yield regions.of_rle(resolved.node(name), counts, *values.shape, where)
        except BadRecord as bad:
            report.skip(place + (f", {shown(label)}" if label else ""), bad.reason, bad.detail)


def _one_class(image: Image.Image, label: str, instances: str) -> tuple[np.ndarray, Mapping[int, str]]:
    """The pixels of a single class as 1, all others as 0; or the values of its instances, without names."""
    lossy = image.format == "JPEG"
    values = np.asarray(image.convert(image.mode[:-1]) if image.mode in ("RGBA", "LA") else image)
    values = values if values.ndim == 2 else values.max(axis=-1)
    if instances == "values":
        return values, {}
    return (values >= 128 if lossy else values != 0).astype(np.uint8), {1: label}


def _values(image: Image.Image, classes: Classes, where: str) -> tuple[np.ndarray, Mapping[int, str]]:
    """The values of an indexed mask or the colours of a coloured one (24 bits), and their names."""
    if classes.colours and (image.mode in ("RGB", "RGBA", "P", "PA") or not classes.values):
        channels = np.asarray(image.convert("RGB")).astype(np.int32)
        return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2], classes.colours
    values = np.asarray(image.convert(image.mode[:-1]) if image.mode in ("RGBA", "LA") else image)
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise BadRecord("colours without a class", f"{where} has colours, the table of classes values")
        values = values[..., 0]
    return values, classes.values


def _tell_unknown(
    found: Mapping[int | float, bytes], names: Mapping[int, str], coloured: bool, where: str, place: str, report: Report
) -> None:
    """Reports the values of a mask that the table lacks; 0 is background unless it says otherwise."""
    lost = sorted(found.keys() - names.keys() - {0}) if names else []
    if lost:
        listed = ", ".join(f"#{value:06x}" if coloured else f"{value:g}" for value in lost[:8])
        more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
        detail = f"{where} has {listed}{more}: add them, or map them to nothing"
        report.skip(place, "class absent from the table", detail)
