"""`daskim.kernels.registration` for one pair at a time, compiled: the same numbers up to rounding, from the cache.

Images are rows (y, k) of stacks (n, y, k), k running over channels and then x. The part that both images of a pair
show is a rectangle, as motions act on each axis apart and keep its order.
"""

from __future__ import annotations

import numpy as np

from daskim.kernels import registration
from daskim.kernels.compiled import compiled

__all__ = ["look_ups", "settle"]

MARGIN = np.float32(registration.MARGIN)
GAIN_LOW, GAIN_HIGH = map(np.float32, registration.GAIN)
SCALE_LOW, SCALE_HIGH = map(np.float32, registration.SCALE)
SHIFT = np.float32(registration.SHIFT)
STEP_SCALE, STEP_SHIFT = np.float32(registration.STEP_SCALE), np.float32(registration.STEP_SHIFT)
TINY = np.float32(1e-3)
ONE = np.float32(1)
# Rows of sums that a level needs.
SUMS = 8


@compiled
def settle(  # type: ignore[no-untyped-def]
    left, right, inverse_left, inverse_right, i, j, swap, mirrored, scale, shift, least, slope, place, channels, whole
):
    """Take the steps of a level with pairs (i, j): moves `scale` and `shift` in place, tells which pairs go on.

    Parameters
    ----------
    left, right : ndarray, shape (n, y, k), float32
        Images less the mean of each channel.
    inverse_left, inverse_right : ndarray, shape (n, 4, 4), float32
        From `inverses`.
    i, j : ndarray, shape (p,), int64
    swap, mirrored : ndarray, shape (p,), bool
        The right image is the template; the other one is mirrored.
    scale, shift : ndarray, shape (2, p), float32
    least : ndarray, shape (steps,), float32
        What a pair must correlate before each step; else it goes no further.
    slope, place : ndarray, shape (k,), float32
        Of each column: what the difference of its neighbours is multiplied with, 0 at the ends of a channel; and x,
        from -1/2 to 1/2.
    whole : bool
        Compare the whole template, with the other image repeated beyond its border.

    Returns
    -------
    ndarray, shape (p,), bool
    """
    _, rows, columns = left.shape
    side = columns // channels
    sums = np.empty((SUMS, columns), dtype=np.float32)
    row = np.empty(columns, dtype=np.float32)
    cut, shown = np.empty((rows, columns), dtype=np.float32), np.empty((rows, columns), dtype=np.float32)
    down = (np.empty(rows, np.uintp), np.empty(rows, np.uintp), np.empty(rows, np.float32))
    across = (np.empty(side, np.uintp), np.empty(side, np.uintp), np.empty(side, np.float32))
    kept = np.ones(len(i), dtype=np.bool_)
    for p in range(len(i)):
        template, other, inverse = left[i[p]], right[j[p]], inverse_left[i[p]]
        if swap[p]:
            template, other, inverse = right[j[p]], left[i[p]], inverse_right[j[p]]
        motion = (scale[0, p], shift[0, p], scale[1, p], shift[1, p])
        last, best, stopped = motion, np.float32(-np.inf), False
        for count in range(len(least)):
            if not stopped:
                height = look_up(down, motion[0], motion[1], False)
                width = look_up(across, motion[2], motion[3], mirrored[p])
                if whole:
                    height, width = (0, rows), (0, side)
                move(other, shown, row, down, across, channels)
                correlation, gain = agree(template, cut, shown, sums, channels, height, width)
                stopped = correlation < best
                best = max(best, correlation)
            if best < least[count]:
                kept[p] = False
                break
            if stopped:
                motion = last
            else:
                force = push(template, cut, shown, gain, sums, slope, place, height)
                last, motion = motion, stepped(inverse, force, motion[0], motion[1], motion[2], motion[3])
        scale[0, p], shift[0, p], scale[1, p], shift[1, p] = motion
    return kept


@compiled
def look_up(at, scale, shift, mirrored):  # type: ignore[no-untyped-def]
    """Linear interpolation along an axis: fills pixels and weights, tells the range of positions that are inside.

    Parameters
    ----------
    at : tuple of three ndarrays, shape (size,)
        Filled: the two pixels, uintp (a negative index would be checked for), and the weight of the second, float32.
    """
    first, second, weight = at
    size = len(first)
    low, high = size, 0
    last = np.float32(size - 1)
    for k in range(size):
        position = np.float32((k - (size - 1) / 2) / size)
        where = scale * position * np.float32(size) + shift * np.float32(size) + np.float32((size - 1) / 2)
        if where >= -MARGIN and where <= last + MARGIN:
            low, high = min(low, k), k + 1
        where = min(max(where, np.float32(0)), last)
        pixel = min(int(where), max(size - 2, 0))
        weight[k] = where - np.float32(pixel)
        other = min(pixel + 1, size - 1)
        first[k], second[k] = (size - 1 - pixel, size - 1 - other) if mirrored else (pixel, other)
    return low, high


@compiled
def move(image, out, row, down, across, channels):  # type: ignore[no-untyped-def]
    """Fill `out` with the image looked up at `down` and `across`, in the dtype of `row`."""
    width = len(across[0])
    for y in range(len(down[0])):
        above, below, low = down[0][y], down[1][y], row.dtype.type(down[2][y])
        high = row.dtype.type(1) - low
        for k in range(channels * width):
            row[k] = image[above, k] * high + image[below, k] * low
        for c in range(channels):
            base = np.uintp(c * width)
            for x in range(width):
                weight = row.dtype.type(across[2][x])
                left, right = row[base + across[0][x]], row[base + across[1][x]]
                out[y, base + np.uintp(x)] = left + (right - left) * weight


@compiled
def agree(template, cut, shown, sums, channels, height, width):  # type: ignore[no-untyped-def]
    """Correlation and gain over the shared part; `cut` and `shown`: template and image less their means there, else 0.

    Parameters
    ----------
    cut, shown : ndarray, shape (y, k), float32
        `shown` holds the moved image. Of both only the shared rows are looked at, and filled.
    height, width : (int, int)
        Ranges of the shared part.
    """
    (top, bottom), (left, right) = height, width
    columns = sums.shape[1]
    side = columns // channels
    one, other, both, own, self_, mean, means, inside = 0, 1, 2, 3, 4, 5, 6, 7
    for s in range(SUMS):
        for k in range(columns):
            sums[s, k] = 0
    for y in range(top, bottom):
        for k in range(columns):
            sums[one, k] += template[y, k]
            sums[other, k] += shown[y, k]
    size = np.float32(max((bottom - top) * (right - left), 1))
    for c in range(channels):
        start = c * side
        of_template = total(sums[one], start + left, start + right) / size
        of_image = total(sums[other], start + left, start + right) / size
        for k in range(start + left, start + right):
            sums[mean, k], sums[means, k], sums[inside, k] = of_template, of_image, ONE
    for y in range(top, bottom):
        for k in range(columns):
            a = (template[y, k] - sums[mean, k]) * sums[inside, k]
            b = (shown[y, k] - sums[means, k]) * sums[inside, k]
            cut[y, k], shown[y, k] = a, b
            sums[both, k] += a * b
            sums[own, k] += b * b
            sums[self_, k] += a * a
    product, of_image = total(sums[both], 0, columns), total(sums[own], 0, columns)
    correlation = product / np.sqrt(total(sums[self_], 0, columns) * of_image + TINY)
    return correlation, min(max(product / max(of_image, TINY), GAIN_LOW), GAIN_HIGH)


@compiled
def push(template, cut, shown, gain, sums, slope, place, height):  # type: ignore[no-untyped-def]
    """Inner products of the difference with the derivatives of the template by the four parameters."""
    rows, columns = template.shape
    fall, tilt, lean = 0, 1, 2
    for s in range(4):
        for k in range(columns):
            sums[s, k] = 0
    half = np.float32(rows / 2)
    for y in range(height[0], height[1]):
        if 0 < y < rows - 1:
            at = np.float32((y - (rows - 1) / 2) / rows)
            for k in range(columns):
                force = (template[y + 1, k] - template[y - 1, k]) * half * (shown[y, k] * gain - cut[y, k])
                sums[fall, k] += force
                sums[tilt, k] += force * at
        for k in range(1, columns - 1):
            across = (template[y, k + 1] - template[y, k - 1]) * slope[k]
            sums[lean, k] += across * (shown[y, k] * gain - cut[y, k])
    for k in range(columns):
        sums[3, k] = sums[lean, k] * place[k]
    return (
        total(sums[tilt], 0, columns),
        total(sums[fall], 0, columns),
        total(sums[3], 0, columns),
        total(sums[lean], 0, columns),
    )


@compiled
def stepped(inverse, force, scale_y, shift_y, scale_x, shift_x):  # type: ignore[no-untyped-def]
    """The motion after a step: `daskim.kernels.registration.step`."""
    change = np.empty(4, dtype=np.float32)
    for r in range(4):
        change[r] = (inverse[r, 0] * force[0] + inverse[r, 1] * force[1]) + (
            inverse[r, 2] * force[2] + inverse[r, 3] * force[3]
        )
    scale_y = scale_y / (ONE + min(max(change[0], -STEP_SCALE), STEP_SCALE))
    scale_x = scale_x / (ONE + min(max(change[2], -STEP_SCALE), STEP_SCALE))
    shift_y = shift_y - scale_y * min(max(change[1], -STEP_SHIFT), STEP_SHIFT)
    shift_x = shift_x - scale_x * min(max(change[3], -STEP_SHIFT), STEP_SHIFT)
    return (
        min(max(scale_y, SCALE_LOW), SCALE_HIGH),
        min(max(shift_y, -SHIFT), SHIFT),
        min(max(scale_x, SCALE_LOW), SCALE_HIGH),
        min(max(shift_x, -SHIFT), SHIFT),
    )


@compiled
def total(row, low, high):  # type: ignore[no-untyped-def]
    """Sum of row[low:high]; in four strands, so that no addition waits for the one before."""
    a = b = c = d = row.dtype.type(0)
    k = low
    while k + 4 <= high:
        a, b, c, d = a + row[k], b + row[k + 1], c + row[k + 2], d + row[k + 3]
        k += 4
    while k < high:
        a += row[k]
        k += 1
    return (a + b) + (c + d)


@compiled
def look_ups(scale, shift, size, mirrored):  # type: ignore[no-untyped-def]
    """Linear interpolation of p images along an axis.

    Parameters
    ----------
    scale, shift : ndarray, shape (p,), float32
    size : int
    mirrored : ndarray, shape (p,), bool

    Returns
    -------
    first, second : ndarray, shape (p, size), uintp
        Pixels.
    weight : ndarray, shape (p, size), float32
        Of the second.
    inside : ndarray, shape (p, 2), int64
        Range of positions that are inside.
    """
    p = len(scale)
    first, second = np.empty((p, size), dtype=np.uintp), np.empty((p, size), dtype=np.uintp)
    weight, inside = np.empty((p, size), dtype=np.float32), np.empty((p, 2), dtype=np.int64)
    for k in range(p):
        inside[k, 0], inside[k, 1] = look_up((first[k], second[k], weight[k]), scale[k], shift[k], mirrored[k])
    return first, second, weight, inside
