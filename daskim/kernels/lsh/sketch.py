"""One bit of each number of a signature: enough to tell pairs that met by chance (b-bit min-wise hashing, b = 1)."""

from __future__ import annotations

import math

import numpy as np

from daskim.kernels.lsh.choice import Bands

__all__ = ["agreement", "kept_recall", "least_agreement", "sketches"]

# Odd: its product spreads small numbers, as the least hash values of sets are, over all 32 bits. The highest one tells
# different numbers apart in half of the cases.
SPREAD = np.uint32(0x9E3779B1)
# Pairs whose sketches are gathered at a time: a few MB.
PIECE = 65_536


def sketches(signatures: np.ndarray) -> np.ndarray:
    """A bit of each number.

    Parameters
    ----------
    signatures : ndarray, shape (..., K), uint32

    Returns
    -------
    ndarray, shape (..., ceil(K / 8)), uint8

    References
    ----------
    Li and Koenig 2010, b-bit minwise hashing.
    """
    return np.packbits((signatures * SPREAD) >> np.uint32(31) != 0, axis=-1)


def agreement(left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray, k: int) -> np.ndarray:
    """How many of the k bits of left[i] and right[j] are equal: about k (1 + J) / 2; shape (p,), int64."""
    equal = np.empty(len(i), dtype=np.int64)
    for start in range(0, len(i), PIECE):
        part = slice(start, start + PIECE)
        equal[part] = k - np.bitwise_count(left[i[part]] ^ right[j[part]]).sum(axis=1, dtype=np.int64)
    return equal


def least_agreement(jaccard: float, k: int) -> int:
    """Equal bits of k that are expected at a Jaccard similarity; at similarity 0 none are asked for."""
    return math.ceil(k * (1 + jaccard) / 2) if jaccard > 0 else 0


def kept_recall(bands: Bands, similarity: float, least: int) -> float:
    """Share of the pairs at a Jaccard similarity that meet in some band, and agree in at least so many bits.

    As if bits and bands were independent. A band that is equal has equal bits, so it is a little more.
    """
    from scipy.stats import binom

    return bands.recall * float(binom.sf(least - 1, bands.permutations, (1 + similarity) / 2))
