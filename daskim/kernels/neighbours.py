"""All pairs of rows within a radius, exactly: a lower bound in float32, then the true distance of what is left.

An orthonormal projection never lengthens a difference (Chan, Fu, Yu 2003, the search by leading Haar coefficients, uses
a fixed one). Here it is the leading principal directions of the rows themselves, which hold most of every difference,
and a few numbers more: the lengths of what the projection leaves out. For x = V f + u_1 + ... + u_g with parts that are
orthogonal to V and to one another, |x - y|^2 = |f_x - f_y|^2 + sum |u_x - u_y|^2 >= |f_x - f_y|^2 + sum (|u_x| -
|u_y|)^2, the reverse triangle inequality. The same bound cuts a row of features short: sixteen of them and the length
of the others rule out 99 of 100 pairs; and the bounding box of some rows rules out all of them at once.
"""

from __future__ import annotations

import numpy as np

from daskim.kernels.compiled import engine

__all__ = ["box_order", "candidate_pairs", "principal_directions", "project", "squared_distances"]

EPS32 = float(np.finfo(np.float32).eps)
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Rows projected at a time, which stay in the cache. A constant: the last bit of a product may depend on it.
PIECE = 256


def principal_directions(factor: np.ndarray, k: int, *, seed: int = 0, iterations: int = 3) -> np.ndarray:
    """About the k leading right singular vectors of a matrix, by subspace iteration in float32.

    Any orthonormal set gives a correct lower bound; a better one gives fewer candidates, so three iterations do.

    Parameters
    ----------
    factor : ndarray, shape (r, m)
        Rows, or any matrix with nearly their Gram matrix, such as the leading rows of a factor R.
    k : int
        At most m are returned.

    Returns
    -------
    ndarray, shape (m, min(k, m)), float64, orthonormal columns, by falling singular value.
    """
    m = factor.shape[1]
    width = min(m, k + 16)
    largest = float(np.abs(factor).max(initial=0.0))
    matrix = (factor / (largest or 1.0)).astype(np.float32)
    basis = np.random.default_rng(seed).standard_normal((m, width), dtype=np.float32)
    for _ in range(iterations):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    seen = (matrix @ basis).astype(np.float64)
    _, vectors = np.linalg.eigh(seen.T @ seen)
    basis, _ = np.linalg.qr(basis.astype(np.float64) @ vectors[:, ::-1])
    return basis[:, : min(k, m)]


def project(
    rows: np.ndarray,
    mean: np.ndarray,
    directions: np.ndarray,
    columns: np.ndarray | None = None,
    rest: tuple[np.ndarray, ...] = (),
) -> np.ndarray:
    """Coordinates of rows in the directions, the length of the remainder, and the lengths of other columns.

    Parameters
    ----------
    rows : ndarray, shape (b, m), integer or float
    mean : ndarray, shape (m,), float64
        Taken off first: smaller numbers round less. Distances do not change.
    directions : ndarray, shape (s, k), float64, orthonormal
    columns : ndarray, shape (s,), int, optional
        Columns that the directions are of, all by default.
    rest : tuple of ndarray
        Groups of columns apart from them and from one another.

    Returns
    -------
    ndarray, shape (b, k + 1 + len(rest)), float32
    """
    k = directions.shape[1]
    out = np.empty((len(rows), k + 1 + len(rest)), dtype=np.float32)
    for start in range(0, len(rows), PIECE):
        part = slice(start, start + PIECE)
        chosen = rows[part] if columns is None else rows[part][:, columns]
        centred = chosen - (mean if columns is None else mean[columns])
        inside = centred @ directions
        left = np.einsum("ij,ij->i", centred, centred) - np.einsum("ij,ij->i", inside, inside)
        out[part, :k] = inside
        out[part, k] = np.sqrt(np.maximum(left, 0.0))
        for at, group in enumerate(rest):
            other = rows[part, group] - mean[group]
            out[part, k + 1 + at] = np.sqrt(np.einsum("ij,ij->i", other, other))
    return out


def box_order(points: np.ndarray, leaf: int) -> np.ndarray:
    """An order in which runs of `leaf` points have small bounding boxes; shape (n,), int64.

    Parameters
    ----------
    points : ndarray, shape (n, k), float
        Halved at the median of their widest column, again and again, at multiples of `leaf` (a k-d tree: Bentley 1975).
    """
    order = np.arange(len(points))
    open_runs = [(0, len(points))]
    while open_runs:
        lo, hi = open_runs.pop()
        leaves = -(-(hi - lo) // leaf)
        if leaves < 2:
            continue
        mine = order[lo:hi]
        values = points[mine]
        values = values[:, np.ptp(values[:: max(1, len(values) // 4096)], axis=0).argmax()]
        half = leaves // 2 * leaf
        order[lo:hi] = mine[np.argpartition(values, half)]
        open_runs += [(lo, lo + half), (lo + half, hi)]
    return order


def candidate_pairs(
    left: np.ndarray, right: np.ndarray | None, radius: float, *, tile: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs whose features lie within `radius`, none missed whatever float32 rounds.

    Parameters
    ----------
    left, right : ndarray, shape (p, k) and (q, k), float32
        Features by `project`. With right None, the pairs i < j within `left`. Where 64 rows after one another have a
        small bounding box (`box_order`), most of the others are never compared with them.
    radius : float
    tile : int
        Rows of a tile of the array form. 512 keep the distances of a tile (1 MB) in the cache.

    Returns
    -------
    i, j : ndarray, int64
        Ordered by (i, j), within tiles in the array form.

    Raises
    ------
    ValueError
        Features too large for their squares in float32 (above about 1e19), or not finite.

    Notes
    -----
    The array form, where there is no compiler: one float32 product gives the squared distance: [-2 x, |x|^2, 1] .
    [y, 1, |y|^2]. Its error is below (k + 2) eps (|x|^2 + |y|^2), that of the rounded norms and features together below
    3 eps (|x|^2 + |y|^2). The norms are shortened by 2 (k + 8) eps, which leaves more than (k + 10) eps for the float64
    rounding of the remainder in `project`. The compiled form sums squares of differences: its error is below (k + 8)
    eps of the sum, and it allows the same (k + 10) eps (|x|^2 + |y|^2) besides.
    """
    other = left if right is None else right
    norms = _norms(left)
    others = norms if right is None else _norms(other)
    if engine() == "numba":
        return _compiled_pairs(left, norms, other, others, radius, same=right is None)
    return _array_pairs(left, norms, other, others, radius, tile, same=right is None)


def _array_pairs(
    left: np.ndarray, norms: np.ndarray, other: np.ndarray, others: np.ndarray, radius: float, tile: int, *, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    keep = 1.0 - 2.0 * (left.shape[1] + 8) * EPS32
    norm = (keep * norms).astype(np.float32)
    rows = np.column_stack([np.float32(-2.0) * left, norm, np.ones_like(norm)])
    norm = (keep * others).astype(np.float32)
    columns = np.column_stack([other, np.ones_like(norm), norm])
    bound = np.float32(min(float(radius) ** 2 * (1 + 8 * EPS32), FLOAT32_MAX))
    found_i, found_j = [], []
    for p in range(0, left.shape[0], tile):
        for q in range(p if same else 0, other.shape[0], tile):
            distance = rows[p : p + tile] @ columns[q : q + tile].T
            hits = np.flatnonzero(distance <= bound)
            i, j = np.divmod(hits, distance.shape[1])
            if same and q == p:
                upper = i < j
                i, j = i[upper], j[upper]
            found_i.append(i + p)
            found_j.append(j + q)
    return _joined(found_i), _joined(found_j)


def _compiled_pairs(
    left: np.ndarray, norms: np.ndarray, other: np.ndarray, others: np.ndarray, radius: float, *, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    from daskim.kernels.compiled import near

    k, p, q = left.shape[1], len(left), len(other)
    if not p or not q:
        return _joined([]), _joined([])
    rows = (*_steps(left, near.HEAD, near.MIDDLE), norms)
    columns = rows if same else (*_steps(other, near.HEAD, near.MIDDLE), others)
    tiles = -(-q // near.LEAF)
    starts = np.arange(tiles) * near.LEAF
    low = np.ascontiguousarray(np.minimum.reduceat(columns[0], starts).T)
    high = np.ascontiguousarray(np.maximum.reduceat(columns[0], starts).T)
    longest = np.maximum.reduceat(others, starts)
    blocks = np.zeros((tiles * near.LEAF, near.HEAD), dtype=np.float32)
    blocks[:q] = columns[0]
    blocks = np.ascontiguousarray(blocks.reshape(tiles, near.LEAF, near.HEAD).transpose(0, 2, 1))
    bound, slack = float(radius) ** 2 * (1 + 2 * (k + 8) * EPS32), (k + 10) * EPS32
    i, j = np.empty((2, max(1 << 16, 2 * q)), dtype=np.int64)
    found_i, found_j = [], []
    start = 0
    while start < p:
        start, count = near.within(rows, columns, blocks, low, high, longest, start, same, bound, slack, i, j)
        found_i.append(i[:count].copy())
        found_j.append(j[:count].copy())
    return _joined(found_i), _joined(found_j)


def _steps(features: np.ndarray, head: int, middle: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns for the three steps of `near.within`, padded with zeros."""
    (n, k), one, two = features.shape, head - 1, head + middle - 2
    first, second = np.zeros((n, head), dtype=np.float32), np.zeros((n, middle), dtype=np.float32)
    last = np.zeros((n, -(-max(0, k - two) // 8) * 8), dtype=np.float32)
    first[:, 1 : min(k, one) + 1] = features[:, :one]
    second[:, 1 : max(0, min(k, two) - one) + 1] = features[:, one:two]
    last[:, : max(0, k - two)] = features[:, two:]
    later = _squared(last)
    second[:, 0] = np.sqrt(later)
    first[:, 0] = np.sqrt(later + _squared(second[:, 1:]))
    return first, second, last


def _squared(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _norms(features: np.ndarray) -> np.ndarray:
    norm = _squared(features)
    if not (norm < FLOAT32_MAX / 4).all():
        raise ValueError("features that are not finite, or whose squares exceed float32")
    return norm


def squared_distances(
    left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray, most: float | None = None
) -> np.ndarray:
    """Squared Euclidean distance of pairs of rows, exact below 2^53 for integer rows; shape (p,), float64.

    Parameters
    ----------
    left, right : ndarray, shape (a, m) and (b, m), of one dtype
        int16 and wider rows must keep their differences inside the dtype (`haar_dtype` does); narrower and unsigned
        ones are widened.
    i, j : ndarray, shape (p,), int
        Pair t is left[i[t]] and right[j[t]].
    most : float, optional
        A squared distance above it need not be exact: only above it too.

    Notes
    -----
    Compiled, a pair takes a seventh of the time of the array form: differences never leave the registers, and a sum
    above `most` ends early. There, 64 pairs at a time stay in the cache. Sums of squares of integers are exact in
    float32 below 2^24, and a sum that reaches it is done again in float64; rows of floats go to float64 at once.
    """
    exact = np.issubdtype(left.dtype, np.integer) and np.issubdtype(right.dtype, np.integer)
    if exact and max(left.dtype.itemsize, right.dtype.itemsize) < 4 and engine() == "numba":
        from daskim.kernels.compiled import near

        value = np.empty(len(i), dtype=np.float64)
        near.pair_distances(left, right, i, j, 2**62 if most is None else int(min(most, 2.0**62)), value)
        return value
    wide = np.promote_types(np.promote_types(left.dtype, right.dtype), np.int16) if exact else np.dtype(np.float64)
    out = np.empty(len(i), dtype=np.float64)
    for start in range(0, len(i), 64):
        part = slice(start, start + 64)
        difference = left[i[part]].astype(wide, copy=False) - right[j[part]].astype(wide, copy=False)
        if exact:
            single = difference.astype(np.float32)
            value = np.einsum("ij,ij->i", single, single)
            out[part] = value
            if value.max() < 2.0**24:
                continue
        double = difference.astype(np.float64)
        out[part] = np.einsum("ij,ij->i", double, double)
    return out
