"""Which coefficients are kept: the exact Gram matrix with pivoted Cholesky, against trees of R and LAPACK's QR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.linalg

from daskim.kernels import qr
from tests.bench import Options
from tests.bench.context import Table, speed_up, timed
from tests.bench.inputs import coefficients, source

TAU = 1e5
# Well inside the range of condition numbers, where m is a cut through close values.
TAU_INSIDE = 1e3


def run(options: Options) -> Iterator[Table]:
    if options.small:
        yield compare(1500, 256, options, scipy_too=True)
        yield against_pstrf(600, 256, options)
        return
    yield compare(8192, 1024, options, scipy_too=True)
    yield compare(12_500, 3072, options, scipy_too=False)
    yield against_pstrf(12_500, 3072, options)


def gram_factor(w: np.ndarray) -> dict[str, Any]:
    start = perf_counter()
    total = qr.gram(w)
    middle = perf_counter()
    return {"factor": qr.pivoted_cholesky(total), "seconds": [middle - start, perf_counter() - middle]}


def r_then_pivots(r_of: Callable[[np.ndarray], np.ndarray], w: np.ndarray) -> dict[str, Any]:
    start = perf_counter()
    r = r_of(w)
    middle = perf_counter()
    return {"factor": qr.pivoted_qr(r), "seconds": [middle - start, perf_counter() - middle]}


def tree(w: np.ndarray) -> np.ndarray:
    rows = max(4 * w.shape[1], 1024)
    return qr.r_factor(*(qr.r_factor(w[at : at + rows]) for at in range(0, len(w), rows)))


def dask_tsqr(w: np.ndarray) -> np.ndarray:
    """Chunks of twice the columns, the smallest that dask's own recursion accepts."""
    _, r = da.linalg.tsqr(da.from_array(w.astype(np.float64), chunks=(2 * w.shape[1], -1)))
    with dask.config.set(scheduler="threads"):
        return np.asarray(r.compute())


def choose(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The factor, m with its condition number, and the curve: all that the stage leaves."""
    made = make()
    marks = [perf_counter()]
    m, known = qr.largest_well_conditioned(made["factor"], TAU)
    marks.append(perf_counter())
    curve = qr.condition_curve(made["factor"], known=known)
    marks.append(perf_counter())
    return {**made, "m": m, "cond": known[m], "curve": curve, "seconds": [*made["seconds"], *np.diff(marks)]}


def compare(n: int, d: int, options: Options, *, scipy_too: bool) -> Table:
    w = coefficients(n, d)
    makers = {
        "daskim Gram + pivoted_cholesky": lambda: gram_factor(w),
        "daskim tree of R + pivoted_qr": lambda: r_then_pivots(tree, w),
        "da.linalg.tsqr + pivoted_qr": lambda: r_then_pivots(dask_tsqr, w),
        "numpy qr(reduced) + pivoted_qr": lambda: r_then_pivots(lambda w: np.linalg.qr(w.astype(float))[1], w),
    }
    if scipy_too:
        makers["scipy qr(pivoting) of W (naive)"] = lambda: r_then_pivots(lambda w: w, w)
    naive = list(makers)[-1]
    found = timed({name: (lambda make=make: choose(make)) for name, make in makers.items()}, options.repeat)
    table = Table(
        f"columns: {n:,} x {d:,}",
        {"data": source(), "n": n, "d": d, "tau": TAU, "seconds of the steps": "of the last round"},
        ["contender", "seconds", f"against {naive.partition(' (')[0]}", "R or Gram", "pivots", "m", "curve", "m found"]
        + [f"m at {TAU_INSIDE:g}", "cond", "greedy slack", "pivots equal to the first's"],
    )
    first = next(iter(found.values())).result["factor"].permutation
    seen = set()
    for name, timing in found.items():
        got = timing.result
        inside = qr.largest_well_conditioned(got["factor"], TAU_INSIDE)[0]
        slack = qr.greedy_slack(got["factor"].r[:, : got["factor"].rank])
        same = int((got["factor"].permutation == first).sum())
        table.rows.append([name, timing.seconds, speed_up(found[naive].seconds, timing.seconds)])
        table.rows[-1] += [*map(float, got["seconds"]), got["m"], inside, got["cond"], f"{slack:.1e}", f"{same} of {d}"]
        seen.add((got["m"], inside))
        table.checks.append((f"{name}: each pivot's residual is the largest, to 1e-6", slack < 1e-6))
    table.checks.append((f"the same m by all, at tau = {TAU:g} and {TAU_INSIDE:g}", len(seen) == 1))
    return table


def against_pstrf(n: int, d: int, options: Options) -> Table:
    """pivoted_cholesky and LAPACK's pstrf on one Gram matrix, and on one in which every column comes three times."""
    total = qr.gram(coefficients(n, d))
    third = total[: d // 3, : d // 3]
    ties = np.tile(third, (3, 3))
    table = Table(
        "columns: pivoted Cholesky of a Gram matrix",
        {"data": source(), "n": n, "d": d, "ties": "each column three times; chosen by rule = the first of three"},
        ["contender", "seconds", "against LAPACK", "rank", "pivots before the first other one", "by rule with ties"],
    )
    contenders = {
        "LAPACK dpstrf (naive)": lambda: scipy.linalg.lapack.dpstrf(total, lower=0),
        "daskim pivoted_cholesky": lambda: qr.pivoted_cholesky(total),
    }
    theirs, ours = timed(contenders, options.repeat).values()
    lapack, lapack_ties = theirs.result, scipy.linalg.lapack.dpstrf(ties, lower=0)
    here_ties = qr.pivoted_cholesky(ties)
    pivots = [(lapack[1][: lapack[2]] - 1, lapack_ties[1][: lapack_ties[2]] - 1)]
    pivots.append((ours.result.permutation[: ours.result.rank], here_ties.permutation[: here_ties.rank]))
    steps = min(len(pivots[0][0]), len(pivots[1][0]))
    other = np.flatnonzero(pivots[0][0][:steps] != pivots[1][0][:steps])
    for name, timing, (chosen, tied) in zip(contenders, (theirs, ours), pivots):
        rule = f"{(tied < len(third)).sum()} of {len(tied)}"
        row = [name, timing.seconds, speed_up(theirs.seconds, timing.seconds), len(chosen)]
        table.rows.append([*row, int(other[0]) if other.size else steps, rule])
    slack = qr.greedy_slack(ours.result.r[:, : ours.result.rank])
    table.checks.append(("daskim: each pivot's residual is the largest, to 1e-6", slack < 1e-6))
    table.checks.append(("daskim: of equal columns the one of the smallest index", bool((pivots[1][1] < len(third)).all())))
    table.checks.append(("the same rank with ties as without the copies", here_ties.rank == qr.pivoted_cholesky(third).rank))
    return table
