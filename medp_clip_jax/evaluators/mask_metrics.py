"""How well a mask fits another: overlap and distances between borders, defined as in MONAI.

Masks are bool [height, width]. Distances are in pixels, or in the unit of `spacing` (height, width) of a pixel. Where
one mask is empty and the other not, overlap and NSD are 0 and the Hausdorff distance is the diagonal of the image; two
empty masks fit perfectly.
"""

import numpy as np
from scipy import ndimage

TOLERANCE = 2.0  # of the NSD, in pixels


def dice(answer: np.ndarray, truth: np.ndarray) -> float:
    """Twice the shared area by the sum of the areas, in [0, 1]."""
    total = int(answer.sum()) + int(truth.sum())
    return 2 * int((answer & truth).sum()) / total if total else 1.0


def iou(answer: np.ndarray, truth: np.ndarray) -> float:
    """The shared area by that of both together, in [0, 1]."""
    union = int((answer | truth).sum())
    return int((answer & truth).sum()) / union if union else 1.0


def border_distances(
    answer: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the answer's border pixels to the truth's border, and back; a border pixel touches the outside by a
    side. Neither mask is empty."""
    rows, columns = (np.flatnonzero((answer | truth).any(axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    first, second = (_border(np.pad(mask[window], 1)) for mask in (answer, truth))
    to_second = ndimage.distance_transform_edt(~second, spacing)[first]
    to_first = ndimage.distance_transform_edt(~first, spacing)[second]
    return to_second, to_first


def nsd_hd95(
    answer: np.ndarray,
    truth: np.ndarray,
    tolerance: float = TOLERANCE,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> tuple[float, float]:
    """Normalised surface Dice, the share of both borders that lies within `tolerance` of the other, in [0, 1]; and the
    95 % Hausdorff distance, the larger of the 95th percentiles of both directions."""
    if not answer.any() or not truth.any():
        same = answer.any() == truth.any()
        return float(same), 0.0 if same else float(np.hypot(*np.multiply(answer.shape, spacing)))
    there, back = border_distances(answer, truth, spacing)
    near = (there <= tolerance).sum() + (back <= tolerance).sum()
    return float(near / (there.size + back.size)), float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _border(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)
