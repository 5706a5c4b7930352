"""Adapter for tables of images with captions: ROCO, ROCOv2, PMC-OA, and any CSV, TSV or JSON lines with both.

ROCO (github.com/razorx89/roco-dataset): data/SPLIT/radiology/captions.txt, tabs, no header, `ROCO_00001`, caption, with
images/ROCO_00001.jpg beside it and the article of each image in dlinks.txt. ROCOv2: train_captions.csv with `ID,
Caption`, images in train/ or train_images/. PMC-OA (axiong/pmc_oa): pmc_oa.jsonl with `image` and `caption`, images in
caption_T060_filtered_top4_sep_v0_subfigures/, called after their article.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping

from data.report import Report
from data.sources import Source, rows, splits, tables
from data.sources.files import Finder, matching, relative, shown
from data.sources.options import COMMON, ENCODING, GROUP, group_of, pattern, provenance
from data.sources.rows import Row
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

VERSION = 1
OPTIONS = (
    COMMON
    | GROUP
    | ENCODING
    | {
        "tables": "the tables, as a pattern below --input; default: those of ROCO, ROCOv2 or PMC-OA, else the only one",
        "images": "folder of the images, below --input; default: where these sets have them, or found by name",
        "image": "column of the image's file; default: image, path, file_name, name, ID and the like",
        "caption": "column of the caption; default: caption or text",
        "columns": "names of the columns, with commas, of a table without header; of captions.txt: image,caption",
    }
)
_USUAL = ("pmc_oa*.jsonl", "**/captions.txt", "*captions*.csv", "**/radiology*data.csv")
_IMAGE = (
    "image", "imagepath", "imgpath", "path", "file", "filename", "filepath", "medianame", "name", "imageid",
    "imageindex", "id",
)  # fmt: skip
_CAPTION = ("caption", "text", "description", "report", "sentence")
_ARTICLE = re.compile(r"PMC\d+")
_PMC_IMAGES = "caption_T060_filtered_top4_sep_v0_subfigures"


def open_captions(
    path: pathlib.Path,
    ontology: Ontology,
    shipped: Ontology,
    only: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Source:
    """The images with captions of the tables below the folder `path`, or of the table `path`; see `folder.open_folder`.

    Raises InputError if there is no table, or a column is missing.
    """
    stated = options or {}
    folder, files = _tables(path, stated)
    found = _rows(folder, files, stated, report)
    gathered = rows.gather(found, folder.resolve().name, folder, only, stated, report)
    told = provenance(stated, annotation="human", annotation_protocol="captions as published with the figures")
    return rows.open_source("captions", gathered, rows.no_regions, [VERSION], stated, told, ontology, shipped, report)


def _tables(path: pathlib.Path, stated: Mapping[str, str]) -> tuple[pathlib.Path, list[pathlib.Path]]:
    if path.is_file():
        return path.parent, [path]
    if not path.is_dir():
        raise InputError(f"{shown(path)}: no such folder or file: --input names a table or the folder with it")
    usual = [stated["tables"]] if stated.get("tables") else _USUAL
    for pattern_ in usual:
        if found := matching(path, pattern_):
            return path, found
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson"))
    if stated.get("tables") or len(found) != 1:
        count = "no" if stated.get("tables") else len(found)
        raise InputError(f"{shown(path)}: {count} tables there: name them by --option=tables=PATTERN")
    return path, found


def _rows(folder: pathlib.Path, files: list[pathlib.Path], stated: Mapping[str, str], report: Report) -> Iterator[Row]:
    expression = pattern(stated, "group")
    names = [name.strip() for name in stated.get("columns", "").split(",") if name.strip()]
    for file in files:
        split = splits.named(file.stem) or splits.named(relative(file.parent, folder))
        finder = Finder(folder, _image_folders(folder, file, split, stated))
        articles = _articles(file.parent / "dlinks.txt")
        columns: tuple[str, str] | None = None
        plain = names or (["image", "caption"] if file.name == "captions.txt" else [])
        for place, row in tables.read_table(file, report, plain, stated.get("encoding", "")):
            if columns is None:
                columns = (
                    tables.column(row, [stated["image"]] if stated.get("image") else _IMAGE, file, "the image"),
                    tables.column(row, [stated["caption"]] if stated.get("caption") else _CAPTION, file, "the caption"),
                )
            image, caption = tables.cell(row, columns[0]), " ".join(tables.cell(row, columns[1]).split())
            if not image or not caption:
                missing = "image path" if not image else "caption"
                report.skip(place, f"no {missing}", f"column {columns[0] if not image else columns[1]!r} is empty")
                continue
            article = _ARTICLE.search(image)
            yield Row(
                place=place.removeprefix(f"{shown(folder)}/"),
                image_id=shown(image),
                image=relative(finder.find(image), folder),
                group=group_of(expression, image, article[0] if article else articles.get(image, "")),
                split=split,
                caption=caption,
            )


def _image_folders(
    folder: pathlib.Path, file: pathlib.Path, split: str, stated: Mapping[str, str]
) -> tuple[pathlib.Path, ...]:
    if stated.get("images"):
        return (folder / stated["images"],)
    beside = file.parent
    first = re.split(r"[_.]", file.stem)[0]  # train_captions -> train
    names = ["images", _PMC_IMAGES, f"images/{_PMC_IMAGES}", "radiology/images", split, f"{split}_images", first]
    places = [beside, *(beside / name for name in [*names, f"{first}_images"] if name)]
    return tuple(dict.fromkeys(place for place in places if place.is_dir()))


def _articles(path: pathlib.Path) -> dict[str, str]:
    """Image -> article, from ROCO's list of downloads: images of one article belong to one split."""
    if not path.is_file():
        return {}
    with tables.open_text(path) as file:
        found = ((line.split("\t")[0].strip(), _ARTICLE.search(line)) for line in file)
        return {image: article[0] for image, article in found if article}
