"""Oriented band-pass filters by the Fourier transform: a complex steerable pyramid.

J. Portilla, E. P. Simoncelli, "A parametric texture model based on joint statistics of complex wavelet coefficients"
(IJCV 40, 2000), section 2.1 and its equations for the radial and angular parts. With r the frequency in radians per
pixel, the low-pass of level s falls from 1 at r = pi / 2^(s + 1) to 0 at pi / 2^s,

    low_s(r) = cos(pi / 2 log2(2^(s + 1) r / pi)),   high_s = sqrt(1 - low_s^2)
    band (s, k), s = 1 .. levels: low_{s-1} high_s times 2 a cos(angle - pi k / K)^(K - 1), on one half plane

so that real parts, and the residuals high_0 and low_levels, hold the energy of the image exactly once.
"""

from __future__ import annotations

from math import factorial, pi

import numpy as np
from scipy import fft

__all__ = ["Steerable"]


class Steerable:
    """Bands of stacks of images of one size, mirrored beyond the border.

    Parameters
    ----------
    size : (h, w)
    levels : int, 1 or more
    orientations : int, 2 or more
    decimate : bool
        Level s at every 2^(s-1)-th pixel, which loses nothing; or every level at every pixel.
    margin : int, optional
        Pixels of mirror on each side: at least so many, by default two samples of the coarsest level. The Fourier
        transform continues an image periodically, and what is not alike at opposite borders would show as an edge.

    Attributes
    ----------
    sizes : list of (h, w)
        Sides of the bands of level 1, 2, ...

    Raises
    ------
    ValueError
        Too few levels or orientations.
    """

    def __init__(
        self, size: tuple[int, int], levels: int, orientations: int, *, decimate: bool, margin: int | None = None
    ) -> None:
        if levels < 1 or orientations < 2:
            raise ValueError(f"{levels} levels in {orientations} orientations; at least 1 and 2")
        unit = 2 ** (levels - 1)
        margin = 2 * unit if margin is None else -(-margin // unit) * unit
        self.size, self.margin = size, margin
        self._padded = tuple(unit * fft.next_fast_len(-(-(side + 2 * margin) // unit)) for side in size)
        self._steps = [2**s if decimate else 1 for s in range(levels)]
        self.sizes = [(-(-size[0] // step), -(-size[1] // step)) for step in self._steps]
        y, x = (2 * pi * fft.fftfreq(side) for side in self._padded)
        radius, angle = np.hypot(y[:, None], x), np.arctan2(y[:, None], x)
        turned = [_angular(angle - pi * k / orientations, orientations) for k in range(orientations)]
        self._bands = []
        for s, step in enumerate(self._steps, start=1):
            radial = _low(radius, s - 1) * _high(radius, s)
            kept = self._kept(step)
            # The inverse transform divides by the number of samples it gives: 1 / step^2 of those that came in.
            self._bands.append(np.stack([radial * part for part in turned])[(slice(None), *kept)] / step**2)
        # Both are even in the frequency, hence real in the image: one transform carries both, as real and imaginary.
        self._residuals = _high(radius, 0) + 1j * _low(radius, levels)

    def bands(self, maps: np.ndarray) -> list[np.ndarray]:
        """Complex bands of `maps` (b, c, h, w) float32 or float64: for each level (b, c, orientations, *sizes[s])."""
        spectrum = self._spectrum(maps)
        found = []
        for step, filters, size in zip(self._steps, self._bands, self.sizes):
            low = spectrum if step == 1 else spectrum[(..., *self._kept(step))]
            coefficients = fft.ifft2(low[:, :, None] * filters.astype(maps.dtype), overwrite_x=True)
            found.append(self._cropped(coefficients, step, size))
        return found

    def residuals(self, maps: np.ndarray) -> np.ndarray:
        """What is finer and what is coarser than all bands, real, shape (b, c, 2, h, w)."""
        spectrum = self._spectrum(maps)
        both = self._cropped(fft.ifft2(spectrum * self._residuals.astype(spectrum.dtype)), 1, self.size)
        return np.stack([both.real, both.imag], axis=2)

    def _spectrum(self, maps: np.ndarray) -> np.ndarray:
        around = [(self.margin, padded - side - self.margin) for padded, side in zip(self._padded, self.size)]
        return fft.fft2(np.pad(maps, [(0, 0), (0, 0), *around], mode="symmetric"))

    def _kept(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the frequencies that every step-th sample can hold, as rows and columns."""
        rows, columns = (np.rint(fft.fftfreq(side // step) * (side // step)).astype(int) for side in self._padded)
        return rows[:, None], columns[None, :]

    def _cropped(self, maps: np.ndarray, step: int, size: tuple[int, int]) -> np.ndarray:
        first = self.margin // step
        return maps[..., first : first + size[0], first : first + size[1]]


def _low(radius: np.ndarray, s: int) -> np.ndarray:
    # A radius of zero has no logarithm; everything below 1 is where the low-pass is 1.
    octaves = np.log2(np.maximum(radius * 2 ** (s + 1) / pi, 1.0))
    return np.cos(pi / 2 * np.minimum(octaves, 1.0))


def _high(radius: np.ndarray, s: int) -> np.ndarray:
    octaves = np.log2(np.maximum(radius * 2 ** (s + 1) / pi, 1.0))
    return np.sin(pi / 2 * np.minimum(octaves, 1.0))


def _angular(angle: np.ndarray, orientations: int) -> np.ndarray:
    """2 a cos^(K-1) where the cosine is positive; a makes the squares of all orientations' real parts sum to 1."""
    order = orientations - 1
    a = 2**order * factorial(order) / np.sqrt(orientations * factorial(2 * order))
    return 2 * a * np.maximum(np.cos(angle), 0.0) ** order
