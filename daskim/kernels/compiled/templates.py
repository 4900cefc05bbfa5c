"""Images as templates of a registration: averages over cells, and sums of derivatives; compiled."""

from __future__ import annotations

import numpy as np

from daskim.kernels import registration
from daskim.kernels.compiled import compiled

__all__ = ["cells", "inverses"]

RIDGE = registration.RIDGE


@compiled
def inverses(images, slope, place):  # type: ignore[no-untyped-def]
    """Inverse normal matrices of the motion of templates, as in `daskim.kernels.registration.template_of`.

    Parameters
    ----------
    images : ndarray, shape (n, y, k), float32
        k runs over channels and then x.
    slope : ndarray, shape (k,), float32
        What the difference of the neighbours in a row is multiplied with: 0 at the ends of each channel.
    place : ndarray, shape (k,), float32
        x, from -1/2 to 1/2.

    Returns
    -------
    ndarray, shape (n, 4, 4), float32
        Of the parameters scale y, shift y, scale x, shift x.
    """
    n, rows, columns = images.shape
    out = np.empty((n, 4, 4), dtype=np.float32)
    normal = np.empty((4, 4))
    sums = np.empty((6, columns), dtype=np.float32)  # of dy dy y^2, dy dy y, dy dy, dx dx, dx dy y and dx dy
    down, across = np.zeros(columns, dtype=np.float32), np.zeros(columns, dtype=np.float32)
    for p in range(n):
        image = images[p]
        for s in range(6):
            for k in range(columns):
                sums[s, k] = 0
        for r in range(4):
            for c in range(4):
                normal[r, c] = 0
        for y in range(rows):
            at = np.float32((y - (rows - 1) / 2) / rows)
            half = np.float32(rows / 2) if 0 < y < rows - 1 else np.float32(0)
            above, below = image[max(y - 1, 0)], image[min(y + 1, rows - 1)]
            for k in range(columns):
                down[k] = (below[k] - above[k]) * half
            for k in range(1, columns - 1):
                across[k] = (image[y, k + 1] - image[y, k - 1]) * slope[k]
            for k in range(columns):
                square, both = down[k] * down[k], down[k] * across[k]
                sums[0, k] += square * (at * at)
                sums[1, k] += square * at
                sums[2, k] += square
                sums[3, k] += across[k] * across[k]
                sums[4, k] += both * at
                sums[5, k] += both
        for k in range(columns):
            x = np.float64(place[k])
            normal[0, 0] += sums[0, k]
            normal[0, 1] += sums[1, k]
            normal[1, 1] += sums[2, k]
            normal[2, 2] += sums[3, k] * x * x
            normal[2, 3] += sums[3, k] * x
            normal[3, 3] += sums[3, k]
            normal[0, 2] += sums[4, k] * x
            normal[0, 3] += sums[4, k]
            normal[1, 2] += sums[5, k] * x
            normal[1, 3] += sums[5, k]
        ridge = RIDGE * (normal[0, 0] + normal[1, 1] + normal[2, 2] + normal[3, 3]) / 4 + 1e-3
        for r in range(4):
            normal[r, r] += ridge
            for c in range(r):
                normal[r, c] = normal[c, r]
        invert(normal)
        for r in range(4):
            for c in range(4):
                out[p, r, c] = normal[r, c]
    return out


@compiled
def invert(matrix):  # type: ignore[no-untyped-def]
    """A positive definite matrix, in place, by Gauss and Jordan: no pivots are needed."""
    size = len(matrix)
    for k in range(size):
        pivot = 1 / matrix[k, k]
        matrix[k, k] = 1
        for c in range(size):
            matrix[k, c] *= pivot
        for r in range(size):
            if r != k:
                factor = matrix[r, k]
                matrix[r, k] = 0
                for c in range(size):
                    matrix[r, c] -= factor * matrix[k, c]


@compiled
def cells(pixels, down, across, down_at, across_at, grey):  # type: ignore[no-untyped-def]
    """Images averaged over cells, less the mean of each channel.

    Parameters
    ----------
    pixels : ndarray, shape (n, y, c, x), uint8
    down, across : ndarray, shape (cells, size), float32
        Weights of both axes, from `daskim.kernels.registration.cell_weights`.
    down_at, across_at : ndarray, shape (cells, 2), int64
        The range of weights that are not 0.
    grey : bool
        Average the channels.

    Returns
    -------
    ndarray, shape (n, down, c or 1, across), float32
    """
    n, _, channels, width = pixels.shape
    left = 1 if grey else channels
    out = np.empty((n, len(down), left, len(across)), dtype=np.float32)
    row = np.empty((channels, width), dtype=np.float32)
    share = np.float32(1) / np.float32(channels)
    plain = len(across) == width  # every pixel a cell
    for x in range(len(across)):
        plain = plain and across_at[x, 0] == x and across_at[x, 1] == x + 1
    for p in range(n):
        image = out[p]
        for y in range(len(down)):
            for c in range(channels):
                for x in range(width):
                    row[c, x] = 0
            for at in range(down_at[y, 0], down_at[y, 1]):
                line, weight = pixels[p, at], down[y, at]
                for c in range(channels):
                    for x in range(width):
                        row[c, x] += weight * np.float32(line[c, x])
            if grey:
                for c in range(1, channels):
                    for x in range(width):
                        row[0, x] += row[c, x]
                for x in range(width):
                    row[0, x] *= share
            if plain:
                for c in range(left):
                    for x in range(width):
                        image[y, c, x] = row[c, x]
                continue
            for c in range(left):
                for x in range(len(across)):
                    some = np.float32(0)
                    for at in range(across_at[x, 0], across_at[x, 1]):
                        some += across[x, at] * row[c, at]
                    image[y, c, x] = some
        for c in range(left):
            mean = 0.0
            for y in range(len(down)):
                for x in range(len(across)):
                    mean += image[y, c, x]
            level = np.float32(mean / (len(down) * len(across)))
            for y in range(len(down)):
                for x in range(len(across)):
                    image[y, c, x] -= level
    return out
