"""From measured values to the brightness that a reader would see: windows for CT, percentiles for the rest."""

import numpy as np

from medp_clip_jax.errors import InputError

Window = str | tuple[float, float] | None

# CT windows (level, width) in Hounsfield units, as commonly used in reading rooms.
WINDOWS = {
    "brain": (40, 80),
    "subdural": (75, 215),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (40, 400),
    "liver": (30, 150),
    "bone": (400, 1800),
}
AIR = -500  # values below this are Hounsfield units unless another modality is stated: few others store such numbers


def level_width(window: Window) -> tuple[float, float] | None:
    """(level, width) of a window given by name or numbers, None for None; InputError if there is no such window."""
    if window is None:
        return None
    if isinstance(window, str):
        if window not in WINDOWS:
            raise InputError(f"window: expected one of {', '.join(WINDOWS)} or (level, width), got {window!r}")
        return WINDOWS[window]
    level, width = map(float, window)
    if not width > 0:
        raise InputError(f"window: expected (level, width) with a width above 0, got {window}")
    return level, width


def display_range(
    values: np.ndarray, window: tuple[float, float] | None, name: object, scaled: bool = False, ct: bool = True
) -> tuple[float, float]:
    """The values shown as black and as white: the ends of `window` (level, width), for Hounsfield units without one
    those of the soft-tissue window, else the 0.5 and 99.5 percentiles of the finite values.

    `scaled` says that floats in [0, 1] are brightness already, `ct` that values far below 0 may be Hounsfield units.
    Raises InputError, with `name`, if nothing is finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InputError(f"{name}: expected finite values, got only NaN or infinity")
    if window is None and ct and finite.min() <= AIR:
        window = WINDOWS["soft_tissue"]
    if window is not None:
        level, width = window
        return level - width / 2, level + width / 2
    if scaled and values.dtype.kind == "f" and finite.min() >= 0 and finite.max() <= 1:
        return 0.0, 1.0
    low, high = np.percentile(finite, (0.5, 99.5))
    return float(low), float(high)


def to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Brightness uint8 of the shape of `values`: `low` and below become 0, `high` and above 255, NaN becomes 0."""
    span = high - low if high > low else 1.0  # a constant image is black
    shown = (np.nan_to_num(values.astype(np.float32), nan=low) - low) * (255 / span)
    return np.rint(np.clip(shown, 0, 255)).astype(np.uint8)
