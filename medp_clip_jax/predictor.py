"""Interactive segmentation of one image: it is read once, and every click costs a few tokens."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medp_clip_jax.api import Model
from medp_clip_jax.errors import InputError
from medp_clip_jax.mask_images import on_image
from medp_clip_jax.models.segmenter import Segmentation
from medp_clip_jax.models.vit import Images
from medp_clip_jax.processor import Processor
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.readers import Source, read_image

SLOTS = 8  # clicks; more come in steps of as many, each compiled anew


@dataclasses.dataclass(frozen=True)
class Answer:
    """One region of the image as the model sees it."""

    mask: np.ndarray  # bool [height, width], of the image
    logits: np.ndarray  # float32 [height, width]
    iou: float  # expected
    present: float  # probability that there is an object where the prompt points
    _name: Callable[[], np.ndarray]

    @functools.cached_property
    def embedding(self) -> np.ndarray:
        """What the mask shows, float32 [dim], L2-normalised, to be compared with texts; the tower is asked when this is
        first read, so that a click waits for the decoder alone."""
        return self._name()


@dataclasses.dataclass(frozen=True)
class _State:
    box: tuple[float, ...] | None = None
    clicks: tuple[tuple[float, float, int], ...] = ()
    mask: np.ndarray | None = None
    previous: Segmentation | None = None
    answer: Answer | None = None


class Predictor:
    """Holds one image on the device and one region that prompts describe; coordinates are pixels of the image.

    Each of `click`, `box` and `mask` adds to the region and answers; `undo` takes the last one back, `restart` begins
    another region.
    """

    def __init__(self, model: Model, params: Any, processor: Processor):
        if not model.config.segmenter.width:
            raise InputError("this model has no mask decoder: load one that was trained with loss.segment")
        self._model, self._params, self._processor = model, params, processor
        self._features: Any = None
        self._size = (0, 0)
        self._history = [_State()]

    def set_image(self, source: Source, **reading: Any) -> None:
        """Reads an image, as `Processor.images` does; `reading` are its window, plane and index."""
        pixels = read_image(source, **reading)
        images: Images = self._processor.images(pixels)
        self._size = pixels.shape[1], pixels.shape[0]
        self._rectangle = np.asarray(images.rectangle)[0]
        self._features = self._model.encode_image(self._params, images)
        self.restart()

    def restart(self) -> None:
        """Begins another region of the same image."""
        self._history = [_State()]

    def click(self, x: float, y: float, inside: bool = True) -> Answer:
        """A click inside the region, or where it should not be."""
        now = self._history[-1]
        return self._ask(dataclasses.replace(now, clicks=(*now.clicks, (x, y, int(inside)))))

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Answer:
        """A box around the region; it takes the place of an earlier one."""
        return self._ask(dataclasses.replace(self._history[-1], box=(x0, y0, x1, y1)))

    def mask(self, mask: np.ndarray) -> Answer:
        """A rough mask, bool [height, width] of the image, in the place of all answers so far."""
        if mask.shape != self._size[::-1]:
            raise InputError(f"mask: expected {self._size[::-1]} like the image, got {mask.shape}")
        return self._ask(dataclasses.replace(self._history[-1], mask=mask, previous=None))

    def undo(self) -> Answer | None:
        """Takes back the last prompt; returns the answer before it, None where there was none."""
        if len(self._history) > 1:
            self._history.pop()
        return self._history[-1].answer

    def _ask(self, state: _State) -> Answer:
        if self._features is None:
            raise InputError("no image: call set_image first")
        prompts, features = self._prompts(state), self._features
        found = self._model.segment(self._params, features, prompts, state.previous, False)
        logits = on_image(np.asarray(found.logits)[0, 0], self._rectangle, self._size)
        iou, present = float(found.iou[0, 0]), float(found.present[0, 0])

        def name() -> np.ndarray:
            return np.asarray(self._model.encode_masks(self._params, features, prompts, found.logits))[0, 0]

        answer = Answer(logits > 0, logits, iou, present, name)
        self._history.append(dataclasses.replace(state, previous=found, answer=answer))
        return answer

    def _prompts(self, state: _State) -> RegionPrompts:
        slots = -(-max(len(state.clicks), 1) // SLOTS) * SLOTS
        spare: Sequence[tuple[float, float, int]] = [(0.0, 0.0, -1)] * (slots - len(state.clicks))
        rows = np.array([*state.clicks, *spare])
        prompts = RegionPrompts.from_points(rows[None, None, :, :2], rows[None, None, :, 2], self._size)
        if state.box is not None:
            prompts = RegionPrompts.combine(prompts, RegionPrompts.from_boxes([[state.box]], self._size))
        if state.mask is not None:
            prompts = RegionPrompts.combine(prompts, RegionPrompts.from_masks(state.mask[None, None]))
        return prompts
