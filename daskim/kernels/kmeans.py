"""Small pieces of k-means: seeding, the objective, distances to centres."""

from __future__ import annotations

import numpy as np

__all__ = ["cluster_sums", "nearest_centres", "seed_centres", "squared_error"]


def seed_centres(points: np.ndarray, k: int, *, seed: int = 0) -> np.ndarray:
    """Indices of k distinct rows by k-means++ (greedy in nothing: one draw a step).

    Parameters
    ----------
    points : ndarray, shape (n, m), integer or float
        Copied to float64, less their mean: of n * m numbers this is the memory.
    k : int, 1 <= k <= n

    Returns
    -------
    ndarray, shape (k,), int64
        Distinct; where all remaining rows equal a chosen one, the smallest unused indices.

    Raises
    ------
    ValueError
        For any other k.

    References
    ----------
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    """
    n = points.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} centres of {n} rows")
    rng = np.random.default_rng(seed)
    centred = points.astype(np.float64)
    centred -= centred.mean(axis=0)  # a common offset would drown the distances in rounding
    norms = np.einsum("ij,ij->i", centred, centred)
    rounding = (points.shape[1] + 4) * np.finfo(np.float64).eps  # of a distance, relative to the two squared norms
    chosen = np.empty(k, dtype=np.int64)
    used = np.zeros(n, dtype=bool)
    nearest = np.full(n, np.inf)
    pick = int(rng.integers(n))
    for step in range(k):
        chosen[step] = pick
        used[pick] = True
        both = norms + norms[pick]
        distance = both - 2.0 * (centred @ centred[pick])
        distance[distance <= rounding * both] = 0.0  # chosen rows, and those equal to one, are never drawn
        np.minimum(nearest, distance, out=nearest)
        mass = np.cumsum(nearest)
        if mass[-1] > 0:
            pick = min(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")), n - 1)
        if mass[-1] <= 0 or used[pick]:
            pick = int(np.argmin(used))
    return chosen


def nearest_centres(points: np.ndarray, centres: np.ndarray, count: int = 1) -> np.ndarray:
    """The nearest centres of each row, nearest first, ties to the smaller index.

    Parameters
    ----------
    points, centres : ndarray, shape (n, m) and (k, m), integer or float
        Distances are worked out in float64; up to their rounding (exact for integers below 2^53), ties are ties.
    count : int, 1 <= count <= k

    Returns
    -------
    ndarray, shape (n, count), int64
    """
    if not 1 <= count <= centres.shape[0]:
        raise ValueError(f"{count} nearest of {centres.shape[0]} centres")
    middle = centres.astype(np.float64)
    squared = np.einsum("ij,ij->i", middle, middle)[None, :] - 2.0 * (points @ middle.T)
    nearest = np.empty((points.shape[0], count), dtype=np.int64)
    rows = np.arange(points.shape[0])
    for rank in range(count):  # a handful of passes costs far less than sorting k distances a row
        nearest[:, rank] = np.argmin(squared, axis=1)
        squared[rows, nearest[:, rank]] = np.inf
    return nearest


def cluster_sums(points: np.ndarray, label: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the rows and number of rows of each cluster; shapes (k, m) float64 and (k,) int64.

    Rows are taken 1024 at a time in the order of their clusters: no copy of all rows in float64.
    """
    order = np.argsort(label, kind="stable")
    counts = np.bincount(label, minlength=k)
    sums = np.zeros((k, points.shape[1]))
    for start in range(0, len(order), 1024):
        part = order[start : start + 1024]
        starts = np.flatnonzero(np.diff(label[part], prepend=-1))
        sums[label[part[starts]]] += np.add.reduceat(points[part].astype(np.float64), starts, axis=0)
    return sums, counts


def squared_error(points: np.ndarray, centres: np.ndarray, label: np.ndarray) -> float:
    """The k-means objective: sum of squared distances of rows to the centre of their cluster."""
    total = 0.0
    for start in range(0, points.shape[0], 1024):
        difference = points[start : start + 1024].astype(np.float64) - centres[label[start : start + 1024]]
        total += float(np.einsum("ij,ij->", difference, difference))
    return total
