"""A picture of what was asked and answered: prompts drawn on the image, each region with its best label."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = (
    (255, 99, 72),
    (46, 204, 113),
    (52, 152, 219),
    (241, 196, 15),
    (155, 89, 182),
    (26, 188, 156),
    (230, 126, 34),
)
OUTSIDE = (231, 76, 60)  # clicks that say "not here"
SIDE = 768  # smaller images are enlarged to about this for legible text
TINT = 0.35  # opacity of a mask
FONT = 15


@dataclasses.dataclass(frozen=True)
class Shape:
    """One region as it was prompted, in pixels of the image, and the `caption` to write beside it."""

    caption: str
    box: tuple[float, ...] | None = None  # x0, y0, x1, y1
    points: tuple[tuple[float, ...], ...] = ()  # x, y
    negative_points: tuple[tuple[float, ...], ...] = ()
    mask: np.ndarray | None = None  # bool [height, width]


def draw(image: np.ndarray, shapes: list[Shape]) -> Image.Image:
    """Draws the regions over an image uint8 [height, width, 3]; a region without a prompt is captioned at the top."""
    height, width = image.shape[:2]
    scale = max(1, round(SIDE / max(height, width)))  # whole, so that box edges stay on pixel borders
    pixels = image.astype(np.float32)
    for number, shape in enumerate(shapes):
        if shape.mask is not None:
            colour = np.array(COLOURS[number % len(COLOURS)], np.float32)
            pixels[shape.mask] = (1 - TINT) * pixels[shape.mask] + TINT * colour
    picture = Image.fromarray(np.rint(pixels).astype(np.uint8))
    picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST if scale > 1 else None)
    canvas = ImageDraw.Draw(picture)
    for number, shape in enumerate(shapes):
        _draw_prompts(canvas, shape, COLOURS[number % len(COLOURS)], scale)
    for number, shape in enumerate(shapes):  # captions last: no line may cross them
        _draw_caption(canvas, shape, COLOURS[number % len(COLOURS)], scale, picture.size)
    return picture


def _draw_prompts(canvas: ImageDraw.ImageDraw, shape: Shape, colour: tuple[int, int, int], scale: int) -> None:
    if shape.box is not None:
        x0, y0, x1, y1 = (value * scale for value in shape.box)
        canvas.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=2)
    for points, fill in ((shape.points, colour), (shape.negative_points, OUTSIDE)):
        for x, y in points:
            x, y = x * scale, y * scale
            canvas.ellipse((x - 7, y - 7, x + 7, y + 7), fill=fill, outline=(255, 255, 255), width=2)
            if fill is OUTSIDE:
                canvas.line((x - 4, y, x + 4, y), fill=(255, 255, 255), width=2)


def _draw_caption(
    canvas: ImageDraw.ImageDraw, shape: Shape, colour: tuple[int, int, int], scale: int, size: tuple[int, int]
) -> None:
    font = ImageFont.load_default(size=FONT)
    _, _, right, bottom = canvas.textbbox((0, 0), shape.caption, font=font)
    x, y = (value * scale for value in _anchor(shape))
    x = max(0, min(x, size[0] - right - 8))
    y = y - bottom - 6 if y - bottom - 6 >= 0 else min(y, max(0, size[1] - bottom - 6))
    canvas.rectangle((x, y, x + right + 8, y + bottom + 6), fill=(20, 20, 20), outline=colour)
    canvas.text((x + 4, y + 2), shape.caption, fill=(255, 255, 255), font=font)


def _anchor(shape: Shape) -> tuple[float, float]:
    """Where the caption belongs: above the region's top left corner."""
    if shape.box is not None:
        return shape.box[0], shape.box[1]
    if shape.mask is not None:
        rows, columns = np.nonzero(shape.mask)
        return float(columns.min()), float(rows.min())
    x, y = min(shape.points or shape.negative_points, key=lambda point: point[1], default=(0.0, 0.0))
    return x, y
