"""Where the registration of pairs begins, compiled."""

from __future__ import annotations

import numpy as np

from daskim.kernels.compiled import compiled

__all__ = ["start"]


@compiled
def start(crops, others, pixels, other_pixels, i, j):  # type: ignore[no-untyped-def]
    """Where the registration of pairs (i, j) begins.

    Parameters
    ----------
    crops, others : ndarray, shape (n, 2, crops, size), int16
        Unit images on the coarsest level, as they are and mirrored, times 2^14: their products add up to 2^28 at most.
    pixels, other_pixels : ndarray, shape (n, pixels), uint8
    i, j : ndarray, shape (p,), int64

    Returns
    -------
    swap : ndarray, shape (p,), bool
        Whether the image of `others` is the template.
    best : ndarray, shape (p,), int64
        Mirrored, which is the crop, crop: the first of the largest products.
    highest : ndarray, shape (p,), int32
        That product.
    """
    count, size = crops.shape[2], crops.shape[3]
    swap, best = np.empty(len(i), dtype=np.bool_), np.empty(len(i), dtype=np.int64)
    largest = np.empty(len(i), dtype=np.int32)
    for p in range(len(i)):
        a, b = i[p], j[p]
        later = False
        differ = False
        for k in range(size):
            if crops[a, 0, 0, k] != others[b, 0, 0, k]:
                later, differ = crops[a, 0, 0, k] < others[b, 0, 0, k], True
                break
        if not differ:
            for k in range(pixels.shape[1]):
                if pixels[a, k] != other_pixels[b, k]:
                    later = pixels[a, k] < other_pixels[b, k]
                    break
        one, other = crops[a], others[b]
        if later:
            one, other = others[b], crops[a]
        highest, at = np.int32(-(2**30)), 0
        for m in range(2):
            for side in range(2):
                for crop in range(count):
                    if side == 1 and crop == 0:
                        continue  # as side 0
                    found = product(one[0, crop * side], other[m, crop * (1 - side)])
                    if found > highest:
                        highest, at = found, (2 * m + side) * count + crop
        swap[p], best[p], largest[p] = later != (at // count % 2 == 1), at, highest
    return swap, best, largest


@compiled
def product(one, other):  # type: ignore[no-untyped-def]
    """Inner product of two rows of int16, int32."""
    out = np.int32(0)
    for k in range(len(one)):
        out += np.int32(np.int32(one[k]) * np.int32(other[k]))
    return out
