"""Rank-revealing QR of a tall matrix: pivots from its Gram matrix or a tree of R factors, and the number of columns.

For W = Q R with orthonormal columns in Q, the residual of column j after projecting on chosen columns is the same for
W, for R, and for the Gram matrix G = W'W, whose pivoted Cholesky factor carries the squared residuals on its diagonal.
So all three give the Businger-Golub pivots, up to ties and rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

__all__ = [
    "PivotedFactor",
    "condition_curve",
    "gram",
    "greedy_slack",
    "largest_well_conditioned",
    "leading_condition",
    "pivoted_cholesky",
    "pivoted_qr",
    "r_factor",
]

# Two squared residuals closer than this (relative) are a tie, and the smaller column index wins. Rounding in a residual
# is about d * eps = 1e-12 of the *largest* residual, so ties are recognised reliably near the top, where they decide
# most.
TIE = 1e-12
# A condition number by Lanczos (relative accuracy 1e-9) this near to tau is worked out again by a dense decomposition.
NEAR_TAU = 1e-6
# Below this order a dense singular value decomposition is faster than Lanczos.
DENSE = 400


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
    trailing = np.array(gram_matrix, dtype=np.float64)
    if not np.isfinite(trailing).all():
        raise ValueError("a Gram matrix with entries that are not finite")
    d = trailing.shape[0]
    active = np.arange(d)
    rows = np.zeros((d, d))
    chosen: list[int] = []
    top = float(trailing.diagonal().max(initial=0.0))
    floor = max(d * np.finfo(float).eps, stop**2) * top
    while active.size:
        taken, part = _panel(trailing, floor, min(panel, active.size))
        first = len(chosen)
        rows[first : first + len(taken), active] = part
        chosen.extend(active[taken])
        if len(taken) < min(panel, active.size) or len(taken) == active.size:
            break
        rest = np.setdiff1d(np.arange(active.size), taken)
        update = np.ascontiguousarray(part[:, rest])
        trailing = trailing[np.ix_(rest, rest)]
        # in place and only the lower triangle (the upper one of the transposed view that LAPACK sees)
        scipy.linalg.blas.dsyrk(-1.0, update.T, beta=1.0, c=trailing.T, lower=0, overwrite_c=1)
        active = active[rest]
    rank = len(chosen)
    order = np.concatenate([np.array(chosen, dtype=np.int64), np.setdiff1d(np.arange(d), chosen)])
    return PivotedFactor(rows[:rank][:, order], order, rank)


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


def leading_condition(r: np.ndarray, k: int, *, inverse: np.ndarray | None = None, tol: float = 1e-9) -> float:
    """Condition number (2-norm) of the first k chosen columns: of the leading k x k block of R.

    Parameters
    ----------
    r : ndarray, shape (rank, >= rank), upper triangular in its leading block
    k : int, 1 <= k
        Beyond the rank the answer is infinite.
    inverse : ndarray, optional
        The inverse of R's leading rank x rank block: the inverse of an upper triangular matrix holds the inverse of
        every leading block in its own leading block, so one inversion serves every k.
    tol : float
        Relative accuracy asked of Lanczos (squared singular values).
    """
    rank = r.shape[0]
    if k > rank:
        return float("inf")
    if k <= DENSE or inverse is None:
        values = scipy.linalg.svdvals(r[:k, :k])
        return float(values[0] / values[-1]) if values[-1] > 0 else float("inf")
    return _norm(r[:k, :k], tol)[0] * _norm(inverse[:k, :k], tol)[0]


def _norm(block: np.ndarray, tol: float, guess: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """Largest singular value and its right vector, by Lanczos from a fixed start (near `guess` where one is given)."""
    k = block.shape[0]
    operator = LinearOperator((k, k), matvec=lambda x: block.T @ (block @ x), dtype=block.dtype)
    start = np.random.default_rng(k).standard_normal((k,))
    if guess is not None:
        start *= 1e-3
        start[: guess.size] += guess
    try:
        value, vector = eigsh(operator, k=1, which="LA", tol=tol, v0=start, ncv=min(k, 24 if guess is None else 10))
    except ArpackNoConvergence:
        _, singular, right = np.linalg.svd(block)
        return float(singular[0]), right[0]
    return float(np.sqrt(value[0])), vector[:, 0]


def _inverse(r: np.ndarray) -> np.ndarray | None:
    rank = r.shape[0]
    if rank <= DENSE:
        return None
    inverse, info = scipy.linalg.lapack.dtrtri(r[:, :rank], lower=0)
    return np.ascontiguousarray(inverse) if info == 0 else None


def largest_well_conditioned(factor: PivotedFactor, tau: float) -> tuple[int, dict[int, float]]:
    """The largest m with cond(first m chosen columns) < tau, and the condition numbers found on the way.

    Adding a column can only raise the largest and lower the smallest singular value (interlacing), so the condition
    number grows with m, m is unique, and bisection is exact. Values within 1e-6 of tau are settled by a dense SVD.

    Returns
    -------
    m : int
        0 only for a matrix of zeros: tau must exceed 1, the condition number of one column.
    known : dict of int to float
        Condition numbers evaluated, always with m and, where there is one, m + 1 (infinite beyond the rank); empty
        where m is 0.

    Raises
    ------
    ValueError
        For a tau that is not above 1.
    """
    inverse = _inverse(factor.r)
    known: dict[int, float] = {}

    def cond(k: int) -> float:
        if k not in known:
            value = leading_condition(factor.r, k, inverse=inverse)
            if inverse is not None and DENSE < k <= factor.rank and abs(value / tau - 1) < NEAR_TAU:
                value = leading_condition(factor.r, k)
            known[k] = value
        return known[k]

    if not tau > 1:
        raise ValueError(f"a bound of {tau} on the condition number; it must exceed 1")
    if factor.rank == 0:
        return 0, known
    low, high = 1, factor.rank
    if cond(high) < tau:
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        if cond(middle) < tau:
            low = middle
        else:
            high = middle
    cond(low)
    if low < factor.r.shape[1]:
        cond(low + 1)
    return low, known


def condition_curve(
    factor: PivotedFactor, *, points: int = 64, known: dict[int, float] | None = None
) -> dict[int, float]:
    """Condition number of the first k chosen columns at geometrically spaced k, joined with those known already.

    Parameters
    ----------
    points : int
        At least this many values of k from 1 to the rank (all of them when the rank is smaller).
    known : dict of int to float, optional
        As `largest_well_conditioned` gives them; kept as they are, with k beyond the rank too.

    Returns
    -------
    dict of int to float, by rising k
        Relative accuracy about 1e-6 above order 400, where Lanczos starts from the vectors of the k before.
    """
    curve = dict(known or {})
    if factor.rank == 0:
        return curve
    inverse = _inverse(factor.r)
    # single precision halves the traffic of what is bound by memory and still gives six digits
    single = factor.r[:, : factor.rank].astype(np.float32)
    single_inverse = None if inverse is None else inverse.astype(np.float32)
    above: np.ndarray | None = None
    below: np.ndarray | None = None
    for k in _geometric(factor.rank, points):
        if k <= DENSE or single_inverse is None:
            curve.setdefault(k, leading_condition(factor.r, k))
            continue
        largest, above = _norm(single[:k, :k], 1e-5, above)
        smallest, below = _norm(single_inverse[:k, :k], 1e-5, below)
        curve.setdefault(k, largest * smallest)
    return dict(sorted(curve.items()))


def _geometric(last: int, points: int) -> list[int]:
    """At least `points` distinct whole numbers from 1 to `last`, geometrically spaced as far as rounding lets them."""
    count, ks = points, np.arange(0)
    while ks.size < min(points, last):
        ks = np.unique(np.round(np.geomspace(1, last, count)).astype(int))
        count += max(4, count // 8)
    return ks.tolist()
