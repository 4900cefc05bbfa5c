"""Pairs of rows within a radius and squared distances of pairs, compiled: the loops of `daskim.kernels.neighbours`."""

from __future__ import annotations

import numpy as np

from daskim.kernels.compiled import compiled

__all__ = ["HEAD", "LEAF", "MIDDLE", "pair_distances", "within"]

# Rows of a tile, which has one bounding box.
LEAF = 64
# Numbers of a row in the two steps, each the length of what comes after and then as many columns, less one.
HEAD, MIDDLE = 16, 40
ZERO = np.float32(0)


@compiled
def _apart(x, y):  # type: ignore[no-untyped-def]
    """Squared distance of two vectors whose length is a multiple of 8, summed in eight lanes."""
    a = b = c = d = e = f = g = h = np.float32(0)
    for at in range(0, x.shape[0], 8):
        u, v = x[at : at + 8], y[at : at + 8]
        a += (u[0] - v[0]) * (u[0] - v[0])
        b += (u[1] - v[1]) * (u[1] - v[1])
        c += (u[2] - v[2]) * (u[2] - v[2])
        d += (u[3] - v[3]) * (u[3] - v[3])
        e += (u[4] - v[4]) * (u[4] - v[4])
        f += (u[5] - v[5]) * (u[5] - v[5])
        g += (u[6] - v[6]) * (u[6] - v[6])
        h += (u[7] - v[7]) * (u[7] - v[7])
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@compiled
def _add_four(values, block, start, sums):  # type: ignore[no-untyped-def]
    """Add to LEAF sums the squared differences in four columns from `start` on."""
    a, b, c, d = values[start], values[start + 1], values[start + 2], values[start + 3]
    one, two, three, four = block[start], block[start + 1], block[start + 2], block[start + 3]
    for y in range(LEAF):
        p, q, r, s = a - one[y], b - two[y], c - three[y], d - four[y]
        sums[y] += (p * p + q * q) + (r * r + s * s)


@compiled
def within(left, right, blocks, low, high, longest, start, same, bound, slack, i, j):  # type: ignore[no-untyped-def]
    """Pairs of rows that may lie within a bound, from row `start` of the left ones until the arrays i, j may overflow.

    Parameters
    ----------
    left, right : tuple of (head, middle, tail, norms)
        Of p and q rows: float32 of shape (rows, HEAD), (rows, MIDDLE) and (rows, a multiple of 8); each of the first
        two begins with the length of the columns that only the later ones have. Squared lengths, float64.
    blocks : ndarray, shape (tiles, HEAD, LEAF), float32
        The heads of the right rows by tiles, transposed.
    low, high : ndarray, shape (HEAD, tiles), float32
        Bounding box of the heads in each tile.
    longest : ndarray, shape (tiles,), float64
        The largest squared length of a row in each tile.
    same : bool
        Both sides are the same rows: only pairs i < j.
    bound, slack : float
        A pair stays when the sum of squares is at most bound + slack (|x|^2 + |y|^2).
    i, j : ndarray, shape (c,), int64, c > q
        Written to.

    Returns
    -------
    next : int
        The first left row that was not looked at.
    count : int
    """
    heads, middles, tails, norms = left
    others, middles_right, tails_right, _ = right
    p, q, tiles = heads.shape[0], others.shape[0], blocks.shape[0]
    sums = np.empty(LEAF, dtype=np.float32)
    gaps = np.empty(tiles, dtype=np.float32)
    count = 0
    for x in range(start, p):
        if count + q > i.shape[0]:
            return x, count
        head, middle, tail = heads[x], middles[x], tails[x]
        gaps[:] = 0
        for c in range(HEAD):
            value, below, above = head[c], low[c], high[c]
            for t in range(tiles):
                apart = max(max(below[t] - value, value - above[t]), ZERO)
                gaps[t] += apart * apart
        for t in range(x // LEAF if same else 0, tiles):
            limit = np.float32(bound + slack * (norms[x] + longest[t]))
            if gaps[t] > limit:
                continue
            block = blocks[t]
            sums[:] = 0
            _add_four(head, block, 0, sums)
            _add_four(head, block, 4, sums)
            near = np.int32(0)
            for y in range(LEAF):
                near += np.int32(sums[y] <= limit)
            if near == 0:
                continue
            _add_four(head, block, 8, sums)
            _add_four(head, block, 12, sums)
            first = t * LEAF
            for y in range(x + 1 - first if same and x >= first else 0, min(LEAF, q - first)):
                if not sums[y] <= limit:
                    continue
                other = first + y
                apart = head[0] - block[0, y]
                total = sums[y] - apart * apart + _apart(middle, middles_right[other])
                if total > limit:
                    continue
                apart = middle[0] - middles_right[other, 0]
                if total - apart * apart + _apart(tail, tails_right[other]) <= limit:
                    i[count], j[count] = x, other
                    count += 1
    return p, count


@compiled
def pair_distances(left, right, i, j, most, out):  # type: ignore[no-untyped-def]
    """Squared distances of pairs of integer rows into `out`; once a sum exceeds `most`, what it has come to.

    The sum is an int64: exact where the squared distance is below 2^63.
    """
    m = left.shape[1]
    for t in range(len(i)):
        x, y = left[i[t]], right[j[t]]
        total = np.int64(0)
        for start in range(0, m, 512):
            u, v = x[start : start + 512], y[start : start + 512]
            for c in range(len(u)):
                apart = np.int64(u[c]) - np.int64(v[c])
                total += apart * apart
            if total > most:
                break
        out[t] = total
