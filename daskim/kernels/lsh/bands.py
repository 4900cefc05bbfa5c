"""The pairs of rows that share a band of their signatures, never more than linear in the rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from daskim.kernels.lsh.minhash import EMPTY

__all__ = ["Pairs", "band_keys", "band_pairs", "band_pairs_between"]


def band_keys(signatures: np.ndarray, band: int, r: int) -> np.ndarray:
    """One number for the band of each signature; shape (n,), uint64.

    Parameters
    ----------
    signatures : ndarray, shape (n, K), uint32
    band : int
        Numbers band * r to band * r + r - 1.

    Notes
    -----
    For r up to 2 the numbers are packed, and equal keys mean equal bands. Above, they are mixed to 64 bits: different
    bands of n images collide with probability below n^2 / 2^65, so equal keys are to be checked.
    """
    values = signatures[:, band * r : band * r + r]
    keys = values[:, 0].astype(np.uint64)
    for column in values.T[1:]:
        if r > 2:
            keys *= np.uint64(0x9E3779B97F4A7C15)  # the golden ratio: a bijection that carries low bits upwards
            keys ^= keys >> np.uint64(29)
        else:
            keys <<= np.uint64(32)
        keys ^= column
    return keys


class Pairs(NamedTuple):
    """Rows that share a band.

    Attributes
    ----------
    a, b : ndarray, shape (p,), int64
    capped : ndarray, int64
        Sizes of the buckets that became a star, largest first.
    """

    a: np.ndarray
    b: np.ndarray
    capped: np.ndarray


def band_pairs(values: np.ndarray, *, cap: int) -> Pairs:
    """All pairs a < b of rows that are equal in one band, each once.

    Parameters
    ----------
    values : ndarray, shape (n, r), uint32
        One band of the signatures. Rows of nothing but `EMPTY` meet no other.
    cap : int
        In a larger bucket the first row is paired with each of the others, and they are not with one another: at most
        n * (cap - 1) / 2 pairs, or n where all are equal.

    Returns
    -------
    Pairs
        Where no bucket is capped, the pairs that `datasketch.MinHashLSH` finds through this band.
    """
    rows, sizes = _buckets(values)
    position, size = _within(sizes)
    later = np.where(size <= cap, size - 1 - position, np.where(position == 0, size - 1, 0))
    a, b = _expand(rows, np.arange(len(rows)) + 1, later)
    return Pairs(a, b, np.sort(sizes[sizes > cap])[::-1])


def band_pairs_between(left: np.ndarray, right: np.ndarray, *, cap: int) -> Pairs:
    """All pairs (row of `left`, row of `right`) that are equal in one band, each once.

    Parameters
    ----------
    left, right : ndarray, shape (p, r) and (q, r), uint32
        One band of the signatures. With the mirrored forms on the right, a symmetric image meets itself, and a pair
        comes both ways round.
    cap : int
        In a bucket with more rows than that, of both sides together, the first row of each side is paired with all of
        the other side, and no other pairs are made.

    Returns
    -------
    Pairs
        `capped` counts the rows of both sides.
    """
    rows, sizes = _buckets(np.concatenate([left, right]))
    starts = np.cumsum(sizes) - sizes
    lefts = np.add.reduceat(rows < len(left), starts, dtype=np.int64) if len(sizes) else sizes
    rights = sizes - lefts
    position, size = _within(sizes)
    count = np.where((size <= cap) | (position == 0), np.repeat(rights, sizes), np.repeat(np.minimum(rights, 1), sizes))
    count[position >= np.repeat(lefts, sizes)] = 0
    a, b = _expand(rows, np.repeat(starts + lefts, sizes), count)
    both = (lefts > 0) & (rights > 0)
    return Pairs(a, b - len(left), np.sort(sizes[both & (sizes > cap)])[::-1])


def _buckets(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the buckets with at least two, bucket after bucket and ascending in each, and the buckets' sizes."""
    filled = np.flatnonzero((values != EMPTY).any(axis=1))
    keys = band_keys(values[filled], 0, values.shape[1])
    order = np.argsort(keys)
    equal = keys[order][1:] == keys[order][:-1]
    if values.shape[1] > 2:
        at = np.flatnonzero(equal)
        if (values[filled[order[at]]] != values[filled[order[at + 1]]]).any():  # keys that collide: sort by all values
            order = np.lexsort(values[filled].T)
            equal = (values[filled[order[1:]]] == values[filled[order[:-1]]]).all(axis=1)
    bucket = np.cumsum(np.append(0, ~equal)) if len(filled) else np.zeros(0, dtype=np.int64)
    several = np.append(False, equal) | np.append(equal, False) if len(filled) else np.zeros(0, dtype=bool)
    rows, bucket = filled[order[several]], bucket[several]
    return rows[np.lexsort((rows, bucket))], np.unique(bucket, return_counts=True)[1]


def _within(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of the buckets, its place in its bucket, and the bucket's size."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) - np.repeat(starts, sizes), np.repeat(sizes, sizes)


def _expand(rows: np.ndarray, first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row i with the `count[i]` rows from place `first[i]` on."""
    before = np.cumsum(count) - count
    partner = np.arange(int(count.sum())) + np.repeat(first - before, count)
    return np.repeat(rows, count), rows[partner]
