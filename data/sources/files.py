"""Finding the files of a data set: in a fixed order, without the litter of operating systems, by names of any bytes."""

import os
import pathlib
from collections.abc import Iterator

from medp_clip_jax.errors import InputError

DICOM = ".dcm"
SPELLINGS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", DICOM, "")  # of a file that a table names without its suffix
# What Pillow reads and data sets of images hold.
SUFFIXES = frozenset(".png .jpg .jpeg .jpe .jfif .bmp .dib .tif .tiff .gif .webp .jp2 .ppm .pgm .pbm .pnm .tga".split())


def shown(path: str | os.PathLike) -> str:
    r"""A path, or any name, as text that can be printed and stored: bytes that are no UTF-8 are written \xff, line
    ends and other control characters likewise."""
    text = os.fsdecode(path)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # how Python keeps a byte of a name that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return repr(char)[1:-1]


def walk(folder: pathlib.Path, suffixes: frozenset[str] = SUFFIXES) -> Iterator[pathlib.Path]:
    """All files below `folder` with one of these suffixes, sorted by the bytes of their names, folder by folder.

    Hidden files and folders are left out, and with them what macOS adds to archives (`._x.png`, `__MACOSX`).
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise InputError(f"{shown(folder)}: cannot be read ({error.strerror}): check the path") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir():
            yield from walk(pathlib.Path(entry.path), suffixes)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            yield pathlib.Path(entry.path)


class Finder:
    """Finds the files that a table names: as given below one of the folders, with or without its suffix, else by the
    bare name anywhere below the root, where it is unique."""

    def __init__(self, root: pathlib.Path, folders: tuple[pathlib.Path, ...] = ()):
        self._root, self._folders = root, folders or (root,)
        self._names: dict[str, pathlib.Path | None] | None = None

    def find(self, name: str) -> pathlib.Path:
        """The path of the file called `name`; one that does not exist where there is none, or several of that name."""
        name = name.replace("\\", "/").lstrip("/")
        given = os.path.splitext(name)[1].lower() in SUFFIXES | {DICOM}
        spellings = [name] if given else [name + suffix for suffix in SPELLINGS]
        for folder in self._folders:
            for spelling in spellings:
                path = folder / spelling
                if path.is_file():
                    return path
        if self._names is None:  # a walk over everything, only where the table's paths do not fit
            self._names = {}
            for path in walk(self._root):
                for key in {path.name, path.stem}:
                    self._names[key] = None if key in self._names else path
        return self._names.get(os.path.basename(name)) or self._folders[0] / spellings[0]


def relative(path: pathlib.Path, folder: pathlib.Path) -> str:
    """The path below `folder`, or as it is where it lies elsewhere."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path.absolute())


def matching(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """The files below `folder` that match a pattern, sorted; InputError if it is none."""
    try:
        return sorted(path for path in folder.glob(pattern) if path.is_file())
    except (NotImplementedError, ValueError, IndexError) as error:
        raise InputError(f"{pattern!r}: not a pattern of paths below {shown(folder)} ({error})") from error
