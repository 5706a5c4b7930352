"""How an image comes to lie on the model's square canvas, and where its pixels are then.

`medical` is how the project trains: the whole image in its own proportions, its longer side that of the canvas, and the
rest in the mean colour. The others are the evaluation transforms of open_clip and torchvision, bicubic, antialiased:
`crop` scales the shorter side and cuts the middle out, `pad` scales the longer side and pads with black, `squash` gives
up the proportions (SigLIP).
"""

import numpy as np
from PIL import Image

from medp_clip_jax.errors import InputError

PADDING = (123, 117, 104)  # mean colour of CLIP's training images: the tower's normalisation maps it to about zero
MODES = ("medical", "crop", "pad", "squash")


def check_mode(mode: object) -> None:
    """Raises InputError for a mode that is none of `MODES`."""
    if mode not in MODES:
        raise InputError(f"preprocessing mode: expected one of {', '.join(MODES)}, got {mode!r}")


def placement(width: int, height: int, size: int, mode: str) -> tuple[int, int, int, int]:
    """Where an image of `width` x `height` px lies on a canvas of side `size`, as (x, y, width, height) in canvas px.

    With `crop` it reaches beyond the canvas. The rounding is that of torchvision's Resize and CenterCrop in `crop`, of
    open_clip's ResizeKeepRatio and CenterCropOrPad in `pad`.
    """
    if mode == "squash":
        return 0, 0, size, size
    if mode == "crop":
        short, long = min(width, height), max(width, height)
        scaled = int(size * long / short)
        w, h = (size, scaled) if width <= height else (scaled, size)
        return -round((w - size) / 2.0), -round((h - size) / 2.0), w, h
    if mode == "pad":
        ratio = max(width / size, height / size)
        w, h = max(1, round(width / ratio)), max(1, round(height / ratio))
    else:
        scale = size / max(width, height)
        w, h = (min(size, max(1, round(side * scale))) for side in (width, height))
    return (size - w) // 2, (size - h) // 2, w, h


def rectangle(width: int, height: int, size: int, mode: str) -> np.ndarray:
    """The image's (x0, y0, x1, y1) in [0, 1] of the canvas, float32 [4]; beyond [0, 1] where `crop` cuts it off."""
    x, y, w, h = placement(width, height, size, mode)
    return np.array([x, y, x + w, y + h], np.float32) / size


def place(image: np.ndarray, size: int, mode: str) -> np.ndarray:
    """The canvas uint8 [size, size, 3] with an image uint8 [height, width, 3] on it."""
    if mode == "medical":
        from medp_clip_jax.augment import letterbox  # compiled loops, which who only loads a model can do without

        return letterbox(image, size)[0]
    x, y, w, h = placement(image.shape[1], image.shape[0], size, mode)
    scaled = Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC)
    # Pillow's crop pads with black where the box reaches beyond the picture.
    return np.asarray(scaled.crop((-x, -y, size - x, size - y)))


def to_canvas(places: np.ndarray, width: int, height: int, size: int, mode: str) -> np.ndarray:
    """From pixels (x, y) of the image to pixels of the canvas, float64; see `Processor.to_canvas`."""
    x, y, w, h = placement(width, height, size, mode)
    return _pairs(places) * (w / width, h / height) + (x, y)


def to_image(places: np.ndarray, width: int, height: int, size: int, mode: str) -> np.ndarray:
    """The inverse of `to_canvas`."""
    x, y, w, h = placement(width, height, size, mode)
    return (_pairs(places) - (x, y)) * (width / w, height / h)


def _pairs(places: np.ndarray) -> np.ndarray:
    values = np.asarray(places, np.float64)
    if values.ndim < 2 or values.shape[-1] != 2:
        raise InputError(f"places: expected (x, y) along the last axis, [..., 2], got shape {values.shape}")
    return values
