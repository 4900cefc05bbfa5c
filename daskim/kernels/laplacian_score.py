"""Laplacian score: how well a column respects the neighbourhood of the rows, without labels.

A column is good when rows near one another have near values in it (few differences along the edges of the neighbour
graph) while it varies over the rows at large.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

from daskim.kernels.nearest import lowest

__all__ = ["heat_kernel_graph", "laplacian_scores"]


def heat_kernel_graph(rows: np.ndarray, neighbours: int, *, tile: int = 512) -> csr_array:
    """Symmetric graph of the nearest neighbours, weighted by a heat kernel.

    Parameters
    ----------
    rows : ndarray, shape (s, d), integer or float
        Squared distances of integer rows are exact, and so independent of threads, while d * max(|row|)^2 < 2^51.
    neighbours : int
        k. i and j are joined where one is among the k nearest of the other; ties go to the smaller index. At most
        s - 1 are taken.
    tile : int
        Rows whose distances to all others are held at once.

    Returns
    -------
    csr_array, shape (s, s), float64
        S_ij = exp(-|x_i - x_j|^2 / t) with t the mean squared distance of the joined pairs, so that weights do not
        depend on the scale of the rows; 1 where all are equal. No loops.

    References
    ----------
    He, Cai, Niyogi, "Laplacian score for feature selection", NIPS 2005, section 2.1, steps 1 and 2. The paper leaves t
    open.
    """
    s = rows.shape[0]
    k = min(neighbours, s - 1)
    if k < 1:
        return csr_array((s, s), dtype=np.float64)
    wide = rows.astype(np.float64)
    norms = np.einsum("ij,ij->i", wide, wide)
    source, target, squared = [], [], []
    for start in range(0, s, tile):
        part = slice(start, start + tile)
        distance = norms[part, None] + norms - 2.0 * (wide[part] @ wide.T)
        own = np.arange(distance.shape[0])
        distance[own, own + start] = np.inf
        i, j = lowest(distance, k)
        source.append(i + start)
        target.append(j)
        squared.append(np.maximum(distance[i, j], 0.0))
    i, j, value = np.concatenate(source), np.concatenate(target), np.concatenate(squared)
    # one entry for each joined pair, whichever of the two chose the other
    low, high = np.minimum(i, j), np.maximum(i, j)
    _, first = np.unique(low * s + high, return_index=True)
    low, high, value = low[first], high[first], value[first]
    width = value.mean()
    weight = np.exp(-value / width) if width > 0 else np.ones_like(value)
    both = np.concatenate([low, high]), np.concatenate([high, low])
    return csr_array(coo_array((np.concatenate([weight, weight]), both), shape=(s, s)))


def laplacian_scores(rows: np.ndarray, graph: csr_array, *, width: int = 256) -> np.ndarray:
    """The score of every column; lower is better.

    Parameters
    ----------
    rows : ndarray, shape (s, d), integer or float
    graph : csr_array, shape (s, s)
        S, symmetric, weights not negative, by `heat_kernel_graph`.
    width : int
        Columns worked on at once.

    Returns
    -------
    ndarray, shape (d,), float64
        L_r = f~' L f~ / f~' D f~ with D the degrees, L = D - S, f a column and f~ = f - (f' D 1 / 1' D 1) 1. From 0 to
        2; infinite where the column has one value on all rows with an edge, so nothing to tell.

    References
    ----------
    He, Cai, Niyogi 2005, section 2.1, steps 3 and 4.
    """
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    seen = degrees > 0
    total = degrees.sum()
    scores = np.full(rows.shape[1], np.inf)
    if not seen.any():
        return scores
    for start in range(0, rows.shape[1], width):
        f = rows[:, start : start + width].astype(np.float64)
        varies = (f[seen] != f[seen][0]).any(axis=0)
        f -= degrees @ f / total
        weighted = degrees[:, None] * f
        spread = np.einsum("ij,ij->j", f, weighted)
        rough = np.einsum("ij,ij->j", f, weighted - graph @ f)
        np.divide(np.maximum(rough, 0.0), spread, out=scores[start : start + width], where=varies & (spread > 0))
    return scores
