"""The body of `volume_cases` as DICOM: slices by pydicom, DICOM SEG by highdicom, RTSTRUCT by pydicom."""

import pathlib

import cv2
import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from volume_cases import body, nifti

# Stored axes: where the slices, the rows and the columns run to.
AXIAL, PRONE, CORONAL, SAGITTAL = "SPL", "SAR", "PIL", "RIP"
SECRETS = {
    "PatientName": "Quarzberg^Hildegunde",
    "PatientID": "ZX-4711-0815",
    "PatientBirthDate": "19311224",
    "InstitutionName": "Klinikum Nirgendwo",
    "ReferringPhysicianName": "Doktorovic^Bojan",
    "StudyDescription": "Befund Geheimnis",
    "SeriesDescription": "Serie Verschwiegen",
    "AccessionNumber": "ACC998877",
    "StationName": "STATIONXY",
}
FILE_NAME = "Quarzberg_IMG"
CT_STORAGE, MR_STORAGE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
RT_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"


def save(dataset: Dataset, path: pathlib.Path) -> pathlib.Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def common(modality: str, sop_class: str, study: str) -> Dataset:
    dataset = Dataset()
    for key, value in SECRETS.items():
        setattr(dataset, key, value)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.Modality = study, modality
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime, dataset.PatientSex = "1", "20200102", "101112", "O"
    dataset.Manufacturer, dataset.SeriesNumber, dataset.AccessionNumber = "Maker", 1, SECRETS["AccessionNumber"]
    return dataset


def slices(orientation: str = AXIAL, modality: str = "CT", tilt: float = 0.0, values=None) -> list[Dataset]:
    """The body, or other values on its grid, as slices in an orientation; Hounsfield units as stored value - 1024."""
    image = nifti(body()[0] if values is None else values, orientation, tilt)
    values, grid = np.asarray(image.dataobj), np.diag([-1.0, -1, 1, 1]) @ image.affine
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    found = []
    for k, plane in enumerate(values):
        dataset = common(modality, CT_STORAGE if modality == "CT" else MR_STORAGE, study)
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, frame
        dataset.InstanceNumber, dataset.BodyPartExamined = len(values) - k, "ABDOMEN"
        dataset.ImageType, dataset.PositionReferenceIndicator = ["ORIGINAL", "PRIMARY", "AXIAL"], ""
        dataset.Rows, dataset.Columns = plane.shape
        steps = np.linalg.norm(grid[:3, :3], axis=0)
        dataset.PixelSpacing = [float(steps[1]), float(steps[2])]
        dataset.SliceThickness = float(steps[0])
        row, column = grid[:3, 2] / steps[2], grid[:3, 1] / steps[1]
        dataset.ImageOrientationPatient = [f"{value:.9g}" for value in (*row, *column)]
        dataset.ImagePositionPatient = [f"{value:.9g}" for value in (grid @ [k, 0, 0, 1])[:3]]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.PixelData = (plane + 1024).astype("<u2").tobytes()
        found.append(dataset)
    return found


def write_series(root: pathlib.Path, datasets: list[Dataset]) -> list[pathlib.Path]:
    return [save(one, root / f"Quarzberg/{FILE_NAME}{k:03d}.dcm") for k, one in enumerate(datasets)]


def stored_labels(orientation: str, tilt: float = 0.0) -> np.ndarray:
    """Labels of the body [slice, row, column]."""
    return np.asarray(nifti(body()[1], orientation, tilt).dataobj)


def seg(datasets: list[Dataset], labels: np.ndarray, kind: str = "BINARY", names=("Left kidney", "Liver")) -> Dataset:
    """A DICOM SEG of the labels 1 and 2, made by highdicom."""
    types = (codes.SCT.Kidney, codes.SCT.Liver)
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number + 1,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=types[number],
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names)
    ]
    masks = np.stack([labels == 1, labels == 2], axis=-1)
    pixels = (
        labels.astype(np.uint8)
        if kind == "LABELMAP"
        else masks.astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    )
    made = highdicom.seg.Segmentation(
        source_images=datasets, pixel_array=pixels, segmentation_type=kind, segment_descriptions=descriptions,
        series_instance_uid=generate_uid(), series_number=9, sop_instance_uid=generate_uid(), instance_number=1,
        manufacturer="Maker", manufacturer_model_name="Model", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    return made


def contours(datasets: list[Dataset], labels: np.ndarray, around: bool, names=("Left kidney", "Liver")) -> Dataset:
    """An RTSTRUCT of the labels 1 and 2: contours around the pixels, or through the centres of the border pixels."""
    dataset = common("RTSTRUCT", RT_STORAGE, datasets[0].StudyInstanceUID)
    dataset.SeriesInstanceUID, dataset.StructureSetLabel = generate_uid(), "Geheimplan"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence, study.ReferencedSOPInstanceUID = [series], datasets[0].StudyInstanceUID
    frame.RTReferencedStudySequence, frame.FrameOfReferenceUID = [study], datasets[0].FrameOfReferenceUID
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, name in enumerate(names, 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, datasets[0].FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for one, plane in zip(datasets, labels, strict=True):
            mask = (plane == number).astype(np.uint8)
            scale = 8 if around else 1
            big = np.kron(mask, np.ones((scale, scale), np.uint8))
            for points in cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]:
                item = Dataset()
                flat = (points.reshape(-1, 2) + 0.5) / scale - 0.5
                if len(flat) < 3:
                    continue
                item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(flat)
                item.ContourData = [f"{value:.6g}" for point in flat for value in in_space(one, point)]
                drawn.ContourSequence.append(item)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    return dataset


def in_space(dataset: Dataset, point) -> np.ndarray:
    """Where a point (column, row) of a slice lies, LPS in mm (PS3.3, C.7.6.2.1.1)."""
    cosines = np.array([float(value) for value in dataset.ImageOrientationPatient])
    origin = np.array([float(value) for value in dataset.ImagePositionPatient])
    rows, columns = (float(value) for value in dataset.PixelSpacing)
    return origin + cosines[:3] * columns * point[0] + cosines[3:] * rows * point[1]


def read(path) -> Dataset:
    return pydicom.dcmread(path)
