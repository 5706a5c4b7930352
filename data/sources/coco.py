"""Adapter for COCO JSON: polygons, run lengths (as a string or as numbers) and boxes of instances, and captions.

The layout is that of cocodataset.org ("Data format"), also as exported by Roboflow, CVAT, Label Studio and others: one
or more JSON files with `images`, `annotations` and `categories`, and the images in folders beside them.
"""

import functools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data.report import Report
from data.sources import Source, labels, regions, rows, splits, tables
from data.sources.coco_shapes import read_shape
from data.sources.files import Finder, matching, relative, shown
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
        "annotations": "JSON files, as a pattern below --input; default: those with instances, wherever COCO has them",
        "images": "folder of the images, below --input; default: where the usual layouts have them",
        "crowd": "keep (default): iscrowd=1 is a region as others; drop: it is left out",
    }
)


def open_coco(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images of one or more COCO files, `path` being a folder or a JSON file; see `folder.open_folder`.

    Annotations are held in memory, pixels never. Raises InputError if no file can be used at all.
    """
    stated = options or {}
    folder, files = _files(path, stated)
    frame, crowds = choice(stated, "exif", (regions.STORED, regions.SHOWN)), choice(stated, "crowd", ("keep", "drop"))
    facts: dict[str, str] = {}
    found = _rows(folder, files, stated, crowds == "drop", facts, report)
    gathered = rows.gather(found, folder.resolve().name, folder, only, stated, report)
    read = functools.partial(_regions, folder, frame, report)
    told = provenance(stated, **facts)
    return rows.open_source("coco", gathered, read, [VERSION], stated, told, ontology, shipped, report)


def _files(path: pathlib.Path, stated: Mapping[str, str]) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder of the data set and its annotation files."""
    if path.is_file():
        return (path.parent.parent if path.parent.name == "annotations" else path.parent), [path]
    if not path.is_dir():
        raise InputError(f"{shown(path)}: no such folder or file: --input names a COCO JSON file or its folder")
    patterns = [stated["annotations"]] if stated.get("annotations") else ["*.json", "annotations/*.json", "*/*.json"]
    found = sorted({file for pattern in patterns for file in matching(path, pattern)})
    if not stated.get("annotations"):
        found = [file for file in found if file.name not in ("splits.json", "summary.json")]
        # The official folder has captions and keypoints of the same images beside the instances.
        found = [file for file in found if file.name.startswith("instances")] or found
    if not found:
        raise InputError(f"{shown(path)}: no JSON file there: give --option=annotations=PATTERN")
    return path, found


def _rows(
    folder: pathlib.Path,
    files: list[pathlib.Path],
    stated: Mapping[str, str],
    drop_crowds: bool,
    facts: dict[str, str],
    report: Report,
) -> Iterator[Row]:
    expression = pattern(stated, "group")
    for file in files:
        data = tables.read_json(file, stated.get("encoding", ""))
        if not isinstance(data, dict) or not isinstance(data.get("images"), list):
            if len(files) == 1:
                raise InputError(f"{shown(file)}: not a COCO file: it has no list `images`")
            report.warn(shown(file), "not a COCO file (it has no list `images`): not read")
            continue
        place = relative(file, folder)
        if wrong := [
            key for key in ("annotations", "categories", "licenses") if not isinstance(data.get(key, []), list)
        ]:
            raise InputError(f"{shown(file)}: `{wrong[0]}` is not a list: repair it")
        facts |= _facts(data)
        split = splits.named(file.stem) or splits.named(relative(file.parent, folder))
        finder = Finder(folder, _image_folders(file, folder, split, stated))
        images = _images(data["images"], f"{shown(folder)}/{shown(place)}", report)
        found = _annotations(data, images, drop_crowds, f"{shown(folder)}/{shown(place)}", report)
        for key, image in images.items():
            captions, shapes = found.get(key, ("", []))
            file_name = shown(image["file_name"])
            yield Row(
                place=f"{shown(place)}: image {key}",
                image_id=file_name,
                image=relative(finder.find(image["file_name"]), folder),
                group=group_of(expression, file_name, str(image.get("group") or "")),
                split=split,
                labels=tuple(dict.fromkeys(shape[1] for shape in shapes)),
                caption=captions,
                detail=[image.get("width"), image.get("height"), shapes],
            )


def _images(listed: list[Any], place: str, report: Report) -> dict[Any, dict[str, Any]]:
    images: dict[Any, dict[str, Any]] = {}
    for number, image in enumerate(listed):
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            report.skip(f"{place}: images[{number}]", "no image_id", "each image is an object with an id")
        elif not isinstance(image.get("file_name"), str) or not image["file_name"]:
            report.skip(f"{place}: image {image['id']}", "no image path", "give its file_name")
        elif str(image["id"]) in images:
            report.skip(f"{place}: image {image['id']}", "image_id used twice", "the first one is kept")
        else:
            images[str(image["id"])] = image  # some tools write "1" here and 1 there
    return images


def _annotations(
    data: Mapping[str, Any], images: Mapping[Any, Any], drop_crowds: bool, place: str, report: Report
) -> dict[Any, tuple[str, list[Any]]]:
    """Image id -> its caption and its regions [annotation id, label, segmentation, bbox]."""
    categories = _categories(data, place, report)
    found: dict[Any, tuple[str, list[Any]]] = {}
    known: dict[Any, int] = {}
    for number, annotation in enumerate(data.get("annotations", [])):
        where = f"{place}: annotations[{number}]"
        if not isinstance(annotation, dict):
            report.skip(where, "not an annotation", f"expected an object, got {str(annotation)[:40]}")
            continue
        key, image = annotation.get("id", number), annotation.get("image_id")
        where = f"{place}: annotation {key}"
        if str(image) not in images:
            report.skip(where, "region of an unknown image", f"image_id {image!r} is not in `images`")
            continue
        image = str(image)
        caption, shapes = found.get(image, ("", []))
        if isinstance(annotation.get("caption"), str):
            found[image] = caption or annotation["caption"].strip(), shapes
            continue
        label = categories.get(str(annotation.get("category_id")))
        content = hash(json.dumps([image, label, annotation.get("segmentation"), annotation.get("bbox")]))
        if label is None:
            detail = f"category_id {annotation.get('category_id')!r} is not in `categories`"
            report.skip(where, "class absent from the table", detail)
        elif known.get(str(key)) == content:
            report.skip(where, "annotation given twice", "the same region has the same id before")
        elif not (drop_crowds and annotation.get("iscrowd")):
            if str(key) in known:
                report.warn(where, "its id is used twice: both regions are kept")
            shapes.append([key, label, annotation.get("segmentation"), annotation.get("bbox")])
            found[image] = caption, shapes
        known[str(key)] = content
    return found


def _categories(data: Mapping[str, Any], place: str, report: Report) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for category in data.get("categories", []):
        name = category.get("name") if isinstance(category, dict) else None
        if not isinstance(name, str) or not name.strip() or category.get("id") is None:
            report.skip(f"{place}: categories", "class without a name", f"{str(category)[:60]}: give id and name")
        elif names.setdefault(str(category["id"]), name.strip()) != name.strip():
            detail = f"{name!r} has it, too, and is not used"
            report.skip(f"{place}: category {category['id']}", "class id used twice", detail)
    return names


def _facts(data: Mapping[str, Any]) -> dict[str, str]:
    info = data.get("info") if isinstance(data.get("info"), dict) else {}
    named = [item.get("name") for item in data.get("licenses", []) if isinstance(item, dict)]
    return {
        "licence": "; ".join(sorted({name for name in named if isinstance(name, str) and name})),
        "origin": "; ".join(str(info[key]) for key in ("description", "url", "contributor") if info.get(key)),
        "annotation": "unknown",
    }


def _image_folders(
    file: pathlib.Path, folder: pathlib.Path, split: str, stated: Mapping[str, str]
) -> tuple[pathlib.Path, ...]:
    if stated.get("images"):
        return (folder / stated["images"],)
    named = re.sub(r"^(instances|captions|stuff|person_keypoints)_", "", file.stem)  # instances_val2017 -> val2017
    places = [file.parent, folder, folder / "images", folder / named, folder / "images" / named]
    if split:
        places += [folder / split, folder / "images" / split]
    return tuple(dict.fromkeys(path for path in places if path.is_dir()))


def _regions(
    folder: pathlib.Path, frame: str, report: Report, row: Row, picture: Picture, resolved: labels.Resolved
) -> Iterator[Region]:
    width, height, shapes = row.detail
    size = regions.stated_size({"width": width, "height": height}, picture)
    regions.turn_of(picture, size, frame, shown(os.path.basename(row.image)))
    for key, label, segmentation, box in shapes:
        place = f"{shown(folder)}/{row.place}, annotation {key}, {shown(label)}"
        try:
            region, change = read_shape(segmentation, box, resolved.node(label), picture, size, frame)
        except BadRecord as bad:
            report.skip(place, bad.reason, bad.detail)
            continue
        if change:
            report.warn(place, change)
        yield region
