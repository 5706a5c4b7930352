"""Weights of images that balance modalities and labels."""

import dataclasses
from typing import Any

import numpy as np

from data.curation import scan
from data.curation.scan import Table


@dataclasses.dataclass(frozen=True)
class Cells:
    """Regions of some images by modality and label: for each region its `cell` (modality * labels + label, int64
    [regions]) and its image `owner` (int64 [regions], 0 to `images` - 1). An image without regions has one entry, whose
    label is the last: "no region"."""

    cell: np.ndarray
    owner: np.ndarray
    images: int
    shape: tuple[int, int]  # modalities, labels + 1

    def counts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Regions of each cell, float64 [modalities, labels + 1], counted by the weights of their images."""
        each = None if weights is None else weights[self.owner].astype(np.float64)
        return np.bincount(self.cell, each, self.shape[0] * self.shape[1]).reshape(self.shape).astype(np.float64)


def image_weights(cells: Cells, temperature: float, most: float) -> np.ndarray:
    """Weight of each image, float32 [images], between 1 / `most` and `most`.

    A cell of n regions is to be seen as if it had n ** temperature (1 changes nothing, 0 makes all cells equal), in
    proportion, so that the mean over regions stays 1; an image gets the mean of its regions' weights. Images of many
    labels cannot serve each of them: the balance that results is to be measured, not assumed.
    """
    counts = cells.counts().ravel()
    there = counts > 0
    wanted = np.zeros_like(counts)
    wanted[there] = counts[there] ** (temperature - 1)
    wanted *= counts.sum() / max((wanted * counts).sum(), 1e-300)
    total = np.bincount(cells.owner, wanted[cells.cell], cells.images)
    regions = np.bincount(cells.owner, minlength=cells.images)
    return np.clip(total / np.maximum(regions, 1), 1 / most, most).astype(np.float32)


def balance(table: Table, dropped: np.ndarray, config: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights of the training images that stay, "source.split" -> float32 [images], and the report's part on them."""
    training = ~scan.evaluation_rows(table, config.train_splits)
    rows = np.flatnonzero(training & ~dropped)
    counts = np.diff(table.ends, prepend=0)[rows]
    entries = np.maximum(counts, 1)
    owner = np.repeat(np.arange(len(rows)), entries)
    position = np.arange(len(owner)) - np.repeat(np.cumsum(entries) - entries, entries)
    none = len(table.names)  # the label of an image without regions
    label = np.append(table.labels, none)[
        np.where(counts[owner] > 0, (table.ends[rows] - counts)[owner] + position, -1)
    ]
    shape = (len(table.modalities), none + 1)
    cells = Cells(table.modality[rows][owner].astype(np.int64) * shape[1] + label, owner, len(rows), shape)
    weights = image_weights(cells, config.balance.temperature, config.balance.most)
    files = {}
    for number, (name, split, first) in enumerate(table.parts):
        end = table.parts[number + 1][2] if number + 1 < len(table.parts) else len(table)
        chosen = (rows >= first) & (rows < end)
        if chosen.any():
            files[f"{name}.{split}"] = weights[chosen]
    told = {
        "temperature": config.balance.temperature,
        "most": config.balance.most,
        "before": _by_name(table, cells.counts()),
        "after": _by_name(table, cells.counts(weights)),
    }
    return files, told


def _by_name(table: Table, counts: np.ndarray) -> dict[str, dict[str, float]]:
    names = [*table.names, ""]
    return {
        modality: {names[i]: round(float(counts[row, i]), 1) for i in np.flatnonzero(counts[row])}
        for row, modality in enumerate(table.modalities)
        if counts[row].any()
    }
