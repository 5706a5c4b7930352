"""A body as a volume, with a marker on its left, written in every orientation and format by the formats' libraries."""

import itertools

import nibabel
import numpy as np

from data.report import Report
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.records import decode_image, decode_mask

ONTOLOGY = Ontology(
    [
        Node("organ", "organ"),
        Node("kidney", "kidney", parents=("organ",)),
        Node("kidney_left", "left kidney", parents=("kidney",), laterality="left"),
        Node("kidney_right", "right kidney", parents=("kidney",), laterality="right"),
        Node("liver", "liver", parents=("organ",)),
        Node("brain", "brain", parents=("organ",)),
        Node("stroke_lesion", "stroke lesion", kind="finding"),
        Node("acl_tear", "ACL tear", synonyms=("acl",), kind="finding"),
        Node("meniscus_tear", "meniscus tear", synonyms=("meniscus",), kind="finding"),
        Node("knee_abnormality", "knee abnormality", synonyms=("abnormal",), kind="finding"),
    ],
    {"isles": {"lesion": "stroke_lesion"}},
)
IDS = {"kidney_left": 1, "liver": 2}  # node -> value in `body`

SHAPE = (20, 26, 12)  # voxels to the right, the front, the head
SPACING = (1.5, 1.0, 3.0)
ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "ASL", "SRP")
LABELS = {1: "left kidney", 2: "liver"}
VALUES = {1: 200.0, 2: 120.0}  # brightness of the labels in the image


def body() -> tuple[np.ndarray, np.ndarray]:
    """Image (HU) and labels [right, front, head]: the left kidney is left, at the back and low; the liver is right."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 3:8, 2:5] = 1
    labels[11:18, 10:20, 5:11] = 2
    labels[11, 10, 5:11] = 0  # a notch, so that no flip maps the liver onto itself
    image = np.full(SHAPE, -100.0, np.float32) + np.arange(SHAPE[0], dtype=np.float32)[:, None, None]
    image[0, 0, 0] = -1000
    for value, brightness in VALUES.items():
        image[labels == value] = brightness
    return image, labels


def affine(tilt: float = 0.0) -> np.ndarray:
    """The grid of `body`, RAS+, turned by `tilt` degrees about two axes."""
    turn = np.eye(3)
    for axis in (0, 2):
        a, b = [other for other in range(3) if other != axis]
        one = np.eye(3)
        angle = np.radians(tilt)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    grid = np.eye(4)
    grid[:3, :3] = turn @ np.diag(SPACING)
    grid[:3, 3] = (-15, -40, 7)
    return grid


def nifti(values: np.ndarray, orientation: str = "RAS", tilt: float = 0.0) -> nibabel.Nifti1Image:
    """`values` [right, front, head] stored in an orientation."""
    image = nibabel.Nifti1Image(values, affine(tilt))
    wanted = nibabel.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(np.eye(4)), wanted))


def pictures(plane: str) -> dict[int, np.ndarray]:
    """Index -> labels of `body` as a reader sees the slice, written out by hand and not by the code under test."""
    _, labels = body()
    if plane == "axial":  # columns from right to left of the patient, rows from front to back
        return {
            k: np.array([[labels[x, y, k] for x in range(19, -1, -1)] for y in range(25, -1, -1)]) for k in range(12)
        }
    if plane == "coronal":  # rows from head to feet
        return {
            j: np.array([[labels[x, j, z] for x in range(19, -1, -1)] for z in range(11, -1, -1)]) for j in range(26)
        }
    return {i: np.array([[labels[i, y, z] for y in range(25, -1, -1)] for z in range(11, -1, -1)]) for i in range(20)}


def stream(source) -> list:
    """All examples of a source, split by split."""
    return list(itertools.chain.from_iterable(stream() for stream in source.splits.values()))


def open_all(open_source, path, *, only="train", strict=False, **options):
    """The source, by an adapter's function, with these options."""
    return open_source(path, ONTOLOGY, ONTOLOGY, only, Report(strict), options)


def check_examples(examples, plane: str, value_of=IDS, expected=None) -> int:
    """Every example shows the slice its id names, and each region is the label's mask there; returns the regions."""
    expected = pictures(plane) if expected is None else expected
    regions = 0
    for example in examples:
        labels = expected[int(example.image_id.split(plane + "_")[1][:4])]
        pixels = decode_image(example.image)[..., 0]
        assert pixels.shape == labels.shape == (example.height, example.width)
        assert {region.label for region in example.regions} == {
            label for label, value in value_of.items() if (labels == value).any()
        }
        for region in example.regions:
            mask = decode_mask(region.rle, example.height, example.width)
            np.testing.assert_array_equal(mask, labels == value_of[region.label])
            rows, columns = np.nonzero(labels == value_of[region.label])
            assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert region.area == mask.sum()
            assert pixels[mask].min() > pixels[labels == 0].max()  # image and labels lie on each other
            regions += 1
    return regions
