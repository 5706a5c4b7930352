"""What an evaluation is asked on: a corpus, or a folder of the region schema that is built into one."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

from medp_clip_jax.corpus import MANIFEST, Corpus, ensure_corpus, open_corpus, stamps
from medp_clip_jax.errors import InputError

WHOLE = "whole"  # the split that --split=all makes of a folder, whatever its splits.json says: none may be called "all"


def open_data(path: str | os.PathLike[str], split: str, cache: str | os.PathLike[str]) -> Corpus:
    """Opens a corpus, or builds one from a folder of the region schema into the folder `cache`.

    Without a splits.json the whole folder becomes the split asked for, with one only as `WHOLE`. The build is kept
    under a name that changes with the folder's annotations, images and masks. InputError where `path` is neither, or
    its build fails.
    """
    path = pathlib.Path(path)
    if (path / MANIFEST).is_file():
        return open_corpus(path)
    splits = [file for file in (path / "splits.json", path.parent / "splits.json") if _assigns(file, path)]
    listings = sorted([*path.glob("*.jsonl"), *path.glob("*/*.jsonl"), *splits])
    if not any(listing.name == "images.jsonl" for listing in listings):
        state = "holds no corpus.json and no images.jsonl" if path.is_dir() else "is not a folder"
        raise InputError(f"{path}: {state}: give --data a corpus, or a folder with images.jsonl (or folders of these)")
    digest = hashlib.sha256(split.encode())
    for listing in listings:
        digest.update(listing.read_bytes())
        digest.update("\n".join(_stamps(listing)).encode())
    arguments = ["--source=folder", f"--input={path}"]
    if not splits or split == WHOLE:
        arguments.append(f"--split={split}")
    return ensure_corpus(pathlib.Path(cache) / f"{path.resolve().name}-{digest.hexdigest()[:8]}", arguments)


def _stamps(listing: pathlib.Path) -> Iterator[str]:
    """Name, size and time of change of each file that the lines of a listing name as their image or mask."""
    names = set()
    for line in listing.read_bytes().splitlines():
        with contextlib.suppress(ValueError, AttributeError):  # the build says what is wrong with it
            row = json.loads(line)
            names |= {row.get(key) for key in ("image", "mask")}
    return stamps(listing.parent, (name for name in names if isinstance(name, str)))


def _assigns(splits: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a splits.json, the folder's own or that of the root above it, says how the folder is split."""
    if splits.parent == folder or not splits.is_file():
        return splits.is_file()
    try:
        return folder.name in json.loads(splits.read_bytes())
    except (OSError, ValueError, TypeError):
        return True  # the build says what is wrong with it
