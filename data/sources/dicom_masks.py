"""DICOM SEG and RTSTRUCT objects as masks on the slices that they belong to."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from data.sources import polygons
from data.sources.dicom_files import File, quiet, why
from data.sources.dicom_series import Stack
from data.sources.regions import BadRecord
from medp_clip_jax.volumes import Volume, from_stored, optional

HALF = 0.5  # of the largest value of a fractional segmentation: what is at least as likely belongs to the segment
OFF = 0.25  # px that the pixels of a segmentation may lie beside those of the image

# From file, number of a structure and stack: masks [rows, columns] by slice, and how many frames or contours lie on no
# slice and how many on one.
MasksOf = Callable[[pathlib.Path, int, Stack], tuple[dict[int, np.ndarray], int, int]]


@dataclasses.dataclass(frozen=True)
class Structure:
    """One segment or region of interest: its number and what the file calls it, most telling first."""

    number: int
    names: tuple[str, ...]


def as_volume(masks_of: MasksOf, path: pathlib.Path, number: int, stack: Stack, told: list[BadRecord]) -> Volume:
    """The masks of a structure as a volume on the grid of the images; slices without a mask are empty. BadRecord if
    there is none; what is left out is put into `told`."""
    drawn, off, on = masks_of(path, number, stack)
    told.clear()
    if off:
        detail = f"{off} of {off + on} frames or contours lie on no slice: give those of these images, and all images"
        bad = BadRecord("annotation off the slices", detail)
        if not on:
            raise bad
        told.append(bad)

    def read(axis: int, index: int) -> np.ndarray:
        if axis == 0:
            return drawn.get(index, np.zeros((stack.rows, stack.columns), np.uint8))
        across = np.zeros((len(stack.slices), stack.columns if axis == 1 else stack.rows), np.uint8)
        for number, mask in drawn.items():
            across[number] = np.take(mask, index, axis - 1)
        return across

    return from_stored(stack.shape, stack.affine, read, "the annotation")


def segments(file: File) -> list[Structure]:
    """The segments of a SEG object; the side that stands apart from the type is put before it."""
    found = []
    for item in file.dataset.get("SegmentSequence") or ():
        kind = (item.get("SegmentedPropertyTypeCodeSequence") or [None])[0]
        meaning = str(kind.get("CodeMeaning") or "").strip() if kind is not None else ""
        sides = (kind.get("SegmentedPropertyTypeModifierCodeSequence") or ()) if kind is not None else ()
        side = next((str(one.get("CodeMeaning") or "").strip() for one in sides), "")
        if side and meaning and side.lower() not in meaning.lower():
            meaning = f"{side} {meaning}"
        names = (str(item.get("SegmentLabel") or "").strip(), meaning)
        found.append(Structure(int(item.SegmentNumber), tuple(name for name in names if name)))
    return found


def regions_of_interest(file: File) -> list[Structure]:
    """The regions of interest of an RTSTRUCT object."""
    observed = {
        int(item.ReferencedROINumber): str(item.get("ROIObservationLabel") or "").strip()
        for item in file.dataset.get("RTROIObservationsSequence") or ()
        if item.get("ReferencedROINumber") is not None
    }
    found = []
    for item in file.dataset.get("StructureSetROISequence") or ():
        number = int(item.ROINumber)
        names = (str(item.get("ROIName") or "").strip(), observed.get(number, ""))
        found.append(Structure(number, tuple(name for name in names if name)))
    return found


def series_of(file: File) -> set[str]:
    """Series Instance UIDs of the images that an annotation refers to."""
    found = {str(item.get("SeriesInstanceUID") or "") for item in file.dataset.get("ReferencedSeriesSequence") or ()}
    for frame in file.dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                found.add(str(series.get("SeriesInstanceUID") or ""))
    return found - {""}


def segment_masks(path: pathlib.Path, number: int, stack: Stack) -> tuple[dict[int, np.ndarray], int, int]:
    """The masks of a segment on the slices of a stack, see `MasksOf`. BadRecord if the file cannot be read, has no
    frame of it, or its pixels are not those of the images."""
    seg, frames = _opened(path)
    masks: dict[int, np.ndarray] = {}
    off = on = 0
    for index, segment, geometry in frames:
        if segment not in (number, None):
            continue
        target = stack.nearest(_depth(geometry, stack))
        if target is None:
            off += 1
            continue
        on += 1
        try:
            with quiet():
                values = np.asarray(seg.get_stored_frame(index + 1))
        except Exception as error:
            raise BadRecord("unreadable annotation", f"{why(error)}: give a complete file") from None
        if segment is None:
            mask = values == number  # a label map
        elif str(seg.get("SegmentationType")) == "FRACTIONAL":
            mask = values >= HALF * float(seg.get("MaximumFractionalValue") or 255)
        else:
            mask = values != 0
        if mask.any():
            placed = _placed(mask, geometry, stack, target)
            masks[target] = np.maximum(masks[target], placed) if target in masks else placed
    if not (masks or off):
        raise BadRecord("empty mask", "no frame shows the segment: correct or remove it")
    return masks, off, on


@functools.lru_cache(maxsize=1)  # all segments of a file are asked for in turn
def _opened(path: pathlib.Path) -> tuple[Any, list[tuple[int, int | None, tuple[np.ndarray, ...]]]]:
    """highdicom's object, and per frame its segment (None in a label map) and geometry: position, directions along row
    and column times spacing."""
    highdicom = optional("highdicom", "reading DICOM SEG", "corpora")
    try:
        with quiet():
            seg = highdicom.seg.segread(path)
            shared = (seg.get("SharedFunctionalGroupsSequence") or [{}])[0]
            labelmap = str(seg.get("SegmentationType")) == "LABELMAP"
            frames = []
            for index, own in enumerate(seg.get("PerFrameFunctionalGroupsSequence") or ()):
                named = own.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
                segment = None if labelmap else int(named[0].ReferencedSegmentNumber)
                place = (own.get("PlanePositionSequence") or shared.get("PlanePositionSequence"))[0]
                turn = (own.get("PlaneOrientationSequence") or shared.get("PlaneOrientationSequence"))[0]
                sizes = (own.get("PixelMeasuresSequence") or shared.get("PixelMeasuresSequence"))[0].PixelSpacing
                cosines = np.array([float(value) for value in turn.ImageOrientationPatient])
                position = np.array([float(value) for value in place.ImagePositionPatient])
                frames.append(
                    (index, segment, (position, cosines[:3] * float(sizes[1]), cosines[3:] * float(sizes[0])))
                )
    except Exception as error:
        told = f"no usable DICOM SEG ({type(error).__name__}): give a complete file"
        raise BadRecord("unreadable annotation", told) from None
    return seg, frames


def _depth(geometry: tuple[np.ndarray, ...], stack: Stack) -> float:
    return float(np.dot(geometry[0], stack.slices[0].normal))


def _placed(mask: np.ndarray, geometry: tuple[np.ndarray, ...], stack: Stack, target: int) -> np.ndarray:
    """A frame's mask in the pixels of a slice, turned and moved by whole pixels. BadRecord if that does not fit."""
    one = stack.slices[target]
    position, along_row, along_column = geometry
    to_pixels = np.array([np.asarray(one.along_row) / one.spacing[0], np.asarray(one.along_column) / one.spacing[1]])
    start = to_pixels @ (position - np.asarray(one.position))  # column, row of the frame's first pixel
    step_x, step_y = to_pixels @ along_row, to_pixels @ along_column  # per column and row of the frame
    rows, columns = mask.shape
    turn = np.rint([step_x, step_y])
    drift = np.abs(np.array([step_x, step_y]) - turn) * [[columns], [rows]]
    if (
        (np.abs(turn).sum(axis=1) != 1).any()
        or abs(np.linalg.det(turn)) != 1
        or drift.max() > OFF
        or (np.abs(start - np.rint(start)).max() > OFF)
    ):
        raise BadRecord("mask of another grid", "its pixels are not those of the images: resample it to their grid")
    y, x = np.nonzero(mask)
    at_x = (np.rint(start[0]) + x * turn[0, 0] + y * turn[1, 0]).astype(int)
    at_y = (np.rint(start[1]) + x * turn[0, 1] + y * turn[1, 1]).astype(int)
    inside = (at_x >= 0) & (at_x < stack.columns) & (at_y >= 0) & (at_y < stack.rows)
    placed = np.zeros((stack.rows, stack.columns), np.uint8)
    placed[at_y[inside], at_x[inside]] = 1
    return placed


def contour_masks(path: pathlib.Path, number: int, stack: Stack) -> tuple[dict[int, np.ndarray], int, int]:
    """The masks of a region of interest on the slices of a stack, see `MasksOf`: contours are filled by the centres of
    pixels, those of one slice together. BadRecord if the file cannot be read, or has no contour of it."""
    pydicom = optional("pydicom", "reading DICOM RTSTRUCT")
    lines: dict[int, list[np.ndarray]] = {}
    seen = off = 0
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True)
            for roi in dataset.get("ROIContourSequence") or ():
                if int(roi.ReferencedROINumber) != number:
                    continue
                for contour in roi.get("ContourSequence") or ():
                    points = np.asarray(_numbers(contour.get("ContourData")), np.float64)
                    closed = str(contour.get("ContourGeometricType") or "").startswith("CLOSED_PLANAR")
                    if not closed or points.size < 9 or points.size % 3:
                        continue  # points and open lines enclose nothing
                    seen += 1
                    index, flat = _on_slice(points.reshape(-1, 3), stack)
                    if index is None:
                        off += 1
                    else:
                        lines.setdefault(index, []).append(flat)
    except Exception as error:
        told = f"no usable contours ({type(error).__name__}): give a complete file"
        raise BadRecord("unreadable annotation", told) from None
    if not seen:
        raise BadRecord("empty mask", "no closed contour: correct or remove the region")
    drawn = {index: polygons.fill(flat, stack.rows, stack.columns) for index, flat in sorted(lines.items())}
    return {index: mask.view(np.uint8) for index, mask in drawn.items()}, off, seen - off


def _numbers(value: Any) -> Any:
    """Contour data as numbers: more than 64 kB of them stand in explicit VR files as bytes of unknown kind (UN)."""
    if isinstance(value, bytes):
        return value.decode("ascii").strip("\0 ").split("\\")
    return () if value is None else value


def _on_slice(points: np.ndarray, stack: Stack) -> tuple[int | None, np.ndarray]:
    """The slice that a contour [points, xyz] lies on, None if on none, and its points in pixels (x, y)."""
    depths = points @ stack.slices[0].normal
    index = stack.nearest(float(np.median(depths)))
    if index is None or np.ptp(depths) > stack.distance:
        return None, points
    one = stack.slices[index]
    moved = points - np.asarray(one.position)
    x = moved @ np.asarray(one.along_row) / one.spacing[0]
    y = moved @ np.asarray(one.along_column) / one.spacing[1]
    return index, np.stack([x, y], axis=1)
