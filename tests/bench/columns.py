"""Which coefficients are kept: the exact Gram matrix with pivoted Cholesky, against trees of R and LAPACK's QR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import dask
import dask.array as da
import numpy as np

from daskim.kernels import qr
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import coefficients, source
from tests.bench.pivots import against_pstrf
from tests.bench.table import Table

TAU = 1e5


def run(options: Options) -> Iterator[Table]:
    if options.small:
        yield compare(1500, 256, options, peers=True)
        yield against_pstrf(600, 256, options)
        return
    yield compare(8192, 1024, options, peers=True)
    yield compare(12_500, 3072, options, peers=False)
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


def choose(make: Callable[[], dict[str, Any]], steps: list[list[float]]) -> dict[str, Any]:
    """The factor, m and the curve: all that the stage leaves. Seconds of R or Gram, pivots, m, curve go to `steps`."""
    made = make()
    marks = [perf_counter()]
    m, known = qr.largest_well_conditioned(made["factor"], TAU)
    marks.append(perf_counter())
    qr.condition_curve(made["factor"], known=known)
    marks.append(perf_counter())
    steps.append([*made["seconds"], *np.diff(marks).tolist()])
    return {**made, "m": m, "cond": known[m]}


def compare(n: int, d: int, options: Options, *, peers: bool) -> Table:
    """All ways to R, pivots, m and curve. The slow peers, dask's tsqr and the QR of W itself, only where asked."""
    w = coefficients(n, d)
    makers = {
        "daskim Gram + pivoted_cholesky": lambda: gram_factor(w),
        "daskim tree of R + pivoted_qr": lambda: r_then_pivots(tree, w),
        "numpy qr(reduced) + pivoted_qr": lambda: r_then_pivots(lambda w: np.linalg.qr(w.astype(float))[1], w),
    }
    if peers:
        makers["da.linalg.tsqr (threads) + pivoted_qr"] = lambda: r_then_pivots(dask_tsqr, w)
        makers["scipy qr(pivoting) of W"] = lambda: r_then_pivots(lambda w: w, w)
    naive = list(makers)[-1]
    steps: dict[str, list[list[float]]] = {name: [] for name in makers}
    contenders = {name: (lambda make=make, name=name: choose(make, steps[name])) for name, make in makers.items()}
    found = timed(contenders, options.repeat)
    first = next(iter(found.values())).result
    inside = float(np.sqrt(first["cond"]))  # well inside the range, where m is a cut through close values
    table = Table(
        f"columns: {n:,} x {d:,}",
        {"data": source(), "n": n, "d": d, "tau": TAU, "second tau": inside, "naive form": naive},
        ["contender", "seconds", "against the naive form", "R or Gram", "pivots", "m", "curve", "m at tau"],
    )
    table.columns += ["m at the second", "cond", "greedy slack", "places with the first's pivot"]
    seen = set()
    for name, timing in found.items():
        got, factor = timing.result, timing.result["factor"]
        ms = got["m"], qr.largest_well_conditioned(factor, inside)[0]
        slack = qr.greedy_slack(factor.r[:, : factor.rank])
        same = int((factor.permutation == first["factor"].permutation).sum())
        row = [name, timing.seconds, speed_up(found[naive].seconds, timing.seconds)]
        row += [step if step > 1e-5 else None for step in np.median(steps[name], axis=0).tolist()]
        table.rows.append([*row, *ms, got["cond"], f"{slack:.1e}", f"{same} of {d}"])
        seen.add(ms)
        table.checks.append((f"{name}: each pivot's residual is the largest, to 1e-6", slack < 1e-6))
    table.checks.append(("the same m by all, at both bounds", len(seen) == 1))
    return table
