"""Which mask files belong to which image, by their names."""

import collections
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from data.report import Report
from data.sources.files import SUFFIXES, relative, shown, walk
from medp_clip_jax.errors import InputError

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "Images")
_MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth", "groundtruth",
    "segmentations", "SegmentationClass", "Masks", "Labels",
)  # fmt: skip
_ENDINGS = ("_mask", "-mask", ".mask", "_masks", "_seg", "_segmentation", "_label", "_labels", "_gt", "_anno")
_PARTS = {
    "{label}": r"(?P<label>[^/]+?)",
    "{ending}": f"(?:{'|'.join(re.escape(ending) for ending in _ENDINGS)})?",
    "{n}": r"\d+",
    "*": "[^/]*",
}


def layout(path: pathlib.Path, stated: Mapping[str, str]) -> tuple[pathlib.Path, str]:
    """The folder of the images, and the pattern of the masks: the stated one, or that of a usual layout. InputError if
    a stated one cannot be meant."""
    if not path.is_dir():
        raise InputError(f"{shown(path)}: no such folder: --input names the folder of images and masks")
    images = path / stated["images"] if stated.get("images") else None
    if images is not None and not images.is_dir():
        raise InputError(f"--option=images={stated['images']}: no such folder in {shown(path)}")
    images = images or next((path / name for name in _IMAGE_FOLDERS if (path / name).is_dir()), path)
    masks = stated.get("masks", "")
    if masks:
        if masks.count("{stem}") != 1 or masks.count("{label}") > 1:
            raise InputError(
                f"--option=masks={masks}: needs {{stem}}, the image's name without suffix, and {{label}} at most once"
            )
        return images, masks
    folder = next((name for name in _MASK_FOLDERS if (path / name).is_dir()), None)
    if folder and images != path / folder:
        return images, f"{folder}/{{stem}}{{ending}}"
    below = relative(images, path)
    return images, ("" if below == "." else f"{below}/") + "{stem}{ending}"


def pairs(
    folder: pathlib.Path, images: pathlib.Path, masks: str, report: Report
) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yields each image's path below `images` without suffix, its path below `folder`, and its masks: their paths and
    what stands for {label} in them. Mask files of no image are told in one line."""
    start = masks.partition("{")[0].partition("*")[0].rpartition("/")[0]
    if not (folder / start).is_dir():
        raise InputError(f"--option=masks={masks}: no folder {start} in {shown(folder)}")
    listed = [relative(path, folder) for path in walk(images)]
    candidates = [relative(path, folder) for path in walk(folder / start)]
    listed, candidates = _apart(listed, candidates, masks)
    stems: dict[str, str] = {}
    for path in listed:
        name = relative(folder / path, images)
        stem = os.path.splitext(name)[0]
        stems[stem if stem not in stems else name] = path
    found = _match(folder, masks, stems, candidates, report)
    for stem, path in stems.items():
        yield stem, path, found.get(stem, [])


def _apart(listed: list[str], candidates: list[str], masks: str) -> tuple[list[str], list[str]]:
    """Images and masks, where both stand in one folder: a mask has the name of another file and something after it."""
    both = set(listed) & set(candidates)
    if not both:
        return listed, candidates
    plain = {os.path.splitext(path)[0] for path in listed}
    tail = re.compile(_regex(os.path.splitext(masks.partition("{stem}")[2])[0]) + r"\Z")

    def is_mask(path: str) -> bool:
        stem = os.path.splitext(path)[0]
        return any(stem[:cut] in plain and tail.match(stem, cut) for cut in range(len(stem) - 1, 0, -1))

    of_mask = {path for path in both if is_mask(path)}
    return [path for path in listed if path not in of_mask], [
        path for path in candidates if path in of_mask or path not in both
    ]


def _match(
    folder: pathlib.Path, masks: str, stems: Mapping[str, str], files: list[str], report: Report
) -> dict[str, list[tuple[str, str]]]:
    before, _, after = masks.partition("{stem}")
    after = after if os.path.splitext(after)[1].lower() in SUFFIXES else after + ".*"
    head, tail = re.compile(_regex(before)), re.compile(_regex(after) + r"\Z")
    # Masks may stand flat where images stand in folders, as long as their names tell them apart.
    counts = collections.Counter(stem.rpartition("/")[2] for stem in stems)
    names = {name: stem for stem in stems if counts[name := stem.rpartition("/")[2]] == 1}
    found: dict[str, list[tuple[str, str]]] = {}
    lost = []
    for file in files:
        start = head.match(file)
        rest = file[start.end() :] if start else ""
        for cut in range(len(rest), 0, -1):  # the longest first: x_1 must not take what belongs to x_10
            stem = rest[:cut] if rest[:cut] in stems else names.get(rest[:cut])
            end = tail.match(rest, cut) if stem is not None else None
            if start and stem is not None and end:
                label = (start.groupdict() | end.groupdict()).get("label", "")
                found.setdefault(stem, []).append((file, label))
                break
        else:
            lost.append(file)
    if lost:
        report.warn(f"{shown(folder)}/{shown(lost[0])}", f"{len(lost)} files are masks of no image: not read")
    return found


def _regex(text: str) -> str:
    """The regular expression of a part of a pattern."""
    for part, expression in _PARTS.items():
        before, found, after = text.partition(part)
        if found:
            return _regex(before) + expression + _regex(after)
    return re.escape(text)
