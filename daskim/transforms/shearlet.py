"""Band-limited shearlets by FFT: a Parseval frame, redundant by 2 to 5, with a direction to every coefficient.

Each channel is transformed by itself. The columns of an image: for each channel, the low-pass, then the shearlets ring
after ring from the coarsest. Where the finest rings are left out, what stays tells of the lower frequencies alone.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import scipy

from daskim.errors import SettingsError
from daskim.kernels.shearlets import (
    Window,
    coefficients,
    deepest_level,
    frame_bounds,
    ring_frequencies,
    shearlet_windows,
)

__all__ = ["PLUGIN", "Shearlet"]

# Images at a time, fewer of large ones: their spectrum in complex128 takes at most 64 MB.
SLICE = 64
SLICE_PIXELS = 2**22
# How far the frame bounds may be from 1.
BOUNDS = 1e-10


class Shearlet:
    """See `daskim.transforms`.

    Parameters
    ----------
    shape : (h, w, c)
    name : {"db1", "meyer"}
        There is one system, with Meyer's windows. db1, the default of the settings, stands for it too, with a note.
    level : int, 1 to 9
        Rings of shearlets; more than the frequencies allow are not made.
    bands : {"auto", "all", "coarse"}
        auto keeps the coarsest rings whose columns number at most `max_columns`, over all channels; where not one
        fits, it takes more levels. coarse keeps the low-pass alone.
    max_columns : int

    Attributes
    ----------
    bounds : (float, float)
        Frame bounds A and B: 1 and 1, or 0 and 1 where rings are left out.
    """

    dtype = np.dtype(np.float32)
    scale = 1.0
    exact = False

    def __init__(
        self,
        shape: tuple[int, int, int],
        name: str = "db1",
        level: int = 1,
        bands: str = "auto",
        max_columns: int = 4096,
    ) -> None:
        if name not in ("db1", "meyer"):
            raise SettingsError(
                f"wavelets.name = {name!r}: shearlets have Meyer's windows, not those of a wavelet",
                "Use wavelets.name = meyer, or wavelets.transform = wavelet.",
            )
        if level < 1:
            raise SettingsError(f"wavelets.level = {level} leaves no shearlets", "Use level 1 or more.")
        self.shape = shape
        self.versions = {"scipy": scipy.__version__}
        self.notes = (
            [] if name == "meyer" else ["wavelets.name = db1 says nothing here: shearlets have Meyer's windows"]
        )
        self.level, self.finest = self._choose(level, bands, max_columns)
        windows = _windows(*shape[:2], self.level, self.finest)
        self.columns = shape[2] * _size(windows)
        self.bounds = self._check(windows)
        self.bound = 255.0 * math.sqrt(shape[0] * shape[1])  # no atom of a Parseval frame is longer than 1

    def _choose(self, asked: int, bands: str, max_columns: int) -> tuple[int, int]:
        """The coarsest and the finest ring; finest = coarsest + 1 for the low-pass alone."""
        height, width, channels = self.shape
        deepest = deepest_level(height, width)
        level = min(asked, deepest)
        if bands == "auto":
            room = max_columns // channels
            while level < deepest and not self._fits(level, level, room):
                level += 1
            finest = level + 1
            while finest > 1 and self._fits(level, finest - 1, room):
                finest -= 1
        else:
            finest = level + 1 if bands == "coarse" else 1
        if level != asked:
            why = "there are no more frequencies" if level < asked else "from there the coarsest ring fits max_columns"
            self.notes.append(f"level {level} instead of {asked} at {height}x{width}: {why}")
        if finest > 1:
            left_out = ", ".join(str(ring) for ring in range(finest - 1, 0, -1))
            self.notes.append(f"the shearlets of level {left_out} are left out (wavelets.bands = {bands})")
        return level, finest

    def _fits(self, level: int, finest: int, room: int) -> bool:
        """The columns of one channel number at most `room`; a finest ring too large is not made to find out."""
        height, width, _ = self.shape
        if ring_frequencies(height, width, finest) > room:
            return False
        return _size(_windows(height, width, level, finest)) <= room

    def _check(self, windows: list[Window]) -> tuple[float, float]:
        """The frame bounds of the columns: A = B = 1; A = 0 where frequencies are left out."""
        height, width, channels = self.shape
        lower, upper = frame_bounds(windows, height * width)
        whole = self.finest == 1
        if abs(upper - 1) > BOUNDS or (whole and abs(lower - 1) > BOUNDS):
            raise ArithmeticError(f"shearlets of {height}x{width}, level {self.level}: frame bounds {lower}, {upper}")
        pixels = channels * height * width
        of = "" if whole else " of the whole system, B = 1 of what is kept"
        redundancy = f"redundancy {self.columns / pixels:.2f}"
        self.notes.append(f"{self.columns} coefficients of {pixels} pixels ({redundancy}), frame bounds A = B = 1{of}")
        return lower, upper

    def table(self) -> dict[str, list[Any]]:
        """Channel, band and level of every column."""
        windows = _windows(*self.shape[:2], self.level, self.finest)
        sizes = [math.prod(window.period) for window in windows]
        bands = [window.band for window, size in zip(windows, sizes) for _ in range(size)]
        levels = [window.level for window, size in zip(windows, sizes) for _ in range(size)]
        channels = self.shape[2]
        return {
            "channel": [channel for channel in range(channels) for _ in bands],
            "band": bands * channels,
            "level": levels * channels,
        }

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Coefficients of a block of images, shape (b, h, w, c) uint8 -> (b, columns) float32."""
        height, width, channels = self.shape
        windows = _windows(height, width, self.level, self.finest)
        out = np.empty((block.shape[0], self.columns), dtype=self.dtype)
        step = max(1, min(SLICE, SLICE_PIXELS // (height * width)))
        for start in range(0, block.shape[0], step):
            at = 0
            for channel in range(channels):
                for part in coefficients(block[start : start + step, ..., channel], windows):
                    out[start : start + step, at : at + part.shape[1]] = part
                    at += part.shape[1]
        return out


@lru_cache(maxsize=8)
def _windows(height: int, width: int, level: int, finest: int) -> list[Window]:
    """Made once a process: they would be large to send."""
    return shearlet_windows(height, width, level, finest)


def _size(windows: list[Window]) -> int:
    return sum(math.prod(window.period) for window in windows)


PLUGIN = Shearlet
