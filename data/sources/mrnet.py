"""Adapter for MRNet: knee MRI examinations as .npy stacks of slices, with tables of findings of the whole examination.
See docs/sources/mrnet.md."""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from data.report import Report
from data.sources import Source
from data.sources.cases import Case, open_cases
from data.sources.labels import Label
from data.sources.options import number
from data.sources.regions import BadRecord
from data.sources.volume_options import COMMON, read_settings
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.volumes import PLANES, Volume

OPTIONS = {key: COMMON[key] for key in ("name", "planes", "licence", "ids", "salt_file", "key_file", "burned_in")} | {
    "every": "take the middle slice and every N-th from it; 4 by default, 1 takes all",
}
FINDINGS = ("abnormal", "acl", "meniscus")
PARTS = {"train": "train", "valid": "val"}  # folder -> split
PROVENANCE = {
    "origin": "MRNet, https://stanfordmlgroup.github.io/competitions/mrnet/",
    "licence": "Stanford University School of Medicine MRNet Dataset Research Use Agreement: not to be passed on",
    "annotation": "human",
    "annotation_protocol": "read by hand from clinical reports, per examination and not per slice",
    "citation": "Bien et al., Deep-learning-assisted diagnosis for knee magnetic resonance imaging, PLOS Med. 15(11), "
    "2018",
}


def open_mrnet(
    path: pathlib.Path, ontology: Ontology, shipped: Ontology, only: str, report: Report, options: Mapping[str, str]
) -> Source:
    """All stacks of the examinations in the tables; train is split train, valid is val. Raises InputError if a table is
    of no use or there is none."""
    settings = read_settings({key: value for key, value in options.items() if key in COMMON})
    every = int(number(options, "every", 4))
    if every < 1:
        raise InputError(f"--option=every={options['every']}: expected 1 or more")
    settings = dataclasses.replace(settings, step_mm=float(every), largest=False)
    name = settings.name or "mrnet"
    cases = [
        _case(path, part, split, plane, exam, labels)
        for part, split in PARTS.items()
        for exam, labels in read_tables(path, part).items()
        for plane in (settings.planes or PLANES)
    ]
    provenance = PROVENANCE | {"slices": f"the middle one and every {every}th from it, with the examination's findings"}
    return open_cases(cases, path, "mrnet", name, settings, ontology, shipped, only, report, provenance, "mrnet")


def read_tables(path: pathlib.Path, part: str) -> dict[str, tuple[Label, ...]]:
    """Examination -> its findings, from PART-abnormal.csv, PART-acl.csv and PART-meniscus.csv (number, 0 or 1; no
    header). No examinations without the tables; InputError for one that is damaged."""
    found: dict[str, list[Label]] = {}
    for finding in FINDINGS:
        table = path / f"{part}-{finding}.csv"
        try:
            with table.open(encoding="utf-8-sig", newline="") as file:
                for line, row in enumerate(csv.reader(file), 1):
                    if not row:
                        continue
                    if len(row) != 2 or row[1].strip() not in ("0", "1"):
                        raise InputError(f"{table}:{line}: expected the number of an examination, a comma, and 0 or 1")
                    labels = found.setdefault(row[0].strip(), [])
                    labels += [(finding, "")] if row[1].strip() == "1" else []
        except FileNotFoundError:
            continue
        except (OSError, ValueError, csv.Error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{table}: not a readable table of UTF-8: repair it") from error
    return {exam: tuple(labels) for exam, labels in found.items()}


def _case(path: pathlib.Path, part: str, split: str, plane: str, exam: str, labels: tuple[Label, ...]) -> Case:
    file = path / part / plane / f"{exam}.npy"
    return Case(
        identifier=f"{part}/{exam}",
        group=f"{part}/{exam}",
        image=functools.partial(open_stack, file, plane),
        layers=(),
        files=(file,),
        modality="mri",
        anatomy="knee",
        variant=plane,
        split=split,
        image_labels=labels,
        planes=(plane,),
    )


def open_stack(path: pathlib.Path, plane: str) -> Volume:
    """A stack [slices, height, width] as a volume whose slices across `plane` are its pictures as they are stored: the
    files state no orientation and no spacing. BadRecord if it cannot be read."""
    if not path.is_file():
        raise BadRecord("missing volume", f"its {plane} .npy file is not there: put it there, or choose other planes")
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise BadRecord("unreadable volume", f"its {plane} .npy file is damaged ({type(error).__name__})") from None
    if stored.ndim != 3 or stored.dtype.kind not in "uif" or 0 in stored.shape:
        raise BadRecord("unreadable volume", f"expected [slices, height, width], got {stored.dtype} {stored.shape}")
    axis = PLANES.index(plane)
    count, height, width = stored.shape
    others = iter((width, height))
    x, y, z = (count if at == axis else next(others) for at in range(3))

    def read(across: int, index: int) -> np.ndarray:
        if across != axis:
            raise InputError(f"only {plane} slices are there")
        return stored[index][::-1, ::-1].T  # what `as_picture` turns back

    return Volume((x, y, z), np.eye(4), read, axis)
