"""DICOM files below a folder: their headers, read without printing anything that is in them."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.privacy import Names
from data.report import Report
from medp_clip_jax.errors import InputError
from medp_clip_jax.readers import dicom_picture
from medp_clip_jax.volumes import optional

SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # Segmentation, Label Map Segmentation
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR
SUFFIXES = (".dcm", ".dicom", ".ima")
# All that is read of a header: the headers of a whole folder are in memory at once.
TAGS = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality BodyPartExamined
    PatientID IssuerOfPatientID PatientName PatientBirthDate InstanceNumber BurnedInAnnotation
    Rows Columns NumberOfFrames ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness
    SpacingBetweenSlices PerFrameFunctionalGroupsSequence SharedFunctionalGroupsSequence
    SegmentSequence ReferencedSeriesSequence
    StructureSetROISequence RTROIObservationsSequence ReferencedFrameOfReferenceSequence
""".split()


@dataclasses.dataclass(frozen=True)
class Slice:
    """One frame of an image with its place in the patient (LPS, mm): `frame` None in single-frame files."""

    path: pathlib.Path
    frame: int | None
    position: tuple[float, float, float]  # of the centre of the first pixel
    along_row: tuple[float, float, float]  # unit vector along growing columns
    along_column: tuple[float, float, float]
    spacing: tuple[float, float]  # between columns, between rows
    rescale: tuple[float, float] | None = None  # slope and intercept where they stand in functional groups

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.along_row, self.along_column)

    @property
    def depth(self) -> float:
        """Place along the normal in mm."""
        return float(np.dot(self.position, self.normal))


@dataclasses.dataclass(frozen=True)
class File:
    """A file's header without pixels; `dataset` is pydicom's."""

    path: pathlib.Path
    dataset: Any

    def text(self, key: str) -> str:
        """A field as text, "" where it is absent or cannot be decoded."""
        try:
            value = self.dataset.get(key)
            return "" if value is None else str(value).strip()
        except Exception:  # pydicom decodes a field when it is asked for, and raises whatever its bytes lead to
            return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps pydicom and highdicom from printing values of fields."""
    pydicom = optional("pydicom", "reading DICOM")
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, (level, propagate) in zip(loggers, before, strict=True):
                logger.setLevel(level)
                logger.propagate = propagate


def scan(folder: pathlib.Path, names: Names, report: Report) -> list[File]:
    """The DICOM files below a folder, each SOP instance once, in the order of the files' names.

    Files without the mark of DICOM are passed over, unless their suffix says that they are. Reports what is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such directory: --input names a folder of DICOM files")
    pydicom = optional("pydicom", folder)
    found: list[File] = []
    known: set[str] = set()
    for number, path in enumerate(_walk(folder), 1):
        if not _is_dicom(path):
            continue
        place = f"{names.source}: file {number} ({names.of(os.path.relpath(path, folder))})"
        try:
            with quiet():
                dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)
                sop_class, uid = str(dataset.get("SOPClassUID") or ""), str(dataset.get("SOPInstanceUID") or "")
        except Exception as error:
            told = f"its header is damaged ({type(error).__name__}): give a complete file"
            report.skip(place, "unreadable DICOM", told)
            continue
        if (
            "MediaStorageSOPClassUID" in dataset.get("file_meta", {})
            and str(dataset.file_meta.MediaStorageSOPClassUID) == DIRECTORY
        ):
            continue
        if not sop_class or not uid:
            report.skip(place, "unreadable DICOM", "its header ends before the SOP class and instance: it is cut off")
        elif uid in known:
            report.skip(place, "duplicate SOP instance", "a file before it has the same SOP Instance UID, and is kept")
        else:
            known.add(uid)
            found.append(File(path, dataset))
    return found


def pixels(path: pathlib.Path, frame: int | None = None, rescale: tuple[float, float] | None = None) -> np.ndarray:
    """Values [rows, columns] of a frame after the modality transform; InputError, without any content, if they cannot
    be had."""
    pydicom = optional("pydicom", "reading DICOM")
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True)
            values = pydicom.pixels.pixel_array(dataset, index=frame)
            if values.ndim == 2 and rescale is not None:
                return values.astype(np.float32) * np.float32(rescale[0]) + np.float32(rescale[1])
            if values.ndim == 2:
                values = pydicom.pixels.apply_modality_lut(values, dataset).astype(np.float32)
    except Exception as error:
        raise InputError(f"{why(error)}: give a complete file that pydicom can decode") from None
    if values.ndim != 2:
        raise InputError(f"a colour image of shape {values.shape} in a series of slices: take it out")
    inverse = str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1" and str(dataset.get("Modality")) != "CT"
    return -values if inverse else values  # low values are bright there; Hounsfield units mean the same either way


def picture(path: pathlib.Path) -> np.ndarray:
    """A single image (of several frames the middle one) as it is shown, uint8 [height, width, 3], by Patient
    Orientation turned so that the patient's right, or the front, is on the left and the head up. InputError, without
    any content, if its pixels cannot be had."""
    pydicom = optional("pydicom", "reading DICOM")
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True)
            shown = dicom_picture(dataset, None, None, "the image")
            directions = [str(value).upper() for value in dataset.get("PatientOrientation") or ()]
    except Exception as error:
        raise InputError(f"{why(error)}: give a complete file that pydicom can decode") from None
    if len(directions) == 2:  # where rows and columns run to
        shown = shown[:, ::-1] if directions[0][:1] in ("R", "A") else shown
        shown = shown[::-1] if directions[1][:1] == "H" else shown
    return shown


def why(error: BaseException) -> str:
    """What kept pixels from being decoded, without a word of pydicom's, which may quote fields."""
    text = str(error).lower()
    if "transfer syntax" in text or "plugin" in text or "decoder" in text or isinstance(error, NotImplementedError):
        return "its transfer syntax is unknown, or needs a decoder that is not installed (pylibjpeg, gdcm)"
    if "less than expected" in text or "length" in text or "bytes" in text or isinstance(error, EOFError):
        return "its pixel data are cut off"
    return f"its pixel data cannot be decoded ({type(error).__name__})"


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """All files below a folder but hidden ones, in the order of their names."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (pathlib.Path(root, name) for name in sorted(names) if not name.startswith("."))


def _is_dicom(path: pathlib.Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
