"""Structural texture similarity: statistics of oriented bands are alike, whatever lies where.

J. Zujovic, T. N. Pappas, D. L. Neuhoff, "Structural texture similarity metrics for image analysis and retrieval" (IEEE
TIP 22, 2013), STSIM-2 (equations 6 to 16): for each of the bands of a steerable pyramid of 3 scales and 4 orientations
and its two residuals, the mean mu, the deviation s and the first autocorrelations r(0, 1), r(1, 0), and for pairs of
bands the correlation r of their magnitudes: all pairs of one scale, and neighbouring scales of one orientation.

    l = (2 mu_x mu_y + C0) / (mu_x^2 + mu_y^2 + C0)    c = (2 s_x s_y + C1) / (s_x^2 + s_y^2 + C1)
    correlations: 1 - |r_x - r_y| / 2
    STSIM-2 = mean over 14 bands of (l c c01 c10)^(1/4) and over 26 pairs of bands of their correlation

Our choices. Statistics are those of the whole image (the paper's "global" windows): 82 numbers an image and channel,
so that a pair costs next to nothing. Bands are sampled at every pixel, of the image mirrored beyond its border. For
complex means |mu| is compared. Autocorrelations are divided by the deviations of the two shifted parts rather than by
the variance of the band, which keeps |r| <= 1. C0 = C1 = 1 squared grey level, and as much is added to what divides a
correlation: a band without content has none. Channels are averaged.

Range 0 to 1, and of unlike photographs 0.8 to 0.95; identical images 1, images of one texture near it.
Threshold 0.97: of the judged pairs of CIFAR-10 at 32x32 0.99 of those above it are near-duplicates, 0.46 of all
near-duplicates are; 3 of 2,023,680 random pairs are. Larger images are more alike: at 64x64 take 0.98.
Cost, measured at 32x32x3 on one core: 2 us a pair (1 in float32), 1,500 us once for an image.
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from daskim.errors import SettingsError
from daskim.kernels.steerable import Steerable
from daskim.similarities import Parts

__all__ = ["PLUGIN", "StructuralTexture"]


class StructuralTexture:
    """See `daskim.similarities`.

    Parameters
    ----------
    shape : (h, w, c)
    levels, orientations : int
        Of the pyramid.
    k : float
        C0 and C1, in squared grey levels.

    Raises
    ------
    SettingsError
        Images of one row or column.
    """

    lowest = 0.0
    threshold = 0.97
    of: Literal["pixels", "coefficients"] = "pixels"
    reports: tuple[str, ...] = ()
    screens = False

    def __init__(self, shape: tuple[int, ...], levels: int = 3, orientations: int = 4, k: float = 1.0) -> None:
        h, w, c = shape
        if min(h, w) < 2:
            raise SettingsError(
                f"stsim: pixels of images of {h}x{w} have no neighbours", "Take a larger similarities.size."
            )
        self._k = k
        self._steerable = Steerable((h, w), levels, orientations, decimate=False)
        at = np.arange(levels * orientations).reshape(levels, orientations)
        one_scale = [pair for level in at.tolist() for pair in combinations(level, 2)]
        one_orientation = np.column_stack([at[:-1].ravel(), at[1:].ravel()]).tolist()
        self._pairs = np.array([*one_scale, *one_orientation], dtype=np.int64).reshape(-1, 2)
        self._count = levels * orientations + 2
        numbers = c * (6 * self._count + len(self._pairs))
        self.batch = max(1, 2**20 // (16 * numbers))
        # Both parts, and passing arrays: no more than three of what one part holds.
        self.pair_bytes = 8 * (5 * numbers + 64)
        self.versions = {"stsim": "1"}

    def parts(self, images: np.ndarray, dtype: DTypeLike) -> Parts:
        """Statistics of images (b, h, w, c) uint8.

        |mu| and s of the bands, (b, c, 2, bands); r(0, 1) and r(1, 0) as real and imaginary parts, (b, c, 2, 2, bands);
        correlations of pairs of bands, (b, c, pairs).
        """
        n, h, w, c = images.shape
        moments = np.empty((n, c, 2, self._count), dtype=dtype)
        neighbours = np.empty((n, c, 2, 2, self._count), dtype=dtype)
        magnitudes = np.empty((n, c, len(self._pairs)), dtype=dtype)
        group = max(1, 2**13 // (h * w))  # the bands of one transform stay in the cache
        for channel in range(c):
            for start in range(0, n, group):
                rows = slice(start, start + group)
                found = self._statistics(images[rows, :, :, channel].astype(np.float64), dtype)
                moments[rows, channel], neighbours[rows, channel], magnitudes[rows, channel] = found
        return moments, neighbours, magnitudes

    def compare(self, left: Parts, right: Parts) -> NDArray[np.float64]:
        """STSIM-2 of pairs, shape (p, 1)."""
        difference = left[0] - right[0]
        difference *= difference
        ratio = left[0] * left[0]
        ratio += right[0] * right[0]
        ratio += self._k
        # 2 u v + k = u^2 + v^2 + k - (u - v)^2: exactly 1 for equal ones.
        difference /= ratio
        terms = np.prod(1.0 - difference, axis=2)
        apart = left[1] - right[1]
        apart = np.sqrt(apart[:, :, 0] ** 2 + apart[:, :, 1] ** 2)
        terms *= np.prod(np.maximum(1.0 - 0.5 * apart, 0.0), axis=2)
        total = np.sqrt(np.sqrt(terms)).sum(axis=2, dtype=np.float64)
        total += (1.0 - 0.5 * np.abs(left[2] - right[2])).sum(axis=2, dtype=np.float64)
        return (total / (self._count + len(self._pairs))).mean(axis=1, keepdims=True)

    def _statistics(self, pixels: np.ndarray, dtype: DTypeLike) -> Parts:
        """What `parts` says, of one channel of some images (b, h, w)."""
        level = pixels.mean(axis=(1, 2))
        centred = (pixels - level[:, None, None])[:, None].astype(dtype, copy=False)
        residuals = self._steerable.residuals(centred)[:, 0]
        bands = np.concatenate([*(band[:, 0] for band in self._steerable.bands(centred)), residuals], axis=1)
        size = np.abs(bands[:, :-2]).reshape(len(bands), self._count - 2, -1)
        size -= size.mean(axis=2, keepdims=True)
        mean = bands.mean(axis=(2, 3))
        bands -= mean[:, :, None, None]
        mean[:, -1] += level  # the coarse residual holds it
        power = bands.real**2 + bands.imag**2
        neighbours = np.stack(
            [
                self._correlation(bands[..., :-1], bands[..., 1:], power[..., :-1], power[..., 1:]),
                self._correlation(bands[..., :-1, :], bands[..., 1:, :], power[..., :-1, :], power[..., 1:, :]),
            ],
            axis=1,
        )
        covariance = np.matmul(size, size.transpose(0, 2, 1)) / size.shape[2]
        i, j = self._pairs.T
        spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        magnitudes = covariance[:, i, j] / (spread[:, i] * spread[:, j] + self._k)
        moments = np.stack([np.abs(mean), np.sqrt(power.mean(axis=(2, 3)))], axis=1)
        return moments, np.stack([neighbours.real, neighbours.imag], axis=1), magnitudes

    def _correlation(self, a: np.ndarray, b: np.ndarray, a_power: np.ndarray, b_power: np.ndarray) -> np.ndarray:
        """Of two shifted parts of bands, from their squared magnitudes too; shape (b, bands), complex."""
        product = np.vecdot(b, a).mean(axis=2) / a.shape[3]
        return product / (np.sqrt(a_power.mean(axis=(2, 3)) * b_power.mean(axis=(2, 3))) + self._k)


PLUGIN = StructuralTexture
