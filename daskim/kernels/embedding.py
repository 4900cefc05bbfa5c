"""Spectral clustering of one component: eigenvectors of its Laplacian as coordinates, k-means among them.

Steps as in Ng, Jordan and Weiss (2001) and von Luxburg (2007, section 4), with three additions for k near the number of
images, where redundant images are what is looked for:

1. No eigenvector with eigenvalue 1 or more enters the symmetric or random-walk embedding. Those at 1 span the null
   space of S' (S with ones on the diagonal), where the differences e_i - e_j of identical images are: they would tell
   identical images apart, as nothing else does. Those above it belong to negative eigenvalues of S'.
2. Eigenvalues tied with the k-th enter together: any basis of their space gives the same distances, so that the
   partition does not depend on the one that LAPACK or ARPACK happens to return.
3. At k near n a random seeding puts both of a pair among the centres with probability (k/n)^2, and Lloyd's steps never
   join them. Ward's tree, cut at k, joins the nearest first, and is where Lloyd starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from daskim.kernels.graph import Kind, laplacian
from daskim.kernels.kmeans import cluster_sums, nearest_centres, seed_centres, squared_error
from daskim.kernels.spectral import TIED
from daskim.kernels.ward import components, cut, labels_after, ward_dense

__all__ = ["DENSE_ROWS", "SPARSE_CLUSTERS", "SpectralClusters", "spectral_clusters"]

DENSE_ROWS = 4000  # 128 MB a matrix, of which there are about six at a time
SPARSE_CLUSTERS = 200  # ARPACK keeps 2 k + 1 vectors and orthogonalises each against all
IDENTICAL = 1e-6  # distance in the embedding: eigenvectors are good to 1e-16 / TIED = 1e-7 of unit length
LLOYD_STEPS = 100


@dataclass(frozen=True)
class SpectralClusters:
    """A partition of one block.

    Attributes
    ----------
    label : ndarray, shape (m,), int64
        0..k-1, numbered by the first image of each cluster.
    central : ndarray, shape (k,), int64
        The image nearest the cluster's mean in the embedding, within 1e-9 the first of several.
    distance : ndarray, shape (m,), float64
        Each image's distance to that mean; at most 2 between unit rows.
    """

    label: np.ndarray
    central: np.ndarray
    distance: np.ndarray


def spectral_clusters(
    block: np.ndarray | csr_array, k: int, *, kind: Kind = "symmetric", seed: int = 0, restarts: int = 10
) -> SpectralClusters:
    """Exactly k clusters of the images of one component.

    Parameters
    ----------
    block : ndarray or csr_array, shape (m, m), float64
        S, symmetric; its diagonal is not read.
    k : int, 1 <= k <= m
    kind : {"symmetric", "random-walk", "unnormalised"}
        Whose eigenvectors. Rows are scaled to unit length with "symmetric" only (Ng, Jordan, Weiss); "random-walk" is
        Shi and Malik's form. "unnormalised" separates identical images at k near m (METHOD.md).
    seed : int
        Of k-means++ and of the start vector of ARPACK.
    restarts : int
        k-means++ starts beside Ward's, for k <= m / 4. The least squared error counts.

    Returns
    -------
    SpectralClusters
        With the normalised kinds, images of similarity 1 with equal rows of S share a cluster as long as k is at most
        the number of different images. The partition does not depend on the order of the images, but for ties.

    Raises
    ------
    ValueError
        k out of range; more than SPARSE_CLUSTERS clusters of more than DENSE_ROWS images; no convergence there.

    Notes
    -----
    Up to DENSE_ROWS images: about 6 m^2 float64, 9 m^3 flops and m^2 for the tree. Above: ARPACK on the sparse matrix,
    and no tree.
    """
    m = block.shape[0]
    if not 1 <= k <= m:
        raise ValueError(f"{k} clusters of {m} images")
    if m > DENSE_ROWS and k > SPARSE_CLUSTERS:
        raise ValueError(
            f"{k} spectral clusters of one component of {m} images: above {DENSE_ROWS} images at most "
            f"{SPARSE_CLUSTERS}. Raise min_similarity until components are smaller, or cluster by threshold or medoids"
        )
    points = _embedding(block, k, kind, seed)
    group = _identical(block, points)
    first = np.unique(group, return_index=True)[1]
    points = points[first][group]  # identical images: not nearly, but bit for bit
    degree = np.asarray(abs(block).sum(axis=1)).ravel()
    label = _partition(points, group, first, k, np.argsort(degree, kind="stable"), seed, restarts)
    return _described(points, label, k)


def _embedding(block: np.ndarray | csr_array, k: int, kind: Kind, seed: int) -> np.ndarray:
    """Coordinates of the images, shape (m, about k)."""
    solved: Kind = "unnormalised" if kind == "unnormalised" else "symmetric"
    m = block.shape[0]
    if m > DENSE_ROWS:
        values, vectors = _smallest_sparse(csr_array(block), min(m - 1, k + 8), solved, seed)
    else:
        dense = np.asarray(block if isinstance(block, np.ndarray) else block.toarray())
        values, vectors = eigh(laplacian(dense, solved), driver="evd", overwrite_a=True, check_finite=False)
    apart = np.flatnonzero(np.diff(values[k - 1 :]) > TIED)
    width = k + int(apart[0]) if apart.size else len(values)
    if solved == "symmetric":
        width = min(width, max(1, int((values < 1.0 - TIED).sum())))
    points = vectors[:, :width]
    if kind == "symmetric":
        length = np.sqrt(np.einsum("ij,ij->i", points, points))
        return np.asarray(points / np.where(length > 0, length, 1.0)[:, None])
    if kind == "random-walk":
        degree = np.asarray(abs(block).sum(axis=1)).ravel() - np.abs(block.diagonal()) + 1.0
        return np.asarray(points / np.sqrt(degree)[:, None])
    return np.asarray(points)


def _smallest_sparse(block: csr_array, count: int, kind: Kind, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest eigenvalues as the largest of c I - L, c >= the largest of L (Gershgorin): no shift-invert at 0."""
    matrix = laplacian(block, kind)
    m = matrix.shape[0]
    shift = 2.0 * float(matrix.diagonal().max()) if kind == "unnormalised" else 2.0
    start = np.random.default_rng(seed).standard_normal(m)
    try:
        values, vectors = eigsh(csr_array(shift * eye_array(m) - matrix), count, which="LA", v0=start, tol=1e-10)
    except ArpackNoConvergence as error:
        raise ValueError(
            f"the {count} smallest eigenvalues of a component of {m} images lie too close together for ARPACK. "
            "Ask for fewer clusters, or raise min_similarity until components are smaller"
        ) from error
    order = np.argsort(-values, kind="stable")
    return shift - values[order], vectors[:, order]


def _identical(block: np.ndarray | csr_array, points: np.ndarray) -> np.ndarray:
    """Images of similarity 1 in one place, numbered by the first; shape (m,), int64."""
    edges = csr_array(block).tocoo()
    like = (edges.data >= 1.0 - TIED) & (edges.row < edges.col)
    a, b = edges.row[like], edges.col[like]
    same = np.zeros(len(a), dtype=bool)
    for start in range(0, len(a), 1024):
        part = slice(start, start + 1024)
        same[part] = np.linalg.norm(points[a[part]] - points[b[part]], axis=1) <= IDENTICAL
    return components(len(points), a[same], b[same])


def _partition(
    points: np.ndarray, group: np.ndarray, first: np.ndarray, k: int, order: np.ndarray, seed: int, restarts: int
) -> np.ndarray:
    """Cluster of each image: the best of Ward's tree and k-means++ restarts, each improved by Lloyd's steps.

    k-means++ draws from the images in `order`, which the images themselves determine, so that their numbering does not
    decide what is drawn.
    """
    if k == 1:
        return np.zeros(len(points), dtype=np.int64)
    starts = []
    if len(points) <= DENSE_ROWS:
        starts.append(_ward(points, first, group, k))
        if k >= first.size:
            return starts[0]  # every different image by itself: nothing to improve
    if k <= len(points) // 4 or not starts:
        shuffled = points[order]
        for attempt in range(max(1, restarts)):
            centres = shuffled[seed_centres(shuffled, k, seed=seed + attempt)]
            starts.append(nearest_centres(points[first], centres)[:, 0][group])
    best, least = starts[0], np.inf
    for start in starts:
        label = _lloyd(points, group, first, start, k)
        sums, counts = cluster_sums(points, label, k)
        error = squared_error(points, sums / counts[:, None], label)
        if error < least * (1.0 - TIED):
            best, least = label, error
    return best


def _ward(points: np.ndarray, first: np.ndarray, group: np.ndarray, k: int) -> np.ndarray:
    """Ward's tree cut at k. Distances are 0 between identical images, which therefore merge before all others."""
    places = points[first]
    norm = np.einsum("ij,ij->i", places, places)
    squared = np.maximum(norm[:, None] + norm - 2.0 * (places @ places.T), 0.0)
    np.fill_diagonal(squared, 0.0)
    merges = ward_dense(squared[np.ix_(group, group)], np.ones(len(points)))
    taken, _ = cut(merges.height, len(points) - k)
    return labels_after(len(points), merges.a[taken], merges.b[taken])


def _lloyd(points: np.ndarray, group: np.ndarray, first: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    """Lloyd's steps on the different images, each with the weight of its copies; k clusters stay k.

    An image moves only to a centre that is nearer by more than rounding.
    """
    places, own = points[first], label[first]
    for _ in range(LLOYD_STEPS):
        own = _filled(places, own, k)
        sums, counts = cluster_sums(points, own[group], k)
        centres = sums / counts[:, None]
        nearest = nearest_centres(places, centres)[:, 0]
        moved = np.flatnonzero(nearest != own)
        here = ((places[moved] - centres[own[moved]]) ** 2).sum(axis=1)
        there = ((places[moved] - centres[nearest[moved]]) ** 2).sum(axis=1)
        moved = moved[there < here - 1e-12]
        if not moved.size:
            break
        own = own.copy()
        own[moved] = nearest[moved]
    return _filled(places, own, k)[group]


def _filled(places: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    """Each empty cluster gets the place that is farthest from the centre of its cluster."""
    counts = np.bincount(label, minlength=k)
    if counts.min() > 0:
        return label
    label = label.copy()
    sums, _ = cluster_sums(places, label, k)
    centres = sums / np.maximum(counts, 1)[:, None]
    far = ((places - centres[label]) ** 2).sum(axis=1)
    for empty in np.flatnonzero(counts == 0).tolist():
        pick = int(np.argmax(np.where(counts[label] > 1, far, -1.0)))
        counts[label[pick]] -= 1
        label[pick], counts[empty], far[pick] = empty, 1, 0.0
    return label


def _described(points: np.ndarray, label: np.ndarray, k: int) -> SpectralClusters:
    _, firsts, inverse = np.unique(label, return_index=True, return_inverse=True)
    label = np.argsort(np.argsort(firsts, kind="stable"), kind="stable")[inverse]
    sums, counts = cluster_sums(points, label, k)
    distance = np.sqrt(((points - (sums / counts[:, None])[label]) ** 2).sum(axis=1))
    least = np.full(k, np.inf)
    np.minimum.at(least, label, distance)
    near = np.flatnonzero(distance <= least[label] + TIED)
    return SpectralClusters(label, near[np.unique(label[near], return_index=True)[1]], distance)
