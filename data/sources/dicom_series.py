"""Series of DICOM slices as volumes: sorted by place, checked for gaps, oriented by the patient."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data.sources.dicom_files import File, Slice, pixels
from data.sources.regions import BadRecord
from medp_clip_jax.errors import InputError
from medp_clip_jax.volumes import PLANES, Volume, from_stored

UNEVEN = 0.1  # of the distance between slices, that it may vary by
GAP = 1.5  # distances between slices from which on one is missing
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


@dataclasses.dataclass(frozen=True)
class Stack:
    """Slices of one volume from one end to the other, all of one size; `even` says that none is missing or shifted."""

    slices: tuple[Slice, ...]
    rows: int
    columns: int
    distance: float  # mm between slices
    even: bool
    problem: str = ""  # why it is not even

    @property
    def affine(self) -> np.ndarray:
        """Indices [slice, row, column] to millimetres RAS+."""
        first = self.slices[0]
        grid = np.eye(4)
        grid[:3, 0] = first.normal * self.distance
        grid[:3, 1] = np.asarray(first.along_column) * first.spacing[1]
        grid[:3, 2] = np.asarray(first.along_row) * first.spacing[0]
        grid[:3, 3] = first.position
        return LPS_TO_RAS @ grid

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.slices), self.rows, self.columns

    def nearest(self, depth: float, tolerance: float = 0.5) -> int | None:
        """Index of the slice at a place along the normal, None if none is within `tolerance` distances of it."""
        depths = np.array([one.depth for one in self.slices])
        index = int(np.argmin(np.abs(depths - depth)))
        return index if abs(depths[index] - depth) <= tolerance * self.distance + 1e-3 else None

    def plane(self) -> str:
        """The plane that the slices lie in."""
        return PLANES[int(np.argmax(np.abs(self.slices[0].normal)))]


def open_volume(stack: Stack) -> Volume:
    """The volume of a stack. Slices are read one at a time; other planes read the whole stack once."""

    def read(axis: int, index: int) -> np.ndarray:
        if axis == 0:
            one = stack.slices[index]
            return _checked(pixels(one.path, one.frame, one.rescale), stack)
        return np.take(_whole(stack), index, axis)

    volume = from_stored(stack.shape, stack.affine, read, "the series")
    return dataclasses.replace(volume, range_axis=PLANES.index(stack.plane()))


@functools.lru_cache(maxsize=1)
def _whole(stack: Stack) -> np.ndarray:
    return np.stack([_checked(pixels(one.path, one.frame, one.rescale), stack) for one in stack.slices])


def _checked(values: np.ndarray, stack: Stack) -> np.ndarray:
    if values.shape != (stack.rows, stack.columns):
        raise InputError(f"{values.shape} pixels where its header says {(stack.rows, stack.columns)}")
    return values


def slices_of(file: File) -> list[Slice]:
    """The slices of a file, one per frame; none if it does not say where they lie. BadRecord if what it says cannot
    be."""
    dataset = file.dataset
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames == 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
            if "ImagePositionPatient" not in dataset or "ImageOrientationPatient" not in dataset:
                return []
            found = [_slice(file.path, None, dataset, dataset, dataset, None)]
        elif "PerFrameFunctionalGroupsSequence" in dataset:
            found = list(_framed(file.path, dataset, frames))
        else:
            return []
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        told = f"position, orientation or spacing cannot be read ({type(error).__name__}): correct them"
        raise BadRecord("no usable geometry", told) from None
    for one in found:
        lengths = np.linalg.norm([one.along_row, one.along_column], axis=1)
        square = abs(np.dot(one.along_row, one.along_column)) < 1e-2 and np.allclose(lengths, 1, atol=1e-2)
        if not square or min(one.spacing) <= 0 or not np.isfinite(one.position).all():
            raise BadRecord("no usable geometry", "its row and column directions are no right angle, or spacing is 0")
    return found


def _slice(path: pathlib.Path, frame, position: Any, orientation: Any, measures: Any, rescale) -> Slice:
    cosines = [float(value) for value in orientation.ImageOrientationPatient]
    x, y, z = (float(value) for value in position.ImagePositionPatient)
    rows, columns = (float(value) for value in measures.PixelSpacing)
    a, b, c, d, e, f = cosines
    return Slice(path, frame, (x, y, z), (a, b, c), (d, e, f), (columns, rows), rescale)


def _framed(path: pathlib.Path, dataset: Any, frames: int) -> Iterator[Slice]:
    """Slices of an enhanced multi-frame image; groups that all frames share stand in the shared sequence."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]

    def group(own: Any, name: str) -> Any:
        items = own.get(name) or shared.get(name)
        return items[0] if items else None

    for frame, own in enumerate(dataset.PerFrameFunctionalGroupsSequence[:frames]):
        position, orientation = group(own, "PlanePositionSequence"), group(own, "PlaneOrientationSequence")
        measures, scale = group(own, "PixelMeasuresSequence"), group(own, "PixelValueTransformationSequence")
        if position is None or orientation is None or measures is None:
            return
        rescale = (float(scale.RescaleSlope), float(scale.RescaleIntercept)) if scale is not None else (1.0, 0.0)
        yield _slice(path, frame, position, orientation, measures, rescale)


def stacks(found: Sequence[tuple[File, Slice]]) -> list[Stack]:
    """The volumes of a series: slices of one size, orientation and spacing; several at one place (phases, b-values) go
    to volumes of their own, in the order in which they were given."""
    grids: dict[tuple, list[tuple[File, Slice]]] = collections.defaultdict(list)
    for file, one in found:
        size = int(file.dataset.get("Rows") or 0), int(file.dataset.get("Columns") or 0)
        turned = tuple(np.round([*one.along_row, *one.along_column], 2) + 0.0)
        grids[(*size, *turned, *np.round(one.spacing, 3))].append((file, one))
    made = []
    for (rows, columns, *_), members in sorted(grids.items(), key=lambda item: item[0]):
        places: dict[float, list[Slice]] = collections.defaultdict(list)
        for _, one in members:
            places[round(one.depth, 2)].append(one)
        for turn in range(max(map(len, places.values()))):
            chosen = [places[depth][turn] for depth in sorted(places) if len(places[depth]) > turn]
            thickness = _thickness(members[0][0])
            made.append(_stack(chosen, rows, columns, thickness))
    return made


def _thickness(file: File) -> float:
    for key in ("SpacingBetweenSlices", "SliceThickness"):
        text = file.text(key)
        try:
            if float(text) > 0:
                return float(text)
        except ValueError:
            continue
    return 1.0


def _stack(chosen: Sequence[Slice], rows: int, columns: int, thickness: float) -> Stack:
    if len(chosen) == 1:
        return Stack(tuple(chosen), rows, columns, thickness, False, "a single slice")
    steps = np.diff([one.depth for one in chosen])
    distance = float(np.median(steps))
    gaps = int(sum(round(step / distance) - 1 for step in steps if step > GAP * distance))
    positions = np.array([one.position for one in chosen])
    across = positions - np.outer(positions @ chosen[0].normal, chosen[0].normal)
    shift = float(np.abs(across - across[0]).max())
    problem = ""
    if gaps:
        problem = f"{gaps} slices are missing in {int((steps > GAP * distance).sum())} gaps"
    elif (np.abs(steps - distance) > UNEVEN * distance + 0.01).any():
        problem = f"distances between slices vary from {steps.min():.2f} to {steps.max():.2f} mm"
    elif shift > min(chosen[0].spacing):
        problem = f"slices are shifted against each other by up to {shift:.1f} mm (a tilted gantry?)"
    return Stack(tuple(chosen), rows, columns, distance, not problem, problem)
