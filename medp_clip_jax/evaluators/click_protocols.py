"""Users that click by rule, as papers define them: results of two rules never share a table.

All work on bool masks [height, width] and whole pixels. `center` is the rule of RITM and SAM 2, `sam_med2d` and `imis`
are those of the code of SAM-Med2D and IMIS-Bench. A click is (x, y, label), label 1 inside, 0 outside.
"""

import numpy as np
from scipy import ndimage

PROTOCOLS = ("center", "sam_med2d", "imis")
ACCUMULATES = {"center": True, "sam_med2d": True, "imis": False}  # whether earlier clicks are shown again
Click = tuple[int, int, int]


def click(protocol: str, truth: np.ndarray, answer: np.ndarray | None, rng: np.random.Generator) -> Click:
    """The next click of a protocol, with `answer` None the first; `rng` is the user's dice (`center` has none)."""
    if protocol == "center":
        return center(truth, np.zeros_like(truth) if answer is None else answer)
    if answer is not None:
        return random_error(truth, answer, rng)
    return random_inside(truth, rng) if protocol == "sam_med2d" else near_centroid(truth, rng)


def center(truth: np.ndarray, answer: np.ndarray) -> Click:
    """The pixel of the errors that lies deepest, by the L2 distance to where they end, the border included.

    Inside if what is missed is the deeper, else outside; the first in row order of several; (0, 0) outside if
    nothing is wrong. RITM (arXiv 2102.06583) and `sample_one_point_from_error_center` of SAM 2.
    """
    missed, extra = _deepest(truth & ~answer), _deepest(answer & ~truth)
    depth, x, y = missed if missed[0] > extra[0] else extra
    return x, y, int(missed[0] > extra[0])


def _deepest(mask: np.ndarray) -> tuple[float, int, int]:
    """(distance, x, y) of the deepest pixel; distance 0 of an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return 0.0, 0, 0
    top, left = rows[0], columns[0]
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)  # the rest is far from it, and costs time
    distance = ndimage.distance_transform_edt(part)[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(distance), distance.shape)
    return float(distance[y, x]), int(x + left), int(y + top)


def random_inside(truth: np.ndarray, rng: np.random.Generator) -> Click:
    """A random pixel of the region: the first click of SAM-Med2D (arXiv 2308.16184, `init_point_sampling`)."""
    places = np.argwhere(truth)
    y, x = places[rng.integers(len(places))]
    return int(x), int(y), 1


def near_centroid(truth: np.ndarray, rng: np.random.Generator, share: float = 0.5) -> Click:
    """A random one of the half of the region's pixels that lie nearest to its centroid: the first click of IMIS-Bench.

    arXiv 2411.12814, `get_points_from_mask`; the half is rounded down, and of one pixel it is that pixel.
    """
    places = np.argwhere(truth)[:, ::-1]
    distance = np.sqrt(np.square(places - places.mean(0)).sum(1))
    near = np.argsort(distance)[: max(int(len(places) * share), 1)]
    x, y = places[rng.choice(near)]
    return int(x), int(y), 1


def random_error(truth: np.ndarray, answer: np.ndarray, rng: np.random.Generator) -> Click:
    """A random pixel of the errors: the corrections of SAM-Med2D and IMIS-Bench; (0, 0) outside if nothing is wrong."""
    places = np.argwhere(truth != answer)
    if not len(places):
        return 0, 0, 0
    y, x = places[rng.integers(len(places))]
    return int(x), int(y), int(truth[y, x])
