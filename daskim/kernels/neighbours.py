"""All pairs of rows within a radius, exactly: a lower bound by matrix products, then the true distance of what is left.

An orthonormal projection never lengthens a difference (Chan, Fu, Yu 2003, the search by leading Haar coefficients, uses
a fixed one). Here it is the leading principal directions of the rows themselves, which hold most of every difference,
and one number more: the length of what the projection leaves out. For x = V f + u with u orthogonal to V,
|x - y|^2 = |f_x - f_y|^2 + |u_x - u_y|^2 >= |f_x - f_y|^2 + (|u_x| - |u_y|)^2, the reverse triangle inequality.
"""

from __future__ import annotations

import numpy as np

__all__ = ["candidate_pairs", "principal_directions", "project", "squared_distances"]

EPS32 = float(np.finfo(np.float32).eps)
FLOAT32_MAX = float(np.finfo(np.float32).max)


def principal_directions(covariance: np.ndarray, k: int, *, seed: int = 0, iterations: int = 4) -> np.ndarray:
    """About the k leading eigenvectors of a covariance (or Gram) matrix, by subspace iteration.

    Any orthonormal set gives a correct lower bound; a better one gives fewer candidates, so four iterations do.

    Parameters
    ----------
    covariance : ndarray, shape (m, m), float64, symmetric, positive semidefinite
    k : int
        At most m are returned.

    Returns
    -------
    ndarray, shape (m, min(k, m)), float64, orthonormal columns, by falling eigenvalue.
    """
    m = covariance.shape[0]
    width = min(m, k + 16)
    basis = np.random.default_rng(seed).standard_normal((m, width))
    for _ in range(iterations):
        basis, _ = np.linalg.qr(covariance @ basis)
    values, vectors = np.linalg.eigh(basis.T @ covariance @ basis)
    return basis @ vectors[:, np.argsort(values)[::-1][: min(k, m)]]


def project(rows: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Coordinates of rows in the directions, and the length of the remainder as one column more.

    Parameters
    ----------
    rows : ndarray, shape (b, m), integer or float
    mean : ndarray, shape (m,), float64
        Taken off first: smaller numbers round less. Distances do not change.
    directions : ndarray, shape (m, k), float64, orthonormal

    Returns
    -------
    ndarray, shape (b, k + 1), float32
    """
    centred = rows.astype(np.float64) - mean
    inside = centred @ directions
    rest = np.einsum("ij,ij->i", centred, centred) - np.einsum("ij,ij->i", inside, inside)
    return np.column_stack([inside, np.sqrt(np.maximum(rest, 0.0))]).astype(np.float32)


def candidate_pairs(
    left: np.ndarray, right: np.ndarray | None, radius: float, *, tile: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs whose features lie within `radius`, none missed whatever float32 rounds.

    Parameters
    ----------
    left, right : ndarray, shape (p, k) and (q, k), float32
        Features by `project`. With right None, the pairs i < j within `left`.
    radius : float
    tile : int
        Rows of a tile. 512 keep the distances of a tile (1 MB) in the cache.

    Returns
    -------
    i, j : ndarray, int64
        Ordered by (i, j) within tiles.

    Raises
    ------
    ValueError
        Features too large for their squares in float32 (above about 1e19), or not finite.

    Notes
    -----
    One float32 product gives the squared distance: [-2 x, |x|^2, 1] . [y, 1, |y|^2]. Its error is below
    (k + 2) eps (|x|^2 + |y|^2), that of the rounded norms and features together below 3 eps (|x|^2 + |y|^2). The norms
    are shortened by 2 (k + 8) eps, which leaves more than (k + 10) eps for the float64 rounding of the remainder in
    `project`.
    """
    same = right is None
    other = left if right is None else right
    k = left.shape[1]
    keep = 1.0 - 2.0 * (k + 8) * EPS32
    norm = _shortened(left, keep)
    rows = np.column_stack([np.float32(-2.0) * left, norm, np.ones_like(norm)])
    norm = norm if same else _shortened(other, keep)
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
    if not found_i:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(found_i), np.concatenate(found_j)


def _shortened(features: np.ndarray, keep: float) -> np.ndarray:
    norm = keep * np.einsum("ij,ij->i", features, features, dtype=np.float64)
    if not (norm < FLOAT32_MAX / 4).all():
        raise ValueError("features that are not finite, or whose squares exceed float32")
    return norm.astype(np.float32)


def squared_distances(left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of pairs of rows, exact below 2^53 for integer rows; shape (p,), float64.

    Parameters
    ----------
    left, right : ndarray, shape (a, m) and (b, m), of one dtype
        int16 and wider rows must keep their differences inside the dtype (`haar_dtype` does); narrower and unsigned
        ones are widened.
    i, j : ndarray, shape (p,), int
        Pair t is left[i[t]] and right[j[t]].

    Notes
    -----
    64 pairs at a time stay in the cache. Sums of squares of integers are exact in float32 below 2^24, and a sum that
    reaches it is done again in float64; rows of floats go to float64 at once.
    """
    exact = np.issubdtype(left.dtype, np.integer) and np.issubdtype(right.dtype, np.integer)
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
