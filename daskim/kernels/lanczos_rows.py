"""Lanczos on blocks of rows: what one block does in a step, so that no process needs more than one n x p operand.

The recurrence of `daskim.kernels.lanczos`, without reorthogonalisation, with vectors that are not scaled: step j has
u_j = size_j v_j, and size_j is beta_{j-1}. From the whole u_j a block of rows makes its rows of the remainder
w_j = A v_j - beta_{j-1} v_{j-1} and its part of alpha_j = v_j' w_j; when all parts are summed, whoever needs
u_{j+1} = w_j - alpha_j v_j makes it, and its size, from u_j and w_j. So a step is one round of tasks, in which each
process reads n x p numbers, and p numbers a block go to the one who adds.

Sums are float64 in the order of the blocks: the bits depend on the blocks, not on who works on them. Vectors may be
float32, which halves what is sent and read: they perturb the matrix by some 1e-7 of its norm, and the density by as
much (Greenbaum 1989; Chen, Trogdon, Ubaru 2021, section 4, for Lanczos in finite precision).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from daskim.kernels.lanczos import LanczosState

__all__ = ["advance", "floor_of", "signs", "state_of", "step_of_rows"]

# Rows at a time in sums: their float64 copies stay in a cache.
CHUNK = 2**12
# Remainders below so many units of rounding of the largest entry of T are none: the run is exhausted. One that is not
# noticed is followed by a T cut off by an entry of this size, of no weight in the quadrature.
UNITS = 64.0


def signs(n: int, count: int, *, seed: int, dtype: np.typing.DTypeLike) -> np.ndarray:
    """The Rademacher vectors of `daskim.kernels.lanczos.probes` with entries of size 1; shape (n, count)."""
    vectors = np.empty((n, count), dtype=dtype)
    for q in range(count):
        vectors[:, q] = np.random.default_rng([seed, q]).integers(0, 2, n)
    vectors *= 2
    vectors -= 1
    return vectors


def step_of_rows(
    matrix: csr_array,
    vectors: np.ndarray,
    first: int,
    before: np.ndarray | None,
    size: np.ndarray,
    size_before: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """One step on a block of rows.

    Parameters
    ----------
    matrix : csr_array, shape (m, n), of the dtype of the vectors
        Rows first .. first + m of the symmetric matrix.
    vectors : ndarray, shape (n, p)
        u_j.
    before : ndarray, shape (m, p), or None in the first step
        These rows of u_{j-1}.
    size, size_before : ndarray, shape (p,), float64
        size_j and size_{j-1}; 0 where a run is exhausted.

    Returns
    -------
    remainder : ndarray, shape (m, p)
        These rows of w_j.
    part : ndarray, shape (p,), float64
        Their part of alpha_j.
    """
    inverse = _inverse(size)
    remainder = matrix @ vectors
    remainder *= inverse.astype(vectors.dtype)
    back = None
    if before is not None and size_before is not None:
        back = (size * _inverse(size_before)).astype(vectors.dtype)
    part = np.zeros(vectors.shape[1])
    for lo in range(0, len(remainder), CHUNK):
        rows = remainder[lo : lo + CHUNK]
        if back is not None and before is not None:
            rows -= before[lo : lo + CHUNK] * back
        part += _dots(vectors[first + lo : first + lo + len(rows)], rows)
    return remainder, part * inverse


def advance(vectors: np.ndarray, remainder: np.ndarray, alpha: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Rows of u_j become those of u_{j+1}, in place; their sums of squares, shape (p,), float64."""
    ratio = (-alpha * _inverse(size)).astype(vectors.dtype)
    squares = np.zeros(vectors.shape[1])
    for lo in range(0, len(vectors), CHUNK):
        rows = vectors[lo : lo + CHUNK]
        rows *= ratio
        rows += remainder[lo : lo + CHUNK]
        squares += _dots(rows, rows)
    return squares


def floor_of(alpha: np.ndarray, size: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
    """Sizes of the next u up to which it is rounding alone; from alpha and size so far, shape (j + 1, p) each."""
    scale = np.maximum(np.abs(alpha).max(axis=0), size[1:].max(axis=0, initial=0.0))
    return UNITS * float(np.finfo(dtype).eps) * scale


def state_of(n: int, alpha: np.ndarray, size: np.ndarray) -> LanczosState:
    """What `ritz_spectrum` reads: alpha, shape (k, p), and k + 1 sizes, the last that of what is left over."""
    p = alpha.shape[1]
    none = np.zeros((n, 0))
    return LanczosState(alpha, size[1:], (size[:-1] > 0).sum(axis=0), none, none, np.zeros((p, 0, n)), False)


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->j", a.astype(np.float64, copy=False), b.astype(np.float64, copy=False))


def _inverse(size: np.ndarray) -> np.ndarray:
    return np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
