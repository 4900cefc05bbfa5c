"""Pairs registered level by level and compared, with the compiled kernels: what of a pair is needed stays in the cache.

Importing this file imports numba.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from daskim.kernels.compiled.starts import start
from daskim.kernels.compiled.steps import look_ups, settle
from daskim.kernels.compiled.templates import cells, inverses
from daskim.kernels.compiled.windows import alike
from daskim.kernels.registration import Motion, positions

__all__ = ["Cells", "Level", "begin", "windows"]

# What the interpolation of the pairs that are compared together takes, bytes.
LOOK_UPS = 2**20


class Cells:
    """Averages over cells, as `cell_means`, less the mean of each channel.

    Parameters
    ----------
    down, across : ndarray, shape (cells, size), float32
        From `cell_weights`.
    grey : bool
        Average the channels as well.
    """

    def __init__(self, down: np.ndarray, across: np.ndarray, *, grey: bool = False) -> None:
        self.down, self.across, self.grey = down, across, grey
        self.down_at, self.across_at = _used(down), _used(across)

    def __call__(self, pixels: np.ndarray) -> NDArray[np.float32]:
        """Of images (n, y, c, x) uint8."""
        return cells(pixels, self.down, self.across, self.down_at, self.across_at, self.grey)


def _used(weights: np.ndarray) -> NDArray[np.int64]:
    """The range of each row of a banded matrix that is not 0."""
    some = weights != 0
    return np.stack([some.argmax(axis=1), weights.shape[1] - some[:, ::-1].argmax(axis=1)], axis=1)


@dataclass(frozen=True)
class Level:
    """A size of the images at which pairs are registered.

    Attributes
    ----------
    images : Cells
        What makes the images of this size.
    height, channels, width : int
    least : ndarray, shape (steps,), float32
        What a pair must correlate before each step.
    whole : bool
        Compare whole templates, with the moved images repeated beyond their borders.
    slope, place : ndarray, shape (channels * width,), float32
        Of each column of an image (y, k): what the difference of its neighbours is multiplied with for a derivative,
        0 at the ends of a channel; and x, in sides from the centre.
    """

    images: Cells
    height: int
    channels: int
    width: int
    least: NDArray[np.float32]
    whole: bool
    slope: NDArray[np.float32] = field(init=False)
    place: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        slope = np.full(self.width, self.width / 2, dtype=np.float32)
        slope[[0, -1]] = 0
        object.__setattr__(self, "slope", np.tile(slope, self.channels))
        object.__setattr__(self, "place", np.tile(positions(self.width), self.channels))

    def flat(self, images: np.ndarray) -> np.ndarray:
        """Images (n, y, c, x) as (n, y, k)."""
        return images.reshape(len(images), self.height, self.channels * self.width)

    def inverses(self, images: np.ndarray) -> NDArray[np.float32]:
        """Inverse normal matrices of images (n, y, c, x), less their means, as templates: those of `template_of`."""
        return inverses(self.flat(images), self.slope, self.place)

    def settled(
        self,
        left: tuple[np.ndarray, np.ndarray],
        right: tuple[np.ndarray, np.ndarray],
        i: np.ndarray,
        j: np.ndarray,
        swap: np.ndarray,
        mirrored: np.ndarray,
        motion: Motion,
    ) -> tuple[Motion, NDArray[np.intp]]:
        """The motions after the steps of a level, for the pairs that go on; and which those are.

        Parameters
        ----------
        left, right : tuple of two ndarrays
            Images (n, y, c, x) float32 less the mean of each channel, and their `inverses`.
        i, j : ndarray, shape (p,), int64
        swap, mirrored : ndarray, shape (p,), bool
            The right image is the template; the other one is mirrored.
        """
        scale, shift = motion.scale.copy(), motion.shift.copy()
        kept = settle(
            *(self.flat(left[0]), self.flat(right[0]), left[1], right[1], i, j, swap, mirrored, scale, shift),
            *(self.least, self.slope, self.place, self.channels, self.whole),
        )
        keep = np.flatnonzero(kept)
        return Motion(scale[:, keep], shift[:, keep]), keep


def begin(
    left: np.ndarray, right: np.ndarray, pixels: np.ndarray, others: np.ndarray, i: np.ndarray, j: np.ndarray
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int32]]:
    """See `daskim.kernels.compiled.starts.start`; pixels of any shape."""
    return start(left, right, pixels.reshape(len(pixels), -1), others.reshape(len(others), -1), i, j)


def windows(
    left: np.ndarray,
    right: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    swap: np.ndarray,
    mirrored: np.ndarray,
    motion: Motion,
    *,
    c2: float,
    texture: float,
    contrast: tuple[float, float],
) -> NDArray[np.float64]:
    """See `daskim.kernels.compiled.windows.alike`."""
    _, height, _, width = left.shape
    out = np.empty((len(i), 3))
    together = max(1, LOOK_UPS // (20 * (height + width)))
    straight = np.zeros(together, dtype=bool)
    for lo in range(0, len(i), together):
        some = slice(lo, lo + together)
        scale, shift = motion.scale[:, some], motion.shift[:, some]
        down = look_ups(scale[0], shift[0], height, straight[: scale.shape[1]])
        across = look_ups(scale[1], shift[1], width, mirrored[some])
        out[some] = alike(left, right, i[some], j[some], swap[some], down, across, c2, texture, contrast)
    return out
