"""Multi-scale SSIM.

Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity for image quality assessment" (Asilomar 2003),
equation 7: contrast and structure of each scale, halved from one to the next by averaging 2 x 2 pixels, and luminance
of the coarsest,

    MS-SSIM = l_M^w_M  product over j = 1 .. M of cs_j^w_j,    w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333

with the mean of l cs over the windows in the place of l_M cs_M, as in the authors' own code; by channel, then averaged.

Five scales of the 11-tap window need images of 176 pixels. A smaller image has as many scales as the window fits into
(`scales`: 2 at 32 x 32) and the exponents of those divided by their sum; one smaller than the window has one scale and
the largest odd window. A negative mean of cs (l cs) has no real power and counts as 0. Small powers magnify rounding
near 0: float32 is accurate to 1e-6 only away from there.

Range 0 to 1; identical images 1.
Threshold 0.8: of the judged pairs of CIFAR-10 at 32x32 0.95 of those above it are near-duplicates, 0.50 of all
near-duplicates are; 2 of 2,023,680 random pairs are, and of small things in the sky a few.
Cost, measured at 32x32x3 on one core: 23 us a pair (17 in float32), 36 us once for an image.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from daskim.kernels.ssim import Moments, StructuralSimilarity
from daskim.kernels.windows import SeparableWindow, gaussian_taps, uniform_taps, window_matrix
from daskim.similarities import Parts

__all__ = ["PLUGIN", "MultiScaleSsim"]

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


class MultiScaleSsim:
    """See `daskim.similarities`.

    Parameters
    ----------
    shape : (h, w, c)
    scales : int, 1 to 5
        At most; see above.
    sigma : float
        Of the Gaussian window, in pixels of each scale.
    radius : int
        Taps on each side of its middle.
    data_range : float
        Grey levels between black and white.
    k1, k2 : float
        C1 = (k1 data_range)^2, C2 = (k2 data_range)^2.

    Attributes
    ----------
    scales : int
        Scales that this shape has.
    """

    lowest = 0.0
    threshold = 0.8
    of: Literal["pixels", "coefficients"] = "pixels"
    reports: tuple[str, ...] = ()
    screens = False

    def __init__(
        self,
        shape: tuple[int, ...],
        scales: int = 5,
        sigma: float = 1.5,
        radius: int = 5,
        data_range: float = 255.0,
        k1: float = 0.01,
        k2: float = 0.03,
    ) -> None:
        h, w, c = shape
        taps = gaussian_taps(sigma, min(radius, (min(h, w) - 1) // 2))
        self._ssim: list[StructuralSimilarity] = []
        self._halve: list[SeparableWindow] = []
        held = room = 0
        while not self._ssim or (len(self._ssim) < min(scales, len(EXPONENTS)) and 2 * radius < min(h, w)):
            window = SeparableWindow(window_matrix(h, taps, "valid"), window_matrix(w, taps, "valid"))
            self._ssim.append(StructuralSimilarity(window, (k1 * data_range) ** 2, (k2 * data_range) ** 2))
            half = uniform_taps(2)
            halve = SeparableWindow(window_matrix(h, half, "reflect", 2), window_matrix(w, half, "reflect", 2))
            self._halve.append(halve)
            windows = c * window.shape[0] * window.shape[1]
            held += 2 * (c * h * w + 2 * windows + c)
            room = max(room, c * h * (w + window.shape[1]) + 5 * windows + 2 * c)
            h, w = halve.shape
        self.scales = len(self._ssim)
        exponents = np.array(EXPONENTS[: self.scales])
        self._exponents = exponents / exponents.sum()
        self.batch = max(1, 2**20 // (8 * held))
        self.pair_bytes = 8 * (held + room + c * self.scales + 64)
        self.versions = {"ms_ssim": "1"}

    def parts(self, images: np.ndarray, dtype: DTypeLike) -> Parts:
        """The four `daskim.kernels.ssim.Moments` of each scale, finest first, of images (b, h, w, c) uint8."""
        found: list[np.ndarray] = []
        scaled = images.transpose(0, 3, 1, 2).astype(np.float64)
        for ssim, halve in zip(self._ssim, self._halve):
            found += ssim.moments(scaled, dtype)
            scaled = halve(scaled)
        return tuple(found)

    def compare(self, left: Parts, right: Parts) -> NDArray[np.float64]:
        """MS-SSIM of pairs, shape (p, 1)."""
        product = np.ones((left[0].shape[0], left[0].shape[1]))
        for scale, (ssim, exponent) in enumerate(zip(self._ssim, self._exponents)):
            here = slice(4 * scale, 4 * scale + 4)
            last = scale == self.scales - 1
            mean = (ssim.similarity if last else ssim.structure)(Moments(*left[here]), Moments(*right[here]))
            product *= np.maximum(mean, 0.0) ** exponent
        return np.minimum(product.mean(axis=1, keepdims=True), 1.0)


PLUGIN = MultiScaleSsim
