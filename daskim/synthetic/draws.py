"""Random numbers that are a function of (seed, stream, row, index) alone, for whole blocks of rows at once.

A counter goes through the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, Figure 17): exact arithmetic modulo
2^64, so neither the order of the rows, nor how they are batched, nor the machine matters. Distributions are tables of
65,536 quantiles, rounded to a multiple of 2^-10, so that the last bits of a logarithm cannot matter either.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["bits", "choose", "log_normal", "normal", "shorts", "uniform"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHORTS = 1 << 16


def _mixed(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def bits(seed: int, stream: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Random 64-bit words, `count` for each row.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64.
    stream : int
        What the numbers are for: streams of one row are independent.
    rows : ndarray, shape (b,), int64, at least 0

    Returns
    -------
    ndarray, shape (b, count), uint64
    """
    with np.errstate(over="ignore"):
        key = _mixed(np.array([seed], dtype=np.uint64) + _GOLDEN) + np.uint64(stream) * _SECOND
        key = _mixed(_mixed(key) + (rows.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        return _mixed(key[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)


def shorts(seed: int, stream: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Random numbers from 0 to 65,535, shape (b, count), uint16."""
    words = bits(seed, stream, rows, -(-count // 4))
    # the byte order is stated, so that the four numbers of a word come in one order everywhere
    return words.astype("<u8", copy=False).view("<u2")[:, :count]


@lru_cache(maxsize=1)
def _normals() -> np.ndarray:
    return _rounded(_quantiles())


def _quantiles() -> np.ndarray:
    from scipy.special import ndtri  # late: the demo does without

    quantiles: np.ndarray = ndtri((np.arange(SHORTS) + 0.5) / SHORTS)
    return quantiles


def _rounded(table: np.ndarray) -> np.ndarray:
    table = (np.rint(table * 1024) / 1024).astype(np.float32)
    table.flags.writeable = False
    return table


def normal(numbers: np.ndarray) -> np.ndarray:
    """Standard normal numbers, at most 4.33 in size, from uint16; float32."""
    return _normals()[numbers]


def uniform(numbers: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers in [low, high) from uint16; float32."""
    return numbers * np.float32((high - low) / SHORTS) + np.float32(low)


@lru_cache(maxsize=32)
def _log_normals(median: float, sigma: float) -> np.ndarray:
    return _rounded(median * np.exp(sigma * _quantiles()))


def log_normal(numbers: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """Log-normal numbers with that median, from uint16; float32."""
    return _log_normals(median, sigma)[numbers]


@lru_cache(maxsize=32)
def _ends(weights: tuple[float, ...]) -> np.ndarray:
    return np.rint(np.cumsum(weights) / sum(weights) * SHORTS).astype(np.int64)


def choose(numbers: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Index into the weights, with probabilities in proportion to them, from uint16; int64."""
    return np.searchsorted(_ends(weights), numbers.astype(np.int64), side="right")
