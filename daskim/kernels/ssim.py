"""Structural similarity of stacks of images, from the local moments of each image.

Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
similarity" (IEEE TIP 13, 2004), equations 13 to 16. With local means mu, variances s^2 and the covariance s_xy,

    luminance l = (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1)
    contrast and structure cs = (2 s_xy + C2) / (s_x^2 + s_y^2 + C2)

Variances do not change when a constant is taken off an image: a whole number near its mean is, so that float32 does
not lose them in the squares of large grey levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from daskim.kernels.windows import SeparableWindow

__all__ = ["Moments", "StructuralSimilarity"]


class Moments(NamedTuple):
    """What is computed once for an image.

    Attributes
    ----------
    pixels : ndarray, shape (b, c, h, w)
        Minus `level`.
    level : ndarray, shape (b, c, 1, 1), or (b, 1, 1, 1) where the window mixes channels
        A whole number of grey levels.
    mean : ndarray, shape (b, c, oh, ow)
        Of `pixels` in the window.
    spread : ndarray, shape (b, c, oh, ow)
        Half the (biased) variance, and a quarter of C2 / unbias: the sum of those of two images is the denominator of
        cs over 2 unbias.
    """

    pixels: np.ndarray
    level: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


class StructuralSimilarity:
    """SSIM with one window.

    Parameters
    ----------
    window : SeparableWindow
        Its weights sum to 1.
    c1, c2 : float
        C1 and C2, in squared grey levels.
    unbias : float
        What variances and covariances are multiplied by: k / (k - 1) for sample covariances of k pixels.
    """

    def __init__(self, window: SeparableWindow, c1: float, c2: float, unbias: float = 1.0) -> None:
        self.window = window
        self._half_c1, self._c2 = c1 / 2.0, c2 / (2.0 * unbias)

    def moments(self, images: np.ndarray, dtype: DTypeLike) -> Moments:
        """Moments of images of shape (b, c, h, w), any real dtype."""
        pixels = images.astype(np.float64, order="C")
        level = np.rint(pixels.mean(axis=(1, 2, 3) if self.window.channels else (2, 3), keepdims=True))
        pixels -= level
        pixels = pixels.astype(dtype, copy=False)
        mean = self.window(pixels)
        spread = self.window(pixels * pixels)
        spread -= mean * mean
        spread *= 0.5
        spread += self._c2 / 2.0
        return Moments(pixels, level.astype(dtype), mean, spread)

    def similarity(self, left: Moments, right: Moments) -> np.ndarray:
        """Mean of l cs over the windows of each channel, shape (b, c), float64."""
        numerator, denominator, product = self._structure(left, right)
        x, y = left.mean + left.level, right.mean + right.level
        np.multiply(x, y, out=product)
        product += self._half_c1
        numerator *= product
        # mu_x^2 + mu_y^2 = 2 mu_x mu_y + (mu_x - mu_y)^2: exactly l = 1 for equal means.
        x -= y
        x *= x
        x *= 0.5
        product += x
        denominator *= product
        return _mean_ratio(numerator, denominator)

    def structure(self, left: Moments, right: Moments) -> np.ndarray:
        """Mean of cs over the windows of each channel, shape (b, c), float64."""
        numerator, denominator, _ = self._structure(left, right)
        return _mean_ratio(numerator, denominator)

    def _structure(self, left: Moments, right: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numerator and denominator of cs, both over 2 unbias, and room for one map more."""
        numerator = self.window(left.pixels * right.pixels)
        product = left.mean * right.mean
        numerator -= product
        numerator += self._c2
        return numerator, left.spread + right.spread, product


def _mean_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator /= denominator
    return numerator.reshape(*numerator.shape[:2], -1).mean(axis=2, dtype=np.float64)
