"""MedP-CLIP in JAX: read a medical image once, then ask about any region of it.

Names are loaded on first use: the offline tools and the input workers need no model and should not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING

from medp_clip_jax.errors import InputError

if TYPE_CHECKING:
    from medp_clip_jax.api import Model, classify, load
    from medp_clip_jax.models.vit import ImageFeatures, Images
    from medp_clip_jax.processor import Processor
    from medp_clip_jax.prompts import RegionPrompts

__version__ = "0.1.0"

__all__ = ["ImageFeatures", "Images", "InputError", "Model", "Processor", "RegionPrompts", "classify", "load"]

_HOMES = {
    "ImageFeatures": "models.vit",
    "Images": "models.vit",
    "Model": "api",
    "Processor": "processor",
    "RegionPrompts": "prompts",
    "classify": "api",
    "load": "api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
