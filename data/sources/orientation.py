"""The eight orientations of EXIF (tag 0x0112), applied to pixels, masks and boxes alike.

A record holds the image as a viewer shows it. Annotations are read in the frame of the pixels as the file stores them
(what numpy, Pillow and pycocotools see) unless the size that comes with them fits only the shown image; either way
they end in the frame of the record.
"""

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]
Size = tuple[int, int]  # width, height

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_size(size: Size, orientation: int) -> Size:
    """The size (width, height) after turning; its own inverse."""
    return (size[1], size[0]) if orientation >= 5 else size


def turn_mask(mask: np.ndarray, orientation: int) -> np.ndarray:
    """A mask [height, width] of the stored pixels as one of the shown image."""
    if orientation >= 5:  # 5 to 8 are 1, 4, 3, 2 of the transposed mask
        mask, orientation = mask.T, {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    if orientation in (2, 3):
        mask = mask[:, ::-1]
    return mask[::-1] if orientation in (3, 4) else mask


def turn_box(box: Box, orientation: int, stored: Size) -> Box:
    """A box (x0, y0, x1, y1) of the stored pixels, which are `stored` large, as one of the shown image."""
    (x0, y0, x1, y1), (width, height) = box, stored
    if orientation >= 5:
        x0, y0, x1, y1, width, height = y0, x0, y1, x1, height, width
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    if orientation in (2, 3):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4):
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1
