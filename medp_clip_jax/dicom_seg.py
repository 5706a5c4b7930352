"""Predicted masks as DICOM SEG, by default without anything that tells whose image it was."""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

import medp_clip_jax
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology_nodes import Node
from medp_clip_jax.volumes import one_line, optional

# All that a SEG may take from an image whose patient it must not name: what it is, and where its pixels lie.
IMPERSONAL = (
    *("SOPClassUID", "Modality", "ImageType", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "Laterality", "BodyPartExamined"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),  # of which the geometry is read
)
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
NEEDED = (  # by every SEG, if empty
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
CATEGORY = ("91723000", "SCT", "Anatomical structure")
FINDING = ("49755003", "SCT", "Morphologically abnormal structure")


def write_dicom_seg(
    output: pathlib.Path,
    source: pathlib.Path,
    masks: Sequence[np.ndarray],
    nodes: Sequence[Node],
    index: int | None = None,
    identified: bool = False,
) -> None:
    """Writes a DICOM SEG of masks bool [height, width] of a DICOM image, one segment per mask, named by its node.

    `index` is the frame that was segmented (the middle one). The object has new UIDs and none of the patient's fields,
    but the geometry, so that a viewer can lay it over the image; `identified` keeps both, for an archive that has the
    image. Raises InputError where the source is no DICOM image, all masks are empty, or the file cannot be written.
    """
    pydicom, highdicom = optional("pydicom", source), optional("highdicom", source, "corpora")
    try:
        image = pydicom.dcmread(source)
    except Exception as error:
        raise InputError(f"{source}: not a DICOM file; a DICOM SEG belongs to one, leave --dicom_seg out") from error
    filled = [number for number, mask in enumerate(masks) if mask.any()]
    if not filled:
        raise InputError(f"{output}: every mask is empty, and a DICOM SEG needs one that is not; prompt elsewhere")
    image = image if identified else _anonymous(image, pydicom)
    for name in NEEDED:
        setattr(image, name, image.get(name, ""))
    pixels = np.stack([masks[number] for number in filled], -1).astype(np.uint8)
    frames = int(image.get("NumberOfFrames") or 1)
    if frames > 1:
        every = np.zeros((frames, *pixels.shape), np.uint8)
        every[frames // 2 if index is None else index] = pixels
        pixels = every
    part = output.with_name(f"{output.name}.part")  # so that nothing half-written stays under the name
    try:
        made = highdicom.seg.Segmentation(
            source_images=[image],
            pixel_array=pixels if frames > 1 else pixels[None],
            segmentation_type="BINARY",
            segment_descriptions=[
                _described(highdicom, place, nodes[number]) for place, number in enumerate(filled, 1)
            ],
            series_instance_uid=pydicom.uid.generate_uid(),
            series_number=1,
            sop_instance_uid=pydicom.uid.generate_uid(),
            instance_number=1,
            manufacturer="MedP-CLIP",
            manufacturer_model_name="medp-clip-jax",
            software_versions=medp_clip_jax.__version__,
            device_serial_number="0",
            content_description="Research use only; not a medical device",
        )
        made.save_as(part)
        part.replace(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); name a file in a writable folder") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{source}: no DICOM SEG can refer to this image ({one_line(error)[:160]}); use the PNG masks"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _anonymous(image: Any, pydicom: Any) -> Any:
    """The impersonal fields of an image, with new UIDs."""
    bare = pydicom.Dataset()
    bare.file_meta = image.file_meta
    for name in IMPERSONAL:
        if name in image:
            setattr(bare, name, image[name].value)
    for name in UIDS:
        if name in image:
            setattr(bare, name, pydicom.uid.generate_uid())
    return bare


def _described(highdicom: Any, number: int, node: Node) -> Any:
    category = FINDING if node.kind == "finding" else CATEGORY
    code = (node.code("SCT"), "SCT", node.name[:64]) if node.code("SCT") else category
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=node.name[:64],
        segmented_property_category=highdicom.sr.CodedConcept(*category),
        segmented_property_type=highdicom.sr.CodedConcept(*code),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="MedP-CLIP",
            version=medp_clip_jax.__version__,
            family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        ),
    )
