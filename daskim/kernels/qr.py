"""Rank-revealing QR of a tall matrix: pivots from its Gram matrix or a tree of R factors.

For W = Q R with orthonormal columns in Q, the residual of column j after projecting on chosen columns is the same for
W, for R, and for the Gram matrix G = W'W, whose pivoted Cholesky factor carries the squared residuals on its diagonal.
So all three give the Businger-Golub pivots, up to ties and rounding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from daskim.kernels.blas import add_products

__all__ = ["PivotedFactor", "gram", "greedy_slack", "pivoted_cholesky", "pivoted_qr", "r_factor"]

# Two squared residuals closer than this (relative) are a tie, and the smaller column index wins. Rounding in a residual
# is about d * eps = 1e-12 of the *largest* residual, so ties are recognised reliably near the top, where they decide
# most.
TIE = 1e-12
# Rows of the trailing matrix that are moved together: they stay in the cache. A multiple of 16: then an entry is the
# same sum, operation by operation, wherever the matrix is split (measured with OpenBLAS, and not relied on).
TILE = 128


@dataclass(frozen=True)
class PivotedFactor:
    """A column-pivoted triangular factor: W[:, permutation] = Q R.

    Attributes
    ----------
    r : ndarray, shape (rank, d), float64
        Upper trapezoidal; its leading k x k block has the singular values of the first k chosen columns.
    permutation : ndarray, shape (d,), int64
        Column indices in the order chosen; those beyond `rank` in ascending order.
    rank : int
        Steps until the residual fell to the rounding level (or to the early stop).
    """

    r: np.ndarray
    permutation: np.ndarray
    rank: int


def gram(block: np.ndarray, *, leaf: int = 1024) -> np.ndarray:
    """W'W of one run of rows, float64, shape (d, d).

    Parameters
    ----------
    block : ndarray, shape (rows, d), integer or float
        Rows are converted to float64 `leaf` at a time, which bounds memory and, for floats, fixes the order of sums.

    Notes
    -----
    For integers the result is exact while rows * max(|w|)^2 < 2^53. Cost rows * d^2 flops (syrk).
    """
    d = block.shape[1]
    total = np.zeros((d, d))
    for start in range(0, block.shape[0], leaf):
        part = block[start : start + leaf].astype(np.float64)
        total += part.T @ part
    return total


def r_factor(*parts: np.ndarray) -> np.ndarray:
    """R of the Householder QR of the parts stacked on one another: leaf and node of the tall-skinny tree.

    Parameters
    ----------
    parts : ndarray, each shape (rows_i, d)
        Rows of W (a leaf), or R factors of disjoint sets of rows (a node).

    Returns
    -------
    ndarray, shape (min(sum rows, d), d), float64, diagonal not negative.

    References
    ----------
    Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and sequential QR and LU", SIAM J. Sci. Comput.
    34 (2012), section 4 (TSQR).
    """
    stacked = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])
    r = np.linalg.qr(stacked, mode="r")
    signs: np.ndarray = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return signs[:, None] * r


def pivoted_qr(r: np.ndarray, *, stop: float = 0.0) -> PivotedFactor:
    """QR with column pivoting (LAPACK geqp3) of an R factor from the tree.

    Parameters
    ----------
    r : ndarray, shape (k, d), integer or float
    stop : float
        End where |r_kk| / |r_11| falls below it (the paper's early stop); 0 = rounding level only, d * eps.

    Returns
    -------
    PivotedFactor
        Ties go as geqp3's swaps have it, not by index. Rows of R can have either sign.

    Raises
    ------
    ValueError
        An entry that is not finite.
    """
    wide = np.asarray(r, dtype=np.float64)  # scipy would take int16 and float32 to LAPACK's single precision
    factor, permutation = scipy.linalg.qr(wide, mode="r", pivoting=True)
    d = factor.shape[1]
    diagonal = np.abs(np.diagonal(factor))
    floor = max(stop, d * np.finfo(float).eps) * diagonal.max(initial=0.0)
    small = np.flatnonzero(diagonal <= floor)
    rank = int(small[0]) if small.size else diagonal.size
    order = np.concatenate([permutation[:rank], np.sort(permutation[rank:])]).astype(np.int64)
    position = np.empty(d, dtype=np.int64)
    position[permutation] = np.arange(d)
    return PivotedFactor(factor[:rank, position[order]], order, rank)


def pivoted_cholesky(gram_matrix: np.ndarray, *, stop: float = 0.0, panel: int = 128) -> PivotedFactor:
    """Cholesky factorisation with complete pivoting of a positive semidefinite matrix; ties go to the smaller index.

    Parameters
    ----------
    gram_matrix : ndarray, shape (d, d), float64 or int64
    stop : float
        End where |r_kk| / |r_11| falls below it; 0 = rounding level, d * eps on the squared residuals (as LAPACK's
        pstrf).
    panel : int
        Steps between two updates of the trailing matrix (those are matrix products).

    Returns
    -------
    PivotedFactor
        With R'R = G on the chosen columns. Pivots can be trusted up to a condition number of about 1e7.

    Raises
    ------
    ValueError
        An entry that is not finite (sums of squares that overflow, say); it would end as a rank too small.

    References
    ----------
    Higham, "Analysis of the Cholesky decomposition of a semi-definite matrix", 1990. LAPACK's pstrf makes the same
    choices but breaks ties by the position after its swaps, which depends on the blocking.
    """
    whole = np.array(gram_matrix, dtype=np.float64, order="C")
    if not np.isfinite(whole).all():
        raise ValueError("a Gram matrix with entries that are not finite")
    d = whole.shape[0]
    spare = np.empty_like(whole)
    active = np.arange(d)
    rows = np.zeros((d, d))
    chosen: list[int] = []
    top = float(whole.diagonal().max(initial=0.0))
    floor = max(d * np.finfo(float).eps, stop**2) * top
    with ThreadPoolExecutor(1) as beside:
        while active.size:
            taken, part = _panel(whole[: active.size, : active.size], floor, min(panel, active.size))
            first = len(chosen)
            rows[first : first + len(taken), active] = part
            chosen.extend(active[taken])
            if len(taken) < min(panel, active.size) or len(taken) == active.size:
                break
            rest = np.setdiff1d(np.arange(active.size), taken)
            update, split = part.take(rest, axis=1), _split(rest.size)
            other = beside.submit(_next_trailing, spare, whole, rest, update, 0, split)
            _next_trailing(spare, whole, rest, update, split, rest.size)
            other.result()
            whole, spare, active = spare, whole, active[rest]
    rank = len(chosen)
    order = np.concatenate([np.array(chosen, dtype=np.int64), np.setdiff1d(np.arange(d), chosen)])
    return PivotedFactor(np.asfortranarray(rows[:rank][:, order]), order, rank)


def _split(size: int) -> int:
    """The row at which two halves of a lower triangle meet; from its size alone, whatever cores there are."""
    return int(size / 2**0.5) // TILE * TILE


def _next_trailing(
    out: np.ndarray, trailing: np.ndarray, rest: np.ndarray, update: np.ndarray, top: int, bottom: int
) -> None:
    """Rows `top` to `bottom` of the lower triangle of trailing[rest, rest] - update' update, to the front of `out`."""
    for lo in range(top, bottom, TILE):
        hi = min(lo + TILE, bottom)
        out[lo:hi, :hi] = trailing[rest[lo:hi], : rest[hi - 1] + 1].take(rest[:hi], axis=1)
    if top:
        out[top:bottom, :top] -= update[:, top:bottom].T @ update[:, :top]
    add_products(out[top:bottom, top:bottom], update[:, top:bottom], sign=-1.0)


def _panel(trailing: np.ndarray, floor: float, steps: int) -> tuple[list[int], np.ndarray]:
    """Up to `steps` pivots of the trailing matrix: their positions, and their rows of R."""
    residual = trailing.diagonal().copy()
    part = np.zeros((steps, trailing.shape[0]))
    taken: list[int] = []
    for t in range(steps):
        best = residual.max()
        if not best > floor:
            break
        pivot = int(np.argmax(residual >= best * (1 - TIE)))
        row = np.concatenate([trailing[pivot, :pivot], trailing[pivot:, pivot]]) - part[:t, pivot] @ part[:t]
        row[taken] = 0.0
        row /= np.sqrt(residual[pivot])
        row[pivot] = np.sqrt(residual[pivot])
        part[t] = row
        residual -= row * row
        taken.append(pivot)
        residual[taken] = -np.inf
    return taken, part[: len(taken)]


def greedy_slack(r: np.ndarray) -> float:
    """How far a factor is from the greedy rule: max over steps of (largest residual / residual chosen) - 1.

    Parameters
    ----------
    r : ndarray, shape (rank, d), columns in pivoted order

    Returns
    -------
    float
        0 for an exact Businger-Golub order; rounding and ties leave about 1e-10.

    Notes
    -----
    The squared residual of column j before step k is the sum of r[i, j]^2 over i >= k, among the columns of the
    factorisation itself, so the certificate needs no second look at W. After an early stop the part of a residual below
    the last row is not seen: at most (stop * |r_11|)^2. Cost rank * d.
    """
    rank = r.shape[0]
    squared = np.cumsum((r * r)[::-1], axis=0)[::-1]
    slack = 0.0
    for k in range(rank):
        slack = max(slack, float(squared[k, k:].max() / (r[k, k] ** 2)) - 1.0)
    return slack
