"""Two registered images compared window by window: what is left of SSIM without its luminance, and where texture is."""

from __future__ import annotations

import numpy as np

from daskim.kernels.registration import detrended

__all__ = ["likeness"]


def likeness(
    template: np.ndarray,
    moved: np.ndarray,
    seen_y: np.ndarray,
    seen_x: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    *,
    c2: float,
    texture: float,
    contrast: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Contrast-structure and structure of registered images, over the windows that lie in the shared part.

    Parameters
    ----------
    template, moved : ndarray, shape (p, y, c, x), float32 or float64
    seen_y, seen_x : ndarray, shape (p, y) and (p, x), bool
        Rows and columns of the template that the moved image shows.
    down, across : ndarray, shape (windows, size)
        From `daskim.kernels.windows.window_matrix`, of the dtype of the images.
    c2, texture : float
        Of the channels' sum: SSIM's second constant; the squared variance below which a window hardly counts.
    contrast : (float, float)
        Contrast ratios that are matched.

    Returns
    -------
    cs, structure : ndarray, shape (p,), float64
        Means over the windows, the second weighted by texture.
    """
    p, height, channels, width = template.shape
    dtype = template.dtype
    maps = np.empty((p, height, 2 * channels + 3, width), dtype=dtype)
    maps[:, :, :channels] = detrended(template)
    maps[:, :, channels : 2 * channels] = detrended(moved)
    one, other = maps[:, :, :channels], maps[:, :, channels : 2 * channels]
    for at, (a, b) in enumerate(((one, one), (other, other), (one, other))):
        np.einsum("pycx,pycx->pyx", a, b, out=maps[:, :, 2 * channels + at])
    rows = np.matmul(down, maps.reshape(p, height, -1)).reshape(p, -1, width)
    mean = np.matmul(rows, across.T).reshape(p, len(down), -1, len(across))
    one, other = mean[:, :, :channels], mean[:, :, channels : 2 * channels]
    products = [np.einsum("pycx,pycx->pyx", a, b) for a, b in ((one, one), (other, other), (one, other))]
    variance, variance_moved, covariance = (mean[:, :, 2 * channels + at] - products[at] for at in range(3))
    inside = np.matmul(seen_y.astype(dtype), down.T)[:, :, None] * np.matmul(seen_x.astype(dtype), across.T)[:, None, :]
    whole = (inside > 1 - 1e-3).astype(dtype)
    variance, variance_moved = np.maximum(variance, 0) * whole, np.maximum(variance_moved, 0) * whole
    covariance = covariance * whole
    # the contrast of the moved image as a whole is matched; twice that ratio and more stays different
    gain = np.sqrt(variance.sum(axis=(1, 2)) / np.maximum(variance_moved.sum(axis=(1, 2)), dtype.type(1e-3)))
    gain = np.clip(gain, *map(dtype.type, contrast))[:, None, None]
    covariance *= gain
    variance_moved *= gain * gain
    size = np.maximum(whole.sum(axis=(1, 2), dtype=np.float64), 1)
    cs = ((2 * covariance + dtype.type(c2)) / (variance + variance_moved + dtype.type(c2)) * whole).sum(
        axis=(1, 2), dtype=np.float64
    ) / size
    both = np.sqrt(variance * variance_moved)
    weight = np.sqrt(both)
    for each in (variance, variance_moved):
        each *= each
        weight *= each / (each + dtype.type(texture))
    structure = (covariance / np.maximum(both, dtype.type(1e-6)) * weight).sum(axis=(1, 2), dtype=np.float64)
    return cs, structure / np.maximum(weight.sum(axis=(1, 2), dtype=np.float64), 1e-3)
