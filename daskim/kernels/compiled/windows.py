"""The windows of two registered images compared, compiled: pair by pair, in float64.

The arithmetic is that of `daskim.similarities.aligned`, which says what is computed. Indices that are not plain loop
variables are kept out of the inner loops: they would be checked for being negative, and the loops not vectorised.
"""

from __future__ import annotations

import numpy as np

from daskim.kernels.compiled import compiled

__all__ = ["WINDOW", "alike"]

# Side of the windows: the sums along a row are written out for it.
WINDOW = 7


@compiled
def alike(left, right, i, j, swap, down, across, c2, texture, contrast):  # type: ignore[no-untyped-def]
    """Contrast-structure and structure of registered pairs (i, j), over the windows that lie in the shared part.

    Parameters
    ----------
    left, right : ndarray, shape (n, y, c, x), uint8
    i, j : ndarray, shape (p,), int64
    swap : ndarray, shape (p,), bool
        The right image is the template.
    down, across : tuple of ndarrays
        Rows and columns of the other image, from `daskim.kernels.compiled.steps.look_ups`.
    c2, texture : float
        Of the channels' sum: SSIM's second constant; the squared variance below which a window hardly counts.
    contrast : (float, float)
        Contrast ratios that are matched.

    Returns
    -------
    ndarray, shape (p, 3), float64
        Both, and 1 where the images are equal.
    """
    _, rows, channels, side = left.shape
    maps = np.empty((rows, 2 * channels + 3, side))
    strip, bands = np.empty((2 * channels + 3, side)), np.empty((2 * channels + 3, side))
    flat, sums, means = maps.reshape(rows, -1), strip.reshape(-1), bands.reshape(-1)
    found, totals = np.empty((3, rows, side)), np.empty((5, side))
    row, inside = np.empty(side), np.empty(side)
    out = np.zeros((len(i), 3))
    for p in range(len(i)):
        one, other = left[i[p]], right[j[p]]
        out[p, 2] = same(one, other)
        if swap[p]:
            one, other = other, one
        for y in range(rows):
            above, below, share = down[0][p, y], down[1][p, y], np.float64(down[2][p, y])
            for c in range(channels):
                for x in range(side):
                    maps[y, c, x] = one[y, c, x]
                    row[x] = other[above, c, x] * (1 - share) + other[below, c, x] * share
                for x in range(side):
                    here = row[across[0][p, x]]
                    maps[y, channels + c, x] = here + across[2][p, x] * (row[across[1][p, x]] - here)
        detrend(maps, strip, bands, 2 * channels)
        multiply(maps, channels)
        top, bottom = down[3][p, 0], down[3][p, 1] - WINDOW + 1
        first, last = across[3][p, 0], across[3][p, 1] - WINDOW + 1
        if bottom > top and last > first:
            for x in range(side):
                inside[x] = first <= x < last
            slide(maps, flat, sums, bands, means, found, top, bottom, channels)
            size = (bottom - top) * (last - first)
            out[p, 0], out[p, 1] = compared(found, inside, totals, top, bottom, size, c2, texture, contrast)
    return out


@compiled
def same(one, other):  # type: ignore[no-untyped-def]
    """Whether two images (y, c, x) are equal."""
    for y in range(one.shape[0]):
        for c in range(one.shape[1]):
            for x in range(one.shape[2]):
                if one[y, c, x] != other[y, c, x]:
                    return False
    return True


@compiled
def total(row, size):  # type: ignore[no-untyped-def]
    """Sum of row[:size]; in four strands, so that no addition waits for the one before."""
    a = b = c = d = 0.0
    whole = size - size % 4
    for k in range(0, whole, 4):
        a, b, c, d = a + row[k], b + row[k + 1], c + row[k + 2], d + row[k + 3]
    for k in range(whole, size):
        a += row[k]
    return (a + b) + (c + d)


@compiled
def detrend(maps, level, tilt, count):  # type: ignore[no-untyped-def]
    """Take the plane of least squares from each of the first maps of (y, m, x), in place; the rest is scratch."""
    rows, _, side = maps.shape
    middle_y, middle_x = (rows - 1) / 2, (side - 1) / 2
    of_rows = max(rows * (rows * rows - 1) / 12, 1) * side  # the sum of the squares of the coordinates
    of_columns = max(side * (side * side - 1) / 12, 1) * rows
    for m in range(count):
        for x in range(side):
            level[m, x], tilt[m, x] = 0, 0
    for y in range(rows):
        for m in range(count):
            for x in range(side):
                level[m, x] += maps[y, m, x]
                tilt[m, x] += maps[y, m, x] * (y - middle_y)
    for m in range(count):
        mean, fall, lean = 0.0, 0.0, 0.0
        for x in range(side):
            mean, fall, lean = mean + level[m, x], fall + tilt[m, x], lean + level[m, x] * (x - middle_x)
        mean, fall, lean = mean / (rows * side), fall / of_rows, lean / of_columns
        for x in range(side):
            level[m, x], tilt[m, x] = mean + lean * (x - middle_x), fall
    for y in range(rows):
        for m in range(count):
            for x in range(side):
                maps[y, m, x] -= level[m, x] + tilt[m, x] * (y - middle_y)


@compiled
def multiply(maps, channels):  # type: ignore[no-untyped-def]
    """Of both images in maps (y, m, x): their squares and their product, channels summed, as the last three maps."""
    rows, _, side = maps.shape
    for y in range(rows):
        one, other, both = maps[y, 2 * channels], maps[y, 2 * channels + 1], maps[y, 2 * channels + 2]
        for x in range(side):
            one[x], other[x], both[x] = 0, 0, 0
        for c in range(channels):
            left, right = maps[y, c], maps[y, channels + c]
            for x in range(side):
                one[x] += left[x] * left[x]
                other[x] += right[x] * right[x]
                both[x] += left[x] * right[x]


@compiled
def slide(maps, flat, sums, bands, means, found, top, bottom, channels):  # type: ignore[no-untyped-def]
    """Both variances and the covariance of the windows whose first row is in [top, bottom), at any column.

    Sums down the columns are kept while the window slides. `flat` and `means` are `maps` and `bands` with (m, x) as one
    axis.
    """
    side, columns = maps.shape[2], flat.shape[1]
    for k in range(columns):
        sums[k] = 0
    for y in range(top, top + WINDOW - 1):
        for k in range(columns):
            sums[k] += flat[y, k]
    for y in range(top, bottom):
        for k in range(columns):
            sums[k] += flat[y + WINDOW - 1, k]
        for k in range(columns - WINDOW + 1):
            some = (sums[k] + sums[k + 1]) + (sums[k + 2] + sums[k + 3])
            means[k] = (some + ((sums[k + 4] + sums[k + 5]) + sums[k + 6])) * (1 / 49)
        for k in range(columns):
            sums[k] -= flat[y, k]
        own, others, both = found[0, y], found[1, y], found[2, y]
        for x in range(side - WINDOW + 1):
            own[x], others[x] = bands[2 * channels, x], bands[2 * channels + 1, x]
            both[x] = bands[2 * channels + 2, x]
        for c in range(channels):
            for x in range(side - WINDOW + 1):
                one, other = bands[c, x], bands[channels + c, x]
                own[x] -= one * one
                others[x] -= other * other
                both[x] -= one * other


@compiled
def compared(found, inside, sums, top, bottom, size, c2, texture, contrast):  # type: ignore[no-untyped-def]
    """Mean contrast-structure, and structure weighted by texture, of so many windows from `slide`."""
    wide = len(inside) - WINDOW + 1
    for s in range(5):
        for x in range(wide):
            sums[s, x] = 0
    for y in range(top, bottom):
        for x in range(wide):
            sums[0, x] += max(found[0, y, x], 0.0) * inside[x]
            sums[1, x] += max(found[1, y, x], 0.0) * inside[x]
    # the contrast of the moved image as a whole is matched; twice that ratio and more stays different
    gain = np.sqrt(total(sums[0], wide) / max(total(sums[1], wide), 1e-3))
    gain = min(max(gain, contrast[0]), contrast[1])
    for y in range(top, bottom):
        for x in range(wide):
            own, other = max(found[0, y, x], 0.0), max(found[1, y, x], 0.0) * (gain * gain)
            both, root = found[2, y, x] * gain, np.sqrt(own * other)
            sums[2, x] += (2 * both + c2) / (own + other + c2) * inside[x]
            own, other = own * own, other * other
            weight = np.sqrt(root) * (own * other) / ((own + texture) * (other + texture)) * inside[x]
            sums[3, x] += both / max(root, 1e-6) * weight
            sums[4, x] += weight
    return total(sums[2], wide) / size, total(sums[3], wide) / max(total(sums[4], wide), 1e-3)
