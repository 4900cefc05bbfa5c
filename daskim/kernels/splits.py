"""Splits as bits: images, or sets of equal images, of several splits; and the pairs that lie across them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST", "across", "pairs_across", "split_masks", "splits_in"]

# Bits of a mask.
MOST = 62


def split_masks(code: np.ndarray, first: np.ndarray) -> NDArray[np.int64]:
    """The splits of the images that each image stands for, as a bit mask; shape (n,).

    Parameters
    ----------
    code : ndarray, shape (n,), int
        Number of the split of each image, 0 to `MOST` - 1.
    first : ndarray, shape (n,), int
        The image that stands for each; -1 for none.
    """
    own = np.left_shift(np.int64(1), np.asarray(code, dtype=np.int64))
    mask = own.copy()
    used = np.flatnonzero(first >= 0)
    np.bitwise_or.at(mask, first[used], own[used])
    mask[used] = mask[first[used]]
    return mask


def across(one: np.ndarray, other: np.ndarray) -> NDArray[np.bool_]:
    """Whether two masks hold images of two different splits."""
    both = np.bitwise_or(one, other)
    return np.asarray(both & (both - 1) != 0)


def splits_in(masks: np.ndarray) -> list[int]:
    """Numbers of the splits that any of the masks holds, ascending."""
    whole = int(np.bitwise_or.reduce(masks, initial=0))
    return [bit for bit in range(MOST) if whole >> bit & 1]


def pairs_across(masks: np.ndarray) -> int:
    """Pairs of different images among those with these masks that lie across splits."""
    n = len(masks)
    value, count = np.unique(masks, return_counts=True)
    within = count[(value & (value - 1)) == 0]
    return n * (n - 1) // 2 - int((within * (within - 1) // 2).sum())
