"""Seeded masks for the rules of clicking and the metrics, the same for every library that is compared."""

import numpy as np
from scipy import ndimage


def blob(rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """A random shape of one or more parts that may touch the border, never empty."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), rng.uniform(1.5, 6))
    mask = field > np.quantile(field, rng.uniform(0.6, 0.97))
    mask[rng.integers(size), rng.integers(size)] = True
    return mask


def mask_pairs(count: int = 200, answers: int = 4):
    """Pairs of a region and the answers to it, turn by turn: none, then closer and closer to the region."""
    for number in range(count):
        rng = np.random.default_rng(number)
        truth, other = blob(rng), blob(rng)
        turns = [np.zeros_like(truth)]
        for turn in range(1, answers):
            noise = ndimage.gaussian_filter(rng.standard_normal(truth.shape), 2) > 0.05 * turn
            turns.append(np.where(noise, truth, other if turn % 2 else ~truth))
        yield truth, turns
