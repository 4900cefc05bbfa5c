"""The similarity graph of images: its matrix, its Laplacians, its components.

S is symmetric with a zero diagonal; S[i, j] is the similarity of images i and j, 0 where the pair is not listed. Each
component of the graph is a diagonal block of S (after sorting the images) and of every Laplacian, so the spectrum of
the whole is the union of the spectra of the blocks, and the multiplicity of the eigenvalue 0 is the number of
components (von Luxburg 2007, propositions 2 and 4): blocks are worked on one by one, and none of it costs more than
O(n + pairs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.sparse import csr_array, diags_array

from daskim.kernels.ward import components

__all__ = ["ComponentBlocks", "component_blocks", "laplacian", "similarity_matrix"]

Negative = Literal["clip", "signed", "absolute"]
Kind = Literal["unnormalised", "symmetric", "random-walk"]
Matrix = TypeVar("Matrix", np.ndarray, csr_array)


def similarity_matrix(
    n: int, a: np.ndarray, b: np.ndarray, similarity: np.ndarray, *, negative: Negative = "clip"
) -> csr_array:
    """The matrix S of listed pairs.

    Parameters
    ----------
    n : int
        Number of images.
    a, b : ndarray, shape (p,), int
        Pairs with a < b, each once, in any order.
    similarity : ndarray, shape (p,), float
    negative : {"clip", "signed", "absolute"}
        What becomes of similarities below 0: 0, themselves, or their absolute values.

    Returns
    -------
    csr_array, shape (n, n), float64
        Symmetric, zero diagonal, sorted indices, no stored zeros: an entry is an edge.

    Raises
    ------
    ValueError
        Pairs that are not a < b in 0..n-1, a pair listed twice, a similarity that is not finite, an unknown `negative`.
    """
    a, b, value = np.asarray(a), np.asarray(b), np.asarray(similarity, dtype=np.float64)
    if len(a) and not ((a < b).all() and a.min() >= 0 and b.max() < n):
        raise ValueError(f"pairs must have 0 <= a < b < {n}")
    if not np.isfinite(value).all():
        raise ValueError("a similarity that is not finite")
    if negative == "clip":
        value = np.maximum(value, 0.0)
    elif negative == "absolute":
        value = np.abs(value)
    elif negative != "signed":
        raise ValueError(f"negative = {negative!r}; known: clip, signed, absolute")
    upper = csr_array((value, (a, b)), shape=(n, n))  # sums what is listed twice
    if upper.nnz != len(value):
        raise ValueError(f"{len(value) - upper.nnz} pairs are listed twice")
    upper.eliminate_zeros()
    full = csr_array(upper + upper.T)
    full.sort_indices()
    return full


def laplacian(similarity: Matrix, kind: Kind = "unnormalised") -> Matrix:
    """A Laplacian of the similarity graph, dense for a dense matrix and sparse for a sparse one.

    Parameters
    ----------
    similarity : ndarray, shape (..., n, n), or csr_array, shape (n, n), float64
        S: symmetric. Its diagonal is not read. Leading axes of a dense one are a stack of graphs.
    kind : {"unnormalised", "symmetric", "random-walk"}
        D - S; or, with S' = S but ones on the diagonal and D' its degrees, I - D'^-1/2 S' D'^-1/2 and I - D'^-1 S'.

    Returns
    -------
    ndarray or csr_array of the same shape, float64
        Degrees are sums of |S|: all three are then positive semidefinite and the normalised ones defined whatever the
        signs, with eigenvalues in [0, 2]. Without negative similarities these are the plain degrees.

    Notes
    -----
    With S_ii = 1 two identical images (equal rows of S') give e_i - e_j the eigenvalue 1, whatever their degree, at
    the upper end of the spectrum; in D - S it has d_i + 1, anywhere (METHOD.md). The multiplicity of 0 is the number of
    components where no similarity is negative, and at most that number otherwise.

    References
    ----------
    von Luxburg 2007, "A tutorial on spectral clustering", section 3; Kunegis et al. 2010, "Spectral analysis of signed
    graphs", for degrees from |S|.
    """
    if kind not in ("unnormalised", "symmetric", "random-walk"):
        raise ValueError(f"kind = {kind!r}; known: unnormalised, symmetric, random-walk")
    if isinstance(similarity, np.ndarray):
        return _dense_laplacian(similarity, kind)
    edges = similarity.tocoo(copy=False)
    real = edges.row != edges.col
    off = csr_array((edges.data[real].astype(np.float64), (edges.row[real], edges.col[real])), shape=edges.shape)
    degree = np.asarray(abs(off).sum(axis=1)).ravel()
    left, right, kept = _scales(degree, kind)
    rows = np.repeat(np.arange(off.shape[0]), np.diff(off.indptr))
    off.data *= -left[rows] * right[off.indices]
    return csr_array(diags_array(kept) + off)


def _dense_laplacian(similarity: np.ndarray, kind: Kind) -> np.ndarray:
    off = similarity.astype(np.float64)
    diagonal = np.arange(off.shape[-1])
    off[..., diagonal, diagonal] = 0.0
    degree = np.abs(off).sum(axis=-1)
    left, right, kept = _scales(degree, kind)
    off *= -left[..., :, None] * right[..., None, :]
    off[..., diagonal, diagonal] = kept
    return off


def _scales(degree: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors of rows and columns of S, and the diagonal: 1 - 1 / d' as d / d', exactly 0 for a lone image."""
    whole = degree + 1.0
    if kind == "unnormalised":
        return np.ones_like(whole), np.ones_like(whole), degree
    if kind == "random-walk":
        return 1.0 / whole, np.ones_like(whole), degree / whole
    root = 1.0 / np.sqrt(whole)
    return root, root, degree / whole


@dataclass(frozen=True)
class ComponentBlocks:
    """The components of a graph, and its matrix as one diagonal block for each.

    Attributes
    ----------
    label : ndarray, shape (n,), int64
        Component of each image; components are numbered by their smallest image.
    order : ndarray, shape (n,), int64
        Images by component, ascending within each.
    start : ndarray, shape (components + 1,), int64
        Component c holds the images order[start[c]:start[c + 1]].
    matrix : csr_array, shape (n, n), float64
        S with rows and columns in `order`: block diagonal.
    """

    label: np.ndarray
    order: np.ndarray
    start: np.ndarray
    matrix: csr_array

    @property
    def sizes(self) -> np.ndarray:
        """Images of each component; shape (components,), int64."""
        return np.diff(self.start)

    def images(self, c: int) -> np.ndarray:
        """The images of component c, ascending; int64."""
        return self.order[self.start[c] : self.start[c + 1]]

    def block(self, c: int) -> csr_array:
        """S among the images of component c, in their order; costs O(its entries)."""
        first, last = int(self.start[c]), int(self.start[c + 1])
        entries = slice(int(self.matrix.indptr[first]), int(self.matrix.indptr[last]))
        indptr = self.matrix.indptr[first : last + 1] - entries.start
        inside = self.matrix.indices[entries] - np.asarray(first, dtype=self.matrix.indices.dtype)
        return csr_array((self.matrix.data[entries], inside, indptr), shape=(last - first, last - first))


def component_blocks(similarity: csr_array) -> ComponentBlocks:
    """Components of the graph of entries that are not 0.

    Parameters
    ----------
    similarity : csr_array, shape (n, n), float64, symmetric
    """
    edges = similarity.tocoo(copy=False)
    n = similarity.shape[0]
    real = edges.data != 0
    label = components(n, edges.row[real], edges.col[real])
    order = np.argsort(label, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(label))]).astype(np.int64)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    matrix = csr_array((edges.data[real], (place[edges.row[real]], place[edges.col[real]])), shape=(n, n))
    matrix.sort_indices()
    return ComponentBlocks(label, order, start, matrix)
