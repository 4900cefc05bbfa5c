"""How well conditioned the first k chosen columns are, and how many of them stay within a bound.

Two threads share the work, which is bound by memory: what each does, and in which order, is fixed, so that the numbers
do not depend on how many cores there are.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from daskim.kernels.blas import upper_inverse
from daskim.kernels.qr import PivotedFactor

__all__ = ["condition_curve", "conditions", "largest_well_conditioned", "leading_condition"]

# A condition number by Lanczos (relative accuracy 1e-9) this near to tau is worked out again by a dense decomposition.
NEAR_TAU = 1e-6
# Below this order a dense singular value decomposition is faster than Lanczos.
DENSE = 400
# Relative accuracy asked of Lanczos (squared singular values): of a number, and of the curve, in single precision.
TOL, TOL_CURVE = 1e-9, 1e-5


def leading_condition(r: np.ndarray, k: int) -> float:
    """Condition number (2-norm) of the first k chosen columns: of the leading k x k block of R, by a dense SVD.

    Parameters
    ----------
    r : ndarray, shape (rank, >= rank), upper triangular in its leading block
    k : int, 1 <= k
        Beyond the rank the answer is infinite.
    """
    if k > r.shape[0]:
        return float("inf")
    values = scipy.linalg.svdvals(r[:k, :k])
    return float(values[0] / values[-1]) if values[-1] > 0 else float("inf")


def conditions(factor: PivotedFactor, tau: float, *, points: int = 64) -> tuple[int, dict[int, float]]:
    """`largest_well_conditioned` and `condition_curve` of one factor, at the same time.

    Returns
    -------
    m : int
    curve : dict of int to float, by rising k
        With m and, where there is one, m + 1.
    """
    if not tau > 1:
        raise ValueError(f"a bound of {tau} on the condition number; it must exceed 1")
    with _Sides(factor) as sides:
        if factor.rank > DENSE:
            sides.start(factor.rank)  # it is asked for first, and so needs no place in the curve
            sides.start_curve([k for k in _geometric(factor.rank, points) if DENSE < k < factor.rank])
        m, known = _largest(factor, tau, sides)
        return m, _curve(factor, points, known, sides)


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
    if not tau > 1:
        raise ValueError(f"a bound of {tau} on the condition number; it must exceed 1")
    with _Sides(factor) as sides:
        return _largest(factor, tau, sides)


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
    with _Sides(factor) as sides:
        return _curve(factor, points, dict(known or {}), sides)


class _Sides:
    """R and its inverse: norms of their leading blocks, whose product is the condition number, found by two threads.

    The inverse of an upper triangular matrix holds the inverse of every leading block in its own leading block, so one
    inversion serves every k.
    """

    def __init__(self, factor: PivotedFactor) -> None:
        self.rank = factor.rank
        self.r = factor.r[:, : factor.rank]
        self.threads = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.inverse: Future[np.ndarray | None] | None = None
        self.started: dict[int, tuple[Future[float], Future[float]]] = {}
        self.curve: tuple[Future[dict[int, float]], Future[dict[int, float]]] | None = None
        if self.rank > DENSE:
            self.inverse = self.threads[1].submit(upper_inverse, self.r)

    def __enter__(self) -> _Sides:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self.threads:
            thread.shutdown(cancel_futures=True)

    def inverted(self) -> np.ndarray:
        """Only once there is an inverse: the diagonal of a factor is above zero as far as its rank."""
        assert self.inverse is not None
        inverse = self.inverse.result()
        assert inverse is not None, "a zero on the diagonal of R within its rank"
        return inverse

    def start(self, k: int) -> None:
        """Begin with the two norms of order k."""
        if k not in self.started:
            self.started[k] = (
                self.threads[0].submit(lambda: _norm(self.r[:k, :k], TOL)[0]),
                self.threads[1].submit(lambda: _norm(self.inverted()[:k, :k], TOL)[0]),
            )

    def condition(self, k: int) -> float:
        if k > self.rank or k <= DENSE:
            return leading_condition(self.r, k)
        self.start(k)
        first, second = self.started[k]
        return first.result() * second.result()

    def start_curve(self, ks: list[int]) -> None:
        """Begin with the norms for the curve; the inversion takes the other thread as long."""
        if self.curve is None:
            thread = self.threads[0]
            self.curve = (
                thread.submit(lambda: _norms(self.r, ks)),
                thread.submit(lambda: _norms(self.inverted(), ks)),
            )


def _largest(factor: PivotedFactor, tau: float, sides: _Sides) -> tuple[int, dict[int, float]]:
    known: dict[int, float] = {}

    def cond(k: int) -> float:
        if k not in known:
            value = sides.condition(k)
            if DENSE < k <= factor.rank and abs(value / tau - 1) < NEAR_TAU:
                value = leading_condition(factor.r, k)
            known[k] = value
        return known[k]

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


def _curve(factor: PivotedFactor, points: int, known: dict[int, float], sides: _Sides) -> dict[int, float]:
    curve = dict(known)
    if factor.rank == 0:
        return curve
    ks = _geometric(factor.rank, points)
    if factor.rank > DENSE:
        sides.start_curve([k for k in ks if k > DENSE])
    for k in ks:
        if k <= DENSE:
            curve.setdefault(k, leading_condition(factor.r, k))
    if sides.curve is not None:
        largest, smallest = (side.result() for side in sides.curve)
        for k in largest:
            curve.setdefault(k, largest[k] * smallest[k])
    return dict(sorted(curve.items()))


def _norms(block: np.ndarray, ks: list[int]) -> dict[int, float]:
    """Norms of leading blocks, by rising order, each search from the vector of the one before.

    Single precision halves the traffic of what is bound by memory and still gives six digits.
    """
    single = block.astype(np.float32)
    norms: dict[int, float] = {}
    vector: np.ndarray | None = None
    for k in ks:
        norms[k], vector = _norm(single[:k, :k], TOL_CURVE, vector)
    return norms


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


def _geometric(last: int, points: int) -> list[int]:
    """At least `points` distinct whole numbers from 1 to `last`, geometrically spaced as far as rounding lets them."""
    count, ks = points, np.arange(0)
    while ks.size < min(points, last):
        ks = np.unique(np.round(np.geomspace(1, last, count)).astype(int))
        count += max(4, count // 8)
    return ks.tolist()
