"""The labelled slices of one volume: which are taken, and the regions in each."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from data.sources.labels import Label
from data.sources.regions import BadRecord, tight_box
from medp_clip_jax.records import Region, encode_mask
from medp_clip_jax.volumes import PLANES, Volume, as_picture

OFF_GRID = 0.5  # voxels that the grids of an image and its labels may differ by anywhere
SKEW = 0.02  # cosine between the axes of a grid: 0 if they are at right angles; 0.02 is about one degree
THICK = 1.2  # voxels so much longer along one axis are slices
OBLIQUE = 30.0  # degrees from the patient's axes from which on a slice is called oblique


@dataclasses.dataclass(frozen=True)
class Layer:
    """Labels of one volume: `open` gives whole numbers, `labels` says what each stands for (0 is background).

    With `any_value` everything but 0 is the one label. `title` may be printed.
    """

    open: Callable[[], Volume]
    labels: Mapping[int, Label]
    any_value: bool = False
    title: str = "labels"
    told: list[BadRecord] = dataclasses.field(default_factory=list)  # what `open` left out


def check_grid(volume: Volume) -> None:
    """BadRecord if the axes of a volume are not at right angles: its slices would show sheared anatomy."""
    axes = volume.affine[:3, :3] / np.maximum(volume.spacing, 1e-12)
    skew = np.abs(axes.T @ axes - np.eye(3)).max()
    if skew > SKEW:
        raise BadRecord(
            "sheared grid",
            f"its axes stand at {np.degrees(np.arccos(min(skew, 1))):.1f} degrees to each other, not 90 (a tilted "
            "gantry?): resample it to a rectangular grid",
        )


def planes_of(volume: Volume, stated: Sequence[str]) -> Sequence[str]:
    """The planes stated, else the one across the thickest voxels; axial if they are about cubes."""
    thickest = int(np.argmax(volume.spacing))
    isotropic = max(volume.spacing) < THICK * min(volume.spacing)
    return stated or ("axial" if isotropic else PLANES[thickest],)


def view_of(volume: Volume, plane: str) -> str:
    """The view that a slice is said to show."""
    return f"oblique {plane}" if volume.tilt > OBLIQUE else plane


def check_aligned(volume: Volume, layer: Volume) -> None:
    """BadRecord if the grid of a layer is not that of the image."""
    if layer.shape != volume.shape:
        detail = f"{_sized(layer.shape)} voxels, the image {_sized(volume.shape)}: give labels on the image's grid"
        raise BadRecord("mask of another size", detail)
    ends = np.subtract(volume.shape, 1)
    corners = np.array([[*(ends * at), 1] for at in np.ndindex(2, 2, 2)])
    seen = (np.linalg.inv(volume.affine) @ layer.affine @ corners.T).T
    off = float(np.abs(seen - corners).max())
    if off > OFF_GRID:
        detail = f"labels and image lie {off:.1f} voxels apart: give both in one space, or resample the labels"
        raise BadRecord("mask of another grid", detail)


def chosen_slices(
    counts: Mapping[Label, np.ndarray], size: int, spacing: float, step_mm: float, largest: bool, empty: bool
) -> list[int]:
    """Indices of the slices to take: the middle one and every K-th from it, K = step_mm / spacing but at least 1, where
    they have a region (or `empty`); and with `largest` the first slice in which each label has most voxels.

    `counts` [size] are voxels per slice of each label.
    """
    step = max(1, round(step_mm / spacing)) if spacing > 0 else 1
    labelled = np.zeros(size, bool)
    for count in counts.values():
        labelled |= count > 0
    taken = {index for index in range(size // 2 % step, size, step) if empty or labelled[index]}
    if largest:
        taken |= {int(np.argmax(count)) for count in counts.values() if count.any()}
    return sorted(taken)


class Labelled:
    """The layers of a volume along one plane. Those of one file per structure are read once, one at a time; a single
    layer is read twice, for the choice of slices and for their regions."""

    def __init__(self, volume: Volume, layers: Sequence[Layer], plane: str, ids: Mapping[Label, str]):
        self.volume, self.plane, self.axis, self.ids = volume, plane, PLANES.index(plane), ids
        self.counts: dict[Label, np.ndarray] = {}  # voxels per slice
        self.problems: list[tuple[str, BadRecord]] = []  # title of the layer and what is wrong with it
        self._regions: dict[int, list[Region]] = {}
        self._single: Callable[[int], np.ndarray] | None = None
        self._labels: Mapping[int, Label] = {}
        self._seen = False  # any labelled voxel
        for layer in layers:
            self._labels = layer.labels
            try:
                read = self._opened(layer)
                self._scan(layer, read, keep=len(layers) > 1)
                self._single = read if len(layers) == 1 else None
            except BadRecord as bad:
                self.problems.append((layer.title, bad))
        if layers and not self._seen and not self.problems:
            title = layers[0].title if len(layers) == 1 else f"{len(layers)} layers"
            self.problems.append((title, BadRecord("empty mask", "no voxel is labelled: correct or remove it")))

    def regions(self, index: int) -> list[Region]:
        """The regions of a slice in the order of layers and values."""
        if self._single is not None:
            return list(self._made(self._single(index), self._labels))
        return self._regions.get(index, [])

    def _opened(self, layer: Layer) -> Callable[[int], np.ndarray]:
        """A function from the index of a slice of the image to the layer's values there."""
        opened = layer.open()
        check_aligned(self.volume, opened)
        self.problems += [(layer.title, bad) for bad in layer.told]
        return lambda index: _whole(opened.read(self.axis, index), layer.any_value)

    def _scan(self, layer: Layer, read: Callable[[int], np.ndarray], keep: bool) -> None:
        unknown: dict[int, int] = {}
        size = self.volume.shape[self.axis]
        found: dict[Label, np.ndarray] = {}
        for index in range(size):
            values = read(index)
            if not values.any():
                continue
            self._seen = True
            for value, count in _counted(values):
                if value and int(value) not in layer.labels:
                    unknown[int(value)] = unknown.get(int(value), 0) + int(count)
                elif value and layer.labels[int(value)] in self.ids:
                    found.setdefault(layer.labels[int(value)], np.zeros(size, np.int64))[index] += count
            if keep:
                self._regions.setdefault(index, []).extend(self._made(values, layer.labels))
        for label, counts in found.items():
            self.counts[label] = self.counts[label] + counts if label in self.counts else counts
        if unknown:
            told = ", ".join(f"{value} ({count:,} voxels)" for value, count in sorted(unknown.items())[:5])
            self.problems.append(
                (layer.title, BadRecord("label value without a name", f"{told}: name it, or set it to 0"))
            )

    def _made(self, values: np.ndarray, labels: Mapping[int, Label]) -> Iterator[Region]:
        picture = as_picture(values)
        for value, _ in _counted(values):
            label = labels.get(int(value)) if value else None
            if label in self.ids:
                mask = picture == value
                box = tight_box(mask)
                assert box is not None
                yield Region(self.ids[label], box, encode_mask(mask), float(np.count_nonzero(mask)))


def _counted(values: np.ndarray) -> list[tuple[int, int]]:
    """The values of a slice and how often they occur, in order."""
    if values.dtype.kind in "bu" and values.dtype.itemsize <= 2:  # a hundred times faster than sorting
        counts = np.bincount(values.ravel())
        return [(int(value), int(counts[value])) for value in np.flatnonzero(counts)]
    found, counts = np.unique(values, return_counts=True)
    return list(zip(found.tolist(), counts.tolist(), strict=True))


def _whole(values: np.ndarray, any_value: bool) -> np.ndarray:
    """Values of a label map as whole numbers; BadRecord if they are none."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0)
        whole = np.rint(values)
        if np.abs(whole - values).max(initial=0) > 1e-3:
            raise BadRecord("not a label map", "its values are no whole numbers: give labels, not probabilities")
        values = whole.astype(np.int64)
    if any_value:
        return (values != 0).view(np.uint8)
    narrow = values.dtype.itemsize > 2 or values.dtype.kind == "i"
    return values.astype(np.uint16) if narrow and 0 <= values.min() and values.max() < 2**16 else values


def _sized(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
