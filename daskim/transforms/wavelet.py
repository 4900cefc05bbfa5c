"""Separable discrete wavelets by PyWavelets; Haar (db1) in whole numbers.

Each channel is transformed by itself, with periodization, which keeps an orthonormal wavelet orthonormal and the
number of coefficients that of the pixels. Sides that 2^level does not divide are first extended by repeating the last
row or column. The columns of an image: for each channel, cA of the last level, then cH, cV, cD from the last level to
the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pywt

from daskim.errors import SettingsError, nearest
from daskim.kernels.haar import haar_bands, haar_bound, haar_dtype, integer_haar

__all__ = ["PLUGIN", "Wavelet"]

DETAILS = ("cH", "cV", "cD")
# Images at a time: their pixels and coefficients stay in the cache.
SLICE = 256


class Wavelet:
    """See `daskim.transforms`.

    Parameters
    ----------
    shape : (h, w, c)
    name : str
        Any discrete wavelet of PyWavelets.
    level : int, 0 to 9
    bands : {"auto", "all", "coarse"}
        auto keeps the coarsest bands whose columns number at most `max_columns`, over all channels; where not even the
        approximation fits, it takes more levels. coarse keeps the approximation alone.
    max_columns : int
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        name: str = "db1",
        level: int = 1,
        bands: str = "auto",
        max_columns: int = 4096,
    ) -> None:
        if name not in pywt.wavelist(kind="discrete"):
            raise SettingsError(
                f"wavelets.name = {name!r}: no discrete wavelet", nearest(name, pywt.wavelist(kind="discrete"))
            )
        self.name, self.shape = name, shape
        self.versions = {"pywavelets": pywt.__version__}
        self.notes: list[str] = []
        self.level = self._deepen(level, max_columns) if bands == "auto" else level
        self._haar = name in ("db1", "haar")
        if self._haar and haar_bound(self.level) >= 2**30:
            raise SettingsError(f"wavelets.level = {self.level} is too deep for whole numbers", "Use level 9 or less.")
        self.padded = _padded(shape, self.level)
        if self.padded != shape[:2]:
            self.notes.append(
                f"{shape[0]}x{shape[1]} is extended to {self.padded[0]}x{self.padded[1]}: level {self.level} needs "
                f"sides that are multiples of {2**self.level}"
            )
        self._bands = self._choose(bands, max_columns)
        self.columns = shape[2] * sum(rows * columns for _, _, rows, columns in self._bands)
        self.exact = self._haar
        self.dtype = haar_dtype(self.level) if self._haar else np.dtype(np.float32)
        self.scale = 2.0**-self.level if self._haar else 1.0
        self.bound = float(haar_bound(self.level)) if self._haar else 255.0 * 4**self.level

    def _deepen(self, level: int, max_columns: int) -> int:
        asked = level
        while _approximation(self.shape, level) > max_columns:
            level += 1
        if level != asked:
            self.notes.append(
                f"level {level} instead of {asked}: at {self.shape[0]}x{self.shape[1]} the approximation has at most "
                f"{max_columns} columns only from there (wavelets.max_columns)"
            )
        return level

    def _choose(self, bands: str, max_columns: int) -> list[tuple[str, int, int, int]]:
        """(band, level, rows, columns) of the bands that are kept, coarsest first."""
        height, width = self.padded
        last = self.level
        kept = [("cA", last, height >> last, width >> last)]
        left_out: list[int] = []
        total = self.shape[2] * kept[0][2] * kept[0][3]
        for j in range(last, 0, -1):
            size = 3 * self.shape[2] * (height >> j) * (width >> j)
            if bands == "all" or (bands == "auto" and total + size <= max_columns and not left_out):
                kept += [(detail, j, height >> j, width >> j) for detail in DETAILS]
                total += size
            else:
                left_out.append(j)
        if left_out:
            self.notes.append(
                f"kept {total} of {self.shape[2] * height * width} coefficients: the details of level "
                f"{', '.join(map(str, left_out))} are left out (wavelets.bands = {bands})"
            )
        return kept

    def table(self) -> dict[str, list[Any]]:
        """Channel, band and level of every column."""
        out: dict[str, list[Any]] = {"channel": [], "band": [], "level": []}
        for channel in range(self.shape[2]):
            for band, level, rows, columns in self._bands:
                out["channel"] += [channel] * (rows * columns)
                out["band"] += [band] * (rows * columns)
                out["level"] += [level] * (rows * columns)
        return out

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Coefficients of a block of images, shape (b, h, w, c) uint8 -> (b, columns)."""
        return self._rows(block, self._channel, self.dtype)

    def linear(self, block: np.ndarray) -> np.ndarray:
        """The same sums of whole numbers of any size, exact up to 2^53; only where `exact`.

        Parameters
        ----------
        block : ndarray, shape (b, h, w, c), float64

        Returns
        -------
        ndarray, shape (b, columns), float64
        """
        return self._rows(block, self._sums, np.dtype(np.float64))

    def _rows(
        self, block: np.ndarray, bands_of: Callable[[np.ndarray], list[np.ndarray]], dtype: np.dtype
    ) -> np.ndarray:
        out = np.empty((block.shape[0], self.columns), dtype=dtype)
        for start in range(0, block.shape[0], SLICE):
            part = block[start : start + SLICE]
            rows, columns = self.padded[0] - self.shape[0], self.padded[1] - self.shape[1]
            if rows or columns:
                part = np.pad(part, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")
            at = 0
            for channel in range(self.shape[2]):
                for band in bands_of(part[..., channel]):
                    size = band.shape[1] * band.shape[2]
                    out[start : start + SLICE, at : at + size] = band.reshape(band.shape[0], size)
                    at += size
        return out

    def _sums(self, values: np.ndarray) -> list[np.ndarray]:
        return haar_bands(values, self.level)[: len(self._bands)]

    def _channel(self, pixels: np.ndarray) -> list[np.ndarray]:
        if self._haar:
            return integer_haar(pixels, self.level)[: len(self._bands)]
        bands: list[np.ndarray] = []
        approximation = pixels.astype(np.float64)
        for _ in range(self.level):
            parts = pywt.dwtn(approximation, self.name, mode="periodization", axes=(1, 2))
            approximation = parts["aa"]
            bands = [parts["da"], parts["ad"], parts["dd"], *bands]
        return [approximation, *bands][: len(self._bands)]


def _padded(shape: tuple[int, int, int], level: int) -> tuple[int, int]:
    unit = 2**level
    return -(-shape[0] // unit) * unit, -(-shape[1] // unit) * unit


def _approximation(shape: tuple[int, int, int], level: int) -> int:
    height, width = _padded(shape, level)
    return shape[2] * (height >> level) * (width >> level)


PLUGIN = Wavelet
