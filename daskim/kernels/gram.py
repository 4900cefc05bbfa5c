"""W'W of whole numbers, exact, in single precision wherever the sums allow it.

A float32 holds every whole number up to 2^24. If the squares of each column sum to at most that, so does any sum of
products of two columns over any of the rows, by Cauchy and Schwarz: then all that a matrix product adds up, in whatever
order and with or without fused operations, is a whole number that float32 holds. So rows are taken until a column
reaches the bound, and then the float32 sums are added to float64 ones. A whole number per column is taken off first,
which makes squares small, and is put back into the sums at the end, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from daskim.kernels.blas import add_products

__all__ = ["SAFE", "exact_gram", "joined", "packed", "unpacked"]

# The sums and what stands between them are exact where rows * 4 * (largest |entry|)^2 is below.
SAFE = 2.0**53
# Whole numbers that float32 holds. Column sums of squares are themselves worked out in float32, to a relative error of
# 4096 * 2^-24 at most; the limit leaves four times that.
SINGLE = 2.0**24 * (1 - 2.0**-10)
# Values that are converted and multiplied together.
PIECE = 1 << 22
# Fewer rows than this between two additions to the float64 sums, and those cost more than single precision saves.
LEAST = 96
# Rows of one tile of a triangle.
TILE = 128


def exact_gram(parts: Iterable[np.ndarray], d: int) -> np.ndarray:
    """Lower triangle of the sum of w w' over all rows w of all parts.

    Parameters
    ----------
    parts : iterable of ndarray, each shape (rows, d), integer dtype
        With rows * 4 * (largest |entry|)^2 < `SAFE` over all of them; asked of the caller.

    Returns
    -------
    ndarray, shape (d, d), float64
        Whole numbers; zeros above the diagonal. How rows are split between parts changes nothing.

    Notes
    -----
    rows * d^2 flops, in single precision where at least `LEAST` rows fit between two additions to the float64 sums: for
    uint8 always, as 255^2 * 256 < 2^24. Memory 12 d^2 bytes and some 70 MB.
    """
    sums = _Sums(d)
    for part in parts:
        sums.add(part)
    return sums.total()


class _Sums:
    """What is added up: centred products in two precisions, centred columns, and the rows there were."""

    def __init__(self, d: int) -> None:
        self.wide = np.zeros((d, d))
        self.narrow = np.zeros((d, d), dtype=np.float32)
        self.squares = np.zeros(d)  # of what is in `narrow`, by column
        self.columns = np.zeros(d)
        self.rows = 0
        self.offset: np.ndarray | None = None
        self.step = max(LEAST, min(4096, PIECE // max(1, d)))
        self.buffer = np.empty(0, dtype=np.float32)

    def add(self, part: np.ndarray) -> None:
        if not len(part):
            return
        if self.offset is None:
            self.offset = np.rint(part[: self.step].mean(axis=0, dtype=np.float64))
        self.rows += len(part)
        at = 0
        while at < len(part):
            at += self._some(part[at : at + self.step])

    def _some(self, part: np.ndarray) -> int:
        """Add the first rows of a part; how many."""
        assert self.offset is not None
        rows, d = part.shape
        if self.buffer.size < part.size:
            self.buffer = np.empty(part.size, dtype=np.float32)
        single = self.buffer[: part.size].reshape(rows, d)
        # unsafe: int32 may lose digits here, but only beyond 2^24, whose squares rule float32 out below
        np.subtract(part, self.offset.astype(np.float32), out=single, dtype=np.float32, casting="unsafe")
        while True:
            squares = np.einsum("ij,ij->j", single[:rows], single[:rows]).astype(np.float64)
            if squares.max(initial=0.0) <= SINGLE:
                break
            if rows <= LEAST:
                self._in_double(part)
                return len(part)
            rows = max(LEAST, rows // 2)
        if (self.squares + squares).max(initial=0.0) > SINGLE:
            self._flush()
        add_products(self.narrow, single[:rows])
        self.squares += squares
        self.columns += np.ones(rows, dtype=np.float32) @ single[:rows]  # at most 64 * 2^12: exact
        return rows

    def _in_double(self, part: np.ndarray) -> None:
        centred = part - self.offset
        add_products(self.wide, centred)
        self.columns += centred.sum(axis=0)

    def _flush(self) -> None:
        for lo in range(0, len(self.wide), TILE):
            tile = slice(lo, lo + TILE), slice(0, lo + TILE)
            self.wide[tile] += self.narrow[tile]
        self.narrow[:] = 0
        self.squares[:] = 0

    def total(self) -> np.ndarray:
        """With c = w - o for each row: sum w w' = sum c c' + o (sum c)' + (sum c + rows o) o'."""
        self._flush()
        if self.offset is not None:
            right = self.columns + self.rows * self.offset
            for lo in range(0, len(self.wide), TILE):
                tile = slice(lo, lo + TILE), slice(0, lo + TILE)
                self.wide[tile] += np.outer(self.offset[tile[0]], self.columns[tile[1]])
                self.wide[tile] += np.outer(right[tile[0]], self.offset[tile[1]])
                corner = self.wide[tile[0], tile[0]]
                corner[:] = np.tril(corner)
        return self.wide


def packed(lower: np.ndarray) -> np.ndarray:
    """The lower triangle of a Gram matrix of whole numbers, row after row: int32 where they fit, else float64."""
    d = len(lower)
    largest = lower.diagonal().max(initial=0.0)  # no entry is larger, by Cauchy and Schwarz
    out = np.empty(d * (d + 1) // 2, dtype=np.int32 if largest < 2**31 else np.float64)
    at = 0
    for row in range(d):
        out[at : at + row + 1] = lower[row, : row + 1]
        at += row + 1
    return out


def unpacked(triangle: np.ndarray, d: int) -> np.ndarray:
    """The symmetric matrix, shape (d, d), float64, of a triangle as `packed` gives it."""
    out = np.empty((d, d))
    at = 0
    for row in range(d):
        out[row, : row + 1] = triangle[at : at + row + 1]
        at += row + 1
    for lo in range(0, d, TILE):
        for left in range(0, lo + 1, TILE):
            rows, columns = slice(lo, lo + TILE), slice(left, left + TILE)
            tile = np.tril(out[rows, columns]) + np.tril(out[rows, columns], -1).T if left == lo else out[rows, columns]
            out[columns, rows] = tile.T
    return out


def joined(triangles: Iterable[np.ndarray]) -> np.ndarray:
    """Sum of packed triangles, float64: the `combine` of a fold."""
    total: np.ndarray | None = None
    for triangle in triangles:
        if total is None:
            total = triangle.astype(np.float64)
        else:
            total += triangle
    assert total is not None
    return total
