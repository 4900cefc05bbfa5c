"""A thumbnail as a set: the signs and positions of its largest Haar coefficients."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["mirrored_tokens", "signed_top_coefficients"]

# Thumbnails at a time: their coefficients (2 MB at 32 x 32) stay in the cache.
ROWS = 256


def signed_top_coefficients(luma: np.ndarray, count: int = 40) -> np.ndarray:
    """The signs and positions of the largest Haar coefficients of thumbnails.

    Parameters
    ----------
    luma : ndarray, shape (b, side, side), uint8 or float, grey levels within -255 to 255
        `side` a power of two, 2 to 2048. Floats are rounded to 1/1024 grey level (coarser above side 64): then
        coefficients are whole numbers, and ties and zeros are exact.
    count : int
        Tokens of an image, at most side^2 - 1.

    Returns
    -------
    ndarray, shape (b, count), int64
        2 * position + (1 where the coefficient is negative), largest magnitude first, ties by position; -1 where fewer
        coefficients than `count` differ from 0. Positions run as in `pywt.wavedec2` (cA, cH, cV, cD of the deepest
        level, ..., cD of the first), row by row, but a row's columns in the order first, last, second, last but
        one, ...: so a coefficient and its mirror image are neighbours.

    Raises
    ------
    ValueError
        Thumbnails of another shape, levels out of range or not finite, a count out of range.

    References
    ----------
    Jacobs, Finkelstein, Salesin, "Fast multiresolution image querying", SIGGRAPH 1995, section 3.
    """
    side = luma.shape[-1]
    levels = side.bit_length() - 1
    if luma.ndim != 3 or luma.shape[1] != side or side != 2**levels or not 1 <= levels <= 11:
        raise ValueError(f"thumbnails of shape {luma.shape[1:]}; the sides must be one power of two, 2 to 2048")
    if not 1 <= count < side * side:
        raise ValueError(f"{count} coefficients of {side} x {side}; 1 to {side * side - 1} are possible")
    found = np.empty((luma.shape[0], count), dtype=np.int64)
    for start in range(0, luma.shape[0], ROWS):
        values = _haar(_whole(luma[start : start + ROWS], levels), levels)
        keys = np.abs(values)
        # Magnitude, then the smaller position, then the sign: keys are distinct, so any partition gives one answer.
        keys <<= 2 * levels + 1
        keys |= 2 * np.arange(side * side - 1, -1, -1) + (values < 0)
        keys[:, 0] = 0
        top = np.partition(keys, side * side - count, axis=1)[:, -count:]
        top.sort(axis=1)
        top = top[:, ::-1]
        low = top & (2 * side * side - 1)
        tokens = 2 * (side * side - 1 - (low >> 1)) + (low & 1)
        found[start : start + ROWS] = np.where(top >> (2 * levels + 1) > 0, tokens, -1)
    return found


def _whole(luma: np.ndarray, levels: int) -> np.ndarray:
    """Pixels as int32 whose sums over the whole thumbnail, times 2^levels, stay in range."""
    if luma.dtype == np.uint8:
        return luma.astype(np.int32)
    if not (np.abs(luma) <= 255).all():
        raise ValueError("luma that is not finite or not within -255 to 255 grey levels")
    return np.rint(luma * np.float32(2 ** min(10, 22 - 2 * levels))).astype(np.int32)


def _haar(pixels: np.ndarray, levels: int) -> np.ndarray:
    """2^levels times the orthonormal Haar coefficients in the order of positions; shape (b, side^2), int64."""
    out = np.empty((pixels.shape[0], 4**levels), dtype=np.int64)
    for done in range(levels):
        a, b = pixels[:, 0::2, 0::2], pixels[:, 0::2, 1::2]
        c, d = pixels[:, 1::2, 0::2], pixels[:, 1::2, 1::2]
        above, below, left, right = a + b, c + d, a - b, c - d
        side = a.shape[1]
        details = out[:, side * side : 4 * side * side].reshape(-1, 3, side, side)
        for at, band in enumerate((above - below, left + right, left - right)):
            half = (side + 1) // 2
            details[:, at, :, 0::2] = band[:, :, :half]
            details[:, at, :, 1::2] = band[:, :, : half - 1 if side == 1 else -half - 1 : -1]
        details <<= levels - 1 - done
        pixels = above + below
    out[:, 0] = pixels[:, 0, 0]
    return out


def mirrored_tokens(tokens: np.ndarray, side: int = 32) -> np.ndarray:
    """The tokens of the left-right mirrored thumbnails, without another transform.

    A mirrored coefficient moves to the mirrored column of its band, and changes its sign in cV and cD (which take right
    from left). Where equal magnitudes meet at the cut, one token of an image can differ from those that
    `signed_top_coefficients` finds in the mirrored pixels, never more.

    Parameters
    ----------
    tokens : ndarray, int
        As `signed_top_coefficients` gives them; -1 stays.
    side : int
        Of the thumbnails.
    """
    return _mirror(side)[tokens]


@lru_cache(maxsize=4)
def _mirror(side: int) -> np.ndarray:
    """The mirrored form of every token, and -1 at the end for the index -1."""
    position = np.arange(side * side)
    # Bands of one column (positions 0 to 3) stay; above, first and last columns lie side by side.
    there = np.where(position < 4, position, position ^ 1)
    # Level by level, side s: cH from s^2, cV from 2 s^2, cD from 3 s^2.
    s = 2 ** (np.frexp(np.sqrt(np.maximum(position, 1)))[1] - 1)
    turned = (position >= 2 * s * s).astype(np.int64)
    whole = 2 * np.repeat(there, 2) + (np.tile([0, 1], side * side) ^ np.repeat(turned, 2))
    return np.append(whole, -1)
