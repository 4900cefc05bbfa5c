"""Band-limited, cone-adapted shearlets on a pixel grid: a Parseval frame of windows in frequency.

The frequency plane is cut into rings by scale, |w|_inf from 2^-(level+1) to 2^-(level-1) of the Nyquist frequency, and
each ring into 4 K wedges by slope: K = ceil(2^(j/2)) shears to either side in the horizontal and in the vertical cone,
the two shears at the seam of the cones being one. All cuts overlap smoothly (Meyer), and the squares of all windows sum
to 1. A wedge is so narrow that its part of the spectrum, taken modulo a small period in each direction, does not
overlap itself: the inverse transform of that period gives the shearlet coefficients on a coarser grid without aliasing.
So the decimated system has the frame bounds of the windows, A = B = 1, and its coefficients the energy of the image.

Kutyniok, Labate (editors), "Shearlets: multiscale analysis for multivariate data", 2012, chapter 1 (cone-adapted
discrete shearlets, the classical band-limited generator). Guo, Labate, "The construction of smooth Parseval frames of
shearlets", 2013, joins the shearlets at the seam. Two liberties: the shear step is 1/K, so that shears meet at the seam
for odd j too; and frequencies without a mirror image (Nyquist's, of even sides) are a band of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft

__all__ = [
    "Window",
    "coefficients",
    "deepest_level",
    "frame_bounds",
    "low_window",
    "ring_frequencies",
    "ring_windows",
    "shearlet_windows",
]


@dataclass(frozen=True)
class Window:
    """One shearlet, or the low-pass, at all its positions.

    Attributes
    ----------
    band : str
        low; h+k, h-k and v+k, v-k: the shears k of the cones; d+, d-: the seams; nyquist: what has no mirror frequency.
    level : int
        1 = finest; the low-pass has that of the coarsest.
    period : (rows, columns)
        Grid of the coefficients.
    source, target : ndarray, shape (p,), int64
        Flat index of each frequency in the image's spectrum, and in that of the period; each target once.
    weight : ndarray, shape (p,), float64
        The window there.
    """

    band: str
    level: int
    period: tuple[int, int]
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray


def deepest_level(height: int, width: int) -> int:
    """Number of rings that hold a frequency; 0 where no side has more than 2 pixels."""
    level = 0
    while max(height, width) > 2 * 2**level:
        level += 1
    return level


def ring_frequencies(height: int, width: int, ring: int) -> int:
    """Number of frequencies in a ring: its coefficients are at least as many."""
    outer = [len(_inside(side, ring)[0]) for side in (height, width)]
    inner = [int((np.abs(_inside(side, ring)[1]) <= 2.0 ** -(ring + 1)).sum()) for side in (height, width)]
    return math.prod(outer) - math.prod(inner)


def low_window(height: int, width: int, level: int) -> Window:
    """The low-pass below `level` rings; at level 0 the image itself."""
    (rows, y), (columns, x) = _inside(height, level + 1), _inside(width, level + 1)
    return _window("low", level, _low(y[:, None], x[None], level), rows, columns, (height, width))


def ring_windows(height: int, width: int, ring: int) -> list[Window]:
    """The shearlets of one ring, 1 = the finest; those without a frequency are left out."""
    (rows, y), (columns, x) = _inside(height, ring), _inside(width, ring)
    y, x = np.meshgrid(y, x, indexing="ij")
    # A frequency of -1 has no mirror image on the grid, so no wedge can hold it and stay real.
    mirrored = (x > -1) & (y > -1)
    scale = (_low(y, x, ring - 1) - _low(y, x, ring)) * mirrored
    squares = [(name, scale * wedge) for name, wedge in _wedges(y, x, _shears(height, width, ring))]
    if ring == 1:
        squares += [("nyquist", 1.0 * (y == -1)), ("nyquist", 1.0 * ((x == -1) & (y > -1)))]
    return [_window(name, ring, square, rows, columns, (height, width)) for name, square in squares if square.any()]


def shearlet_windows(height: int, width: int, level: int, finest: int = 1) -> list[Window]:
    """The system for images of one size.

    Parameters
    ----------
    height, width : int
        Pixels.
    level : int
        The coarsest ring.
    finest : int
        The finest ring, level + 1 for none. With 1 the squares of all windows sum to 1 at every frequency.

    Returns
    -------
    list of Window
        The low-pass, then ring after ring from the coarsest.
    """
    rings = (window for ring in range(level, finest - 1, -1) for window in ring_windows(height, width, ring))
    return [low_window(height, width, level), *rings]


def frame_bounds(windows: list[Window], frequencies: int) -> tuple[float, float]:
    """A and B with A |f|^2 <= sum |coefficients|^2 <= B |f|^2 for every image of `frequencies` pixels.

    No window overlaps itself in its period, so the frame operator of the decimated system is diagonal in frequency: the
    sum of the squared windows, whose smallest and largest values are the bounds.
    """
    total = np.zeros(frequencies)
    for window in windows:
        total[window.source] += window.weight**2
    return float(total.min()), float(total.max())


def coefficients(images: np.ndarray, windows: list[Window]) -> Iterator[np.ndarray]:
    """Inner products of images with all shearlets.

    Parameters
    ----------
    images : ndarray, shape (b, height, width)
        Of the size that the windows are made for.

    Yields
    ------
    ndarray, shape (b, rows * columns), float64
        For each window, on the grid of its period.
    """
    count = images.shape[0]
    spectrum = scipy.fft.fft2(images.astype(np.float64), norm="ortho").reshape(count, -1)
    for window in windows:
        part = np.zeros((count, math.prod(window.period)), dtype=np.complex128)
        part[:, window.target] = spectrum[:, window.source] * window.weight
        grid = part.reshape(count, *window.period)
        yield scipy.fft.ifft2(grid, norm="ortho", overwrite_x=True).real.reshape(count, -1)


def _inside(side: int, ring: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices in the FFT's order, and frequencies in units of Nyquist's, below the outer edge of a ring.

    -1 is a frequency only where the side is even.
    """
    frequencies = 2.0 * scipy.fft.fftfreq(side)
    index = np.flatnonzero((np.abs(frequencies) < 2.0 ** (1 - ring)) | (ring <= 1))
    return index, frequencies[index]


def _fall(x: np.ndarray) -> np.ndarray:
    """Square of Meyer's window: 1 up to 0, 0 from 1 on, and _fall(x) + _fall(1 - x) = 1."""
    t = np.clip(x, 0.0, 1.0)
    return np.where(t < 1, np.cos(np.pi / 2 * t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)) ** 2, 0.0)


def _low(y: np.ndarray, x: np.ndarray, level: int) -> np.ndarray:
    """Square of the separable low-pass: 1 up to 2^-(level+1), 0 from 2^-level on; 1 everywhere at level 0."""
    if level == 0:
        return np.ones(np.broadcast_shapes(y.shape, x.shape))
    return _fall(np.abs(y) * 2.0 ** (level + 1) - 1) * _fall(np.abs(x) * 2.0 ** (level + 1) - 1)


def _shears(height: int, width: int, ring: int) -> int:
    """K = ceil(2^(j/2)), parabolic scaling: the ring ends at 2^(j+1) frequencies of the shorter side."""
    outer = max(2.0, min(height, width) / 2.0**ring)
    return math.ceil(2.0 ** ((math.floor(math.log2(outer)) - 1) / 2))


def _wedges(y: np.ndarray, x: np.ndarray, shears: int) -> list[tuple[str, np.ndarray]]:
    """Names and squared windows of the 4 K directions."""
    horizontal = np.abs(x) >= np.abs(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        # -1 to 1 in the horizontal cone, 1 to 3 in the vertical one; 3 and -1 are one direction
        slope = np.nan_to_num(np.where(horizontal, y / x, 2.0 - x / y))
    names = [f"h{s:+d}" for s in range(1 - shears, shears)]
    names += ["d+", *(f"v{s:+d}" for s in range(shears - 1, -shears, -1)), "d-"]
    at = shears * slope
    turns = [(at - centre + 2 * shears) % (4 * shears) - 2 * shears for centre in range(1 - shears, 3 * shears + 1)]
    return [(name, _fall(np.abs(turn))) for name, turn in zip(names, turns, strict=True)]


def _window(
    band: str, level: int, square: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]
) -> Window:
    """The window on the smaller of two grids: whole along one axis, and folded along the other."""
    i, j = np.nonzero(square)
    y, x = rows[i], columns[j]
    source = y * size[1] + x
    y, x = np.where(2 * y >= size[0], y - size[0], y), np.where(2 * x >= size[1], x - size[1], x)
    height, width = _whole(size[0], y), _whole(size[1], x)
    period = min((height, _folded(width, x, y % height)), (_folded(height, y, x % width), width), key=math.prod)
    return Window(band, level, period, source, y % period[0] * period[1] + x % period[1], np.sqrt(square[i, j]))


def _whole(side: int, k: np.ndarray) -> int:
    """A period in which the frequencies k lie apart."""
    return min(side, 1 if (k == k[0]).all() else 2 * int(np.abs(k).max()) + 1)


def _folded(whole: int, k: np.ndarray, line: np.ndarray) -> int:
    """Smallest period of k in which no two frequencies of one line meet, at most `whole`."""
    for period in range(int(np.bincount(line).max()), whole):
        if np.bincount(line * period + k % period).max() == 1:
            return period
    return whole
