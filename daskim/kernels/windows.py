"""Weighted windows that slide over stacks of images, as small matrix products: rows X columns^T.

A separable window is one banded matrix for each axis; what happens at the border is folded into the matrix. Each
image of a stack is multiplied by itself, so that its bits do not depend on what else is in the stack.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

__all__ = ["Border", "SeparableWindow", "gaussian_taps", "uniform_taps", "window_matrix"]

Border = Literal["valid", "edge", "reflect", "zero"]
# Outputs of one product along a long axis. A window of k taps costs TILE + k - 1 multiplications per output instead of
# the length of the axis; 64 keep the products large enough for BLAS.
TILE = 64


def uniform_taps(size: int) -> np.ndarray:
    """Weights 1 / size, shape (size,), float64."""
    return np.full(size, 1.0 / size)


def gaussian_taps(sigma: float, radius: int) -> np.ndarray:
    """exp(-k^2 / (2 sigma^2)) for k = -radius .. radius, divided by their sum; shape (2 radius + 1,), float64."""
    at = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (at / sigma) ** 2)
    return weights / weights.sum()


def window_matrix(length: int, taps: np.ndarray, border: Border, step: int = 1) -> np.ndarray:
    """The matrix M with (M x)[i] = sum over k of taps[k] x[i step - (len(taps) - 1) // 2 + k].

    Parameters
    ----------
    length : int
        Length of the axis.
    taps : ndarray, shape (k,), float64
        Not turned round: a correlation. An even window reaches one further to the right than to the left.
    border : {"valid", "edge", "reflect", "zero"}
        Only windows that lie inside, counted from the first; or all positions, with the last value repeated (scipy's
        "nearest"), mirrored with the last value twice (scipy's "reflect"), or nothing beyond the border.
    step : int
        Every step-th window.

    Returns
    -------
    ndarray, shape (outputs, length), float64
        outputs = ceil(length / step), or ceil((length - k + 1) / step) for "valid".

    Raises
    ------
    ValueError
        A window longer than the axis with border "valid".
    """
    k = len(taps)
    if border == "valid" and k > length:
        raise ValueError(f"a window of {k} does not fit into {length}")
    first = 0 if border == "valid" else -((k - 1) // 2)
    outputs = np.arange(0, length - k + 1 if border == "valid" else length, step)
    at = outputs[:, None] + first + np.arange(k)
    weights = np.broadcast_to(taps, at.shape)
    if border == "zero":
        weights = np.where((at >= 0) & (at < length), weights, 0.0)
    if border == "reflect":
        at = at % (2 * length)
        at = np.minimum(at, 2 * length - 1 - at)
    matrix = np.zeros((len(outputs), length))
    np.add.at(matrix, (np.arange(len(outputs))[:, None], np.clip(at, 0, length - 1)), weights)
    return matrix


class SeparableWindow:
    """Filters stacks of shape (b, c, h, w): each image by itself, each channel by itself unless `channels` is given.

    Parameters
    ----------
    rows : ndarray, shape (oh, h)
        From `window_matrix`, or any other matrix; a banded one costs its band.
    columns : ndarray, shape (ow, w)
    channels : ndarray, shape (oc, c), optional
        Mixes the channels: the third axis of a window over a volume.

    Attributes
    ----------
    shape : (oh, ow)
        Sides of what comes out.
    channels : bool
        Whether channels are mixed.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, channels: np.ndarray | None = None) -> None:
        self.shape = (rows.shape[0], columns.shape[0])
        self.channels = channels is not None
        self._rows, self._columns = _tiles(rows), _tiles(columns)
        self._mix = None if channels is None else _both(channels)

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Windows of `maps`, shape (b, c or oc, oh, ow), in the dtype of `maps`: float32 or float64."""
        kind = maps.dtype.char
        b, c, h, w = maps.shape
        if self._mix is not None:
            maps = np.matmul(self._mix[kind], maps.reshape(b, c, h * w)).reshape(b, len(self._mix[kind]), h, w)
            c = maps.shape[1]
        # Columns first: all rows of all channels of an image are one product.
        across = np.empty((b, c * h, self.shape[1]), dtype=maps.dtype)
        for tile, reach, weights in self._columns:
            np.matmul(maps.reshape(b, c * h, w)[..., reach], weights[kind].T, out=across[..., tile])
        out = np.empty((b, c, *self.shape), dtype=maps.dtype)
        for tile, reach, weights in self._rows:
            np.matmul(weights[kind], across.reshape(b, c, h, self.shape[1])[..., reach, :], out=out[..., tile, :])
        return out


def _both(matrix: np.ndarray) -> dict[str, np.ndarray]:
    return {"d": np.ascontiguousarray(matrix, dtype=np.float64), "f": np.ascontiguousarray(matrix, dtype=np.float32)}


def _tiles(matrix: np.ndarray) -> list[tuple[slice, slice, dict[str, np.ndarray]]]:
    """(outputs, inputs that they need, weights) for every TILE outputs."""
    out = []
    for start in range(0, matrix.shape[0], TILE):
        part = matrix[start : start + TILE]
        used = np.flatnonzero(part.any(axis=0))
        reach = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        out.append((slice(start, start + len(part)), reach, _both(part[:, reach])))
    return out
