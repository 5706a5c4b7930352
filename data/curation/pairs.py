"""Pairs of equal and of nearly equal images among millions.

Two hashes of 64 bits that differ in at most d bits agree in at least one of d + 1 bands of neighbouring bits
(pigeonhole; Manku et al., "Detecting near-duplicates for web crawling", WWW 2007): only what shares a band is compared.
"""

from collections.abc import Iterator

import numpy as np

BLOCK = 2048  # hashes compared with as many in one go
BITS = 64


def equal_pairs(hashes: np.ndarray) -> np.ndarray:
    """Pairs int64 [pairs, 2] (first, later) of equal hashes uint64 [images]; an image is paired with the first of its
    kind only."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first[inverse]
    later = np.flatnonzero(firsts != np.arange(len(hashes)))
    return np.stack([firsts[later], later], axis=1).astype(np.int64).reshape(-1, 2)


def near_pairs(hashes: np.ndarray, distance: int, apart: np.ndarray) -> Iterator[np.ndarray]:
    """Yields blocks of pairs int64 [pairs, 2] (first < later) of hashes uint64 [images] that differ in at most
    `distance` bits; images of equal `apart` (int64 [images]) are no pair. Each pair comes once."""
    edges = [BITS * band // (distance + 1) for band in range(distance + 2)]
    masks = [np.uint64(((1 << high) - 1) ^ ((1 << low) - 1)) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    for number, mask in enumerate(masks):
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        _, starts, sizes = np.unique(keys[order], return_index=True, return_counts=True)
        several = sizes > 1
        for start, size in zip(starts[several].tolist(), sizes[several].tolist(), strict=True):
            yield from _within(order[start : start + size], hashes, apart, distance, masks[:number])


def _within(
    bucket: np.ndarray, hashes: np.ndarray, apart: np.ndarray, distance: int, earlier: list[np.uint64]
) -> Iterator[np.ndarray]:
    """Pairs within a bucket, but those that agree in an earlier band, which have been found there."""
    for begin in range(0, len(bucket), BLOCK):
        rows = bucket[begin : begin + BLOCK]
        for other in range(begin, len(bucket), BLOCK):
            columns = bucket[other : other + BLOCK]
            differ = hashes[rows, None] ^ hashes[None, columns]
            near = np.bitwise_count(differ) <= distance
            if other == begin:
                near &= np.triu(np.ones(near.shape, bool), 1)
            found = np.argwhere(near)
            if not len(found):
                continue
            bits = differ[found[:, 0], found[:, 1]]
            pairs = np.stack([rows[found[:, 0]], columns[found[:, 1]]], axis=1)
            wanted = apart[pairs[:, 0]] != apart[pairs[:, 1]]
            for mask in earlier:
                wanted &= (bits & mask) != 0
            if wanted.any():
                yield np.sort(pairs[wanted], axis=1)
