"""What the name of a metric says of it: whether more or less of it is better, and how it is written."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from medp_clip_jax import cost, results

SMALL = (  # better small; of all others more is better
    f"{cost.PREFIX}*",
    "calibration/*/ece",
    "context/*/cosine_between_regions_*",  # a region is told from its neighbours
    "context/empty_prompt_max_difference",
    "falsification/change",
    "sensitivity/*/wrong/cosine_*",
    "segmentation/*hd95/*",
    "segmentation/noc/*",  # clicks, and failures to reach a goal
)
PLAIN = (  # no shares
    f"{cost.PREFIX}*",
    "segmentation/*hd95/*",
    "segmentation/noc/*/clicks",
    *(f"probe/*/{name}" for name in ("C", "labels", "train", "test")),
)


def direction(name: str) -> int:
    """1 where more is better, -1 where less is."""
    return -1 if any(fnmatchcase(name, pattern) for pattern in SMALL) else 1


def is_share(name: str) -> bool:
    """Whether it is written in percent."""
    return not any(fnmatchcase(name, pattern) for pattern in PLAIN)


def written(name: str, values: Sequence[float]) -> str:
    """The mean of the runs and, of what is measured, their standard deviation; a dash without runs."""
    if not values:
        return "–"
    mean = float(np.mean(values))
    deviation = np.std(values, ddof=1) if len(values) > 1 and not name.startswith(cost.PREFIX) else None
    if is_share(name):
        return results.percent(mean) + ("" if deviation is None else f" ± {100 * deviation:.1f}")
    return f"{mean:.3g}" + ("" if deviation is None else f" ± {deviation:.2g}")
