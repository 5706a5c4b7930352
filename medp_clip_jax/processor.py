"""From files and sentences to what the model takes: images on its canvas, texts as tokens."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from medp_clip_jax.augment import letterbox
from medp_clip_jax.errors import InputError
from medp_clip_jax.models.vit import Images
from medp_clip_jax.readers import Source, Window, read_image
from medp_clip_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Processor:
    """What one model expects: canvas side `size` in pixels and text length `context` in tokens."""

    size: int
    tokenizer: Tokenizer
    context: int

    def images(
        self,
        sources: Source | Sequence[Source],
        window: Window = None,
        plane: str = "axial",
        index: int | None = None,
    ) -> Images:
        """Reads images onto the canvas: pixels uint8 [batch, size, size, 3] and the rectangle each image fills on it.

        `sources` is one path or array or a sequence of them; `window`, `plane` and `index` are those of
        `readers.read_image` and hold for all. Images keep their aspect ratio; prompts are relative to the image, not to
        the canvas.

        Raises:
          InputError: an image cannot be read; the message names it.
        """
        several = [sources] if isinstance(sources, (str, os.PathLike, np.ndarray)) else list(sources)
        if not several:
            raise InputError("images: expected at least one path or array, got an empty sequence")
        read = [letterbox(read_image(source, window, plane, index), self.size) for source in several]
        pixels, rectangles = zip(*read, strict=True)
        return Images(np.stack(pixels), np.stack(rectangles))

    def tokens(self, texts: str | Sequence[str]) -> np.ndarray:
        """Token ids int32 [texts, context] of one text or several; long texts lose their tail, not their end token."""
        return self.tokenizer([texts] if isinstance(texts, str) else list(texts), self.context)
