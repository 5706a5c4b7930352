"""From files and sentences to what the model takes: images on its canvas, texts as tokens.

What decodes images is imported when the first one is read: who loads a model need not wait for a compiler of loops.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from medp_clip_jax import canvas
from medp_clip_jax.errors import InputError
from medp_clip_jax.models.vit import Images
from medp_clip_jax.tokenizer import Tokenizer

if TYPE_CHECKING:
    from medp_clip_jax.readers import Source, Window


@dataclasses.dataclass(frozen=True)
class Processor:
    """What one model expects: canvas side `size` in pixels, text length `context` in tokens, and the `mode` in which
    images are laid onto the canvas, one of `canvas.MODES`; InputError for another."""

    size: int
    tokenizer: Tokenizer
    context: int
    mode: str = "medical"

    def __post_init__(self) -> None:
        canvas.check_mode(self.mode)

    def images(
        self,
        sources: Source | Sequence[Source],
        window: Window = None,
        plane: str = "axial",
        index: int | None = None,
    ) -> Images:
        """Reads images onto the canvas: pixels uint8 [batch, size, size, 3] and the rectangle each image fills on it.

        `sources` is one path or array or a sequence of them; `window`, `plane` and `index` are those of
        `readers.read_image` and hold for all. Prompts are relative to the image as it is shown (turned by its EXIF
        orientation), not to the canvas.

        Raises:
          InputError: an image cannot be read; the message names it.
        """
        from medp_clip_jax.readers import read_image

        several = [sources] if isinstance(sources, (str, os.PathLike, np.ndarray)) else list(sources)
        if not several:
            raise InputError("images: expected at least one path or array, got an empty sequence")
        pixels, rectangles = [], []
        for source in several:
            image = read_image(source, window, plane, index)
            pixels.append(canvas.place(image, self.size, self.mode))
            rectangles.append(canvas.rectangle(image.shape[1], image.shape[0], self.size, self.mode))
        return Images(np.stack(pixels), np.stack(rectangles))

    def tokens(self, texts: str | Sequence[str]) -> np.ndarray:
        """Token ids int32 [texts, context] of one text or several; long texts lose their tail, not their end token."""
        return self.tokenizer([texts] if isinstance(texts, str) else list(texts), self.context)

    def to_canvas(self, places: ArrayLike, image_size: tuple[int, int]) -> np.ndarray:
        """Pixels (x, y) of an image of `image_size` (width, height), [..., 2], as pixels of the canvas, float64.

        Corners of boxes [..., 4] are mapped as [..., 2, 2]. With mode `crop` places may lie beyond the canvas.
        """
        return canvas.to_canvas(np.asarray(places), *image_size, self.size, self.mode)

    def to_image(self, places: ArrayLike, image_size: tuple[int, int]) -> np.ndarray:
        """The inverse of `to_canvas`: pixels of the canvas, [..., 2], as pixels of the original image."""
        return canvas.to_image(np.asarray(places), *image_size, self.size, self.mode)

    def settings(self) -> dict[str, Any]:
        """What `preprocessor_config.json` says, with the field names of Hugging Face's image processors."""
        fill = {"medical": list(canvas.PADDING), "pad": [0, 0, 0]}.get(self.mode)
        return {
            "processor_class": "medp_clip_jax.Processor",
            "mode": self.mode,
            "size": {"height": self.size, "width": self.size},
            "resample": 2 if self.mode == "medical" else 3,  # Pillow's numbers of bilinear and bicubic
            "do_center_crop": self.mode == "crop",
            "do_pad": fill is not None,
            "pad_color": fill,
            "rescale_factor": 1 / 255,
            "context": self.context,
        }
