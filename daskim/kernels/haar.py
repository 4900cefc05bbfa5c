"""The Haar transform of uint8 images in whole numbers.

For one 2 x 2 square of pixels a b / c d, the orthonormal coefficients are half of a+b+c+d, a+b-c-d, a-b+c-d and
a-b-c+d (PyWavelets' cA, cH, cV, cD). After J levels everything times 2^J is an integer of at most 255 * 4^J, so sums of
products are exact and do not depend on the order in which they are made.
"""

from __future__ import annotations

import numpy as np

__all__ = ["haar_bands", "haar_bound", "haar_dtype", "integer_haar"]


def haar_bound(level: int) -> int:
    """Largest absolute value that `integer_haar` can give."""
    return 255 * 4**level


def haar_dtype(level: int) -> np.dtype:
    """Smallest integer dtype that also holds the difference of two coefficients; ValueError above level 9."""
    if not 0 <= level <= 9:
        raise ValueError(f"level {level} of the integer Haar transform; 0 to 9 are possible")
    return np.dtype(np.int16 if 2 * haar_bound(level) < 2**15 else np.int32)


def integer_haar(images: np.ndarray, level: int) -> list[np.ndarray]:
    """2^level times the orthonormal Haar coefficients, band by band.

    Parameters
    ----------
    images : ndarray, shape (b, h, w), uint8
        h and w divisible by 2^level.
    level : int, 0 to 9

    Returns
    -------
    list of ndarray, shape (b, rows, columns), `haar_dtype(level)`
        [cA_J, cH_J, cV_J, cD_J, cH_{J-1}, ..., cD_1], the order of `pywt.wavedec2`; [pixels] for level 0.

    Raises
    ------
    ValueError
        Pixels of another dtype (the bounds would not hold), sides that 2^level does not divide, a level above 9.
    """
    dtype = haar_dtype(level)
    if images.dtype != np.uint8:
        raise ValueError(f"pixels of dtype {images.dtype}; the integer Haar transform takes uint8")
    # Numpy would broadcast the one missing row of a 3-row image without a word.
    if images.shape[1] % 2**level or images.shape[2] % 2**level:
        raise ValueError(f"images of {images.shape[1]} x {images.shape[2]} do not halve {level} times")
    return haar_bands(images.astype(dtype), level)


def haar_bands(values: np.ndarray, level: int) -> list[np.ndarray]:
    """The sums of `integer_haar` for values of any sign, in the dtype that they have.

    Parameters
    ----------
    values : ndarray, shape (b, h, w), int16, int32, int64 or float64
        Exact where 4^level times the largest is within the dtype (float64: at most 2^53).
    level : int, 0 to 9
    """
    approximation, dtype = values, values.dtype
    bands: list[np.ndarray] = []
    for done in range(level):
        a, b = approximation[:, 0::2, 0::2], approximation[:, 0::2, 1::2]
        c, d = approximation[:, 1::2, 0::2], approximation[:, 1::2, 1::2]
        above, below = a + b, c + d
        left, right = a - b, c - d
        scale = dtype.type(2 ** (level - 1 - done))  # a band of level j carries 2^j by itself
        bands = [(above - below) * scale, (left + right) * scale, (left - right) * scale, *bands]
        approximation = above + below
    return [approximation, *bands]
