"""Which coefficients are kept: the exact Gram matrix with pivoted Cholesky, against trees of R and LAPACK's QR.

And the Gram matrix by itself: in double and in single precision, of coefficients and of pixels, against a bare loop of
the BLAS routine that does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import dask
import dask.array as da
import numpy as np

from daskim.kernels import qr
from daskim.kernels.blas import add_products
from daskim.kernels.condition import conditions, largest_well_conditioned
from daskim.kernels.gram import exact_gram, packed, unpacked
from daskim.transforms.wavelet import Wavelet
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import coefficients, images, source
from tests.bench.pivots import against_pstrf
from tests.bench.table import Table

TAU = 1e5


def run(options: Options) -> Iterator[Table]:
    if options.small:
        yield grams(images(1500)[:, ::2, ::2, 1:2], options)
        yield compare(1500, 256, options, peers=True)
        yield against_pstrf(600, 256, options)
        return
    yield grams(images(12_500), options)
    yield compare(8192, 1024, options, peers=True)
    yield compare(12_500, 3072, options, peers=False)
    yield against_pstrf(12_500, 3072, options)


def sums_of_pixels(block: np.ndarray, transform: Wavelet) -> np.ndarray:
    """W'W from P'P, as the stage does it."""
    shape, d = block.shape[1:], int(np.prod(block.shape[1:]))
    total = unpacked(packed(exact_gram([block.reshape(-1, d)], d)), d)
    return transform.linear(transform.linear(total.reshape(-1, *shape)).T.reshape(-1, *shape))


def bare(part: np.ndarray, times: int) -> np.ndarray:
    """`times` calls of syrk with one block that is ready, adding to one matrix: what the routine gives at best."""
    total = np.zeros((part.shape[1], part.shape[1]), dtype=part.dtype)
    for _ in range(times):
        add_products(total, part)
    return total


def grams(block: np.ndarray, options: Options) -> Table:
    """W'W of one block of images."""
    transform = Wavelet(block.shape[1:])
    w = transform(block)
    n, d = w.shape
    ready = {dtype: w[:1024].astype(dtype) for dtype in (np.float32, np.float64)}
    times = max(1, n // 1024)
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "double precision, 1,024 rows at a time (naive)": lambda: qr.gram(w),
        "daskim exact_gram of the coefficients": lambda: unpacked(packed(exact_gram([w], d)), d),
        "daskim exact_gram of the pixels, then Haar on both sides": lambda: sums_of_pixels(block, transform),
        "dsyrk alone, in a bare loop": lambda: bare(ready[np.float64], times),
        "ssyrk alone, in a bare loop": lambda: bare(ready[np.float32], times),
    }
    found = timed(contenders, options.repeat)
    rows = [*[n] * 3, *[times * min(n, 1024)] * 2]
    rates = {name: k * d * d / found[name].seconds / 1e9 for (name, k) in zip(found, rows)}
    naive, peak = next(iter(found)), rates[list(found)[-1]]
    table = Table(
        f"columns: the Gram matrix alone, {n:,} x {d:,}",
        {"data": source(), "n": n, "d": d, "flops counted": "n d^2", "naive form": naive},
        ["contender", "seconds", "against the naive form", "GF/s", "of bare ssyrk"],
    )
    for (name, timing), k in zip(found.items(), rows):
        faster = speed_up(found[naive].seconds * k / n, timing.seconds)
        table.rows.append([name, timing.seconds, faster, rates[name], f"{rates[name] / peak:.0%}"])
    first, *others = (found[name].result for name in list(found)[:3])
    table.checks.append(("the same matrix to the last bit by all", all(np.array_equal(first, o) for o in others)))
    return table


def gram_factor(w: np.ndarray) -> dict[str, Any]:
    start = perf_counter()
    total = unpacked(packed(exact_gram([w], w.shape[1])), w.shape[1])
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
    """The factor, m and the curve: all that the stage leaves. Seconds of R or Gram, pivots, the rest go to `steps`."""
    made = make()
    start = perf_counter()
    m, curve = conditions(made["factor"], TAU)
    steps.append([*made["seconds"], perf_counter() - start])
    return {**made, "m": m, "cond": curve[m]}


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
        ["contender", "seconds", "against the naive form", "R or Gram", "pivots", "m and curve", "m at tau"],
    )
    table.columns += ["m at the second", "cond", "greedy slack", "places with the first's pivot"]
    seen = set()
    for name, timing in found.items():
        got, factor = timing.result, timing.result["factor"]
        ms = got["m"], largest_well_conditioned(factor, inside)[0]
        slack = qr.greedy_slack(factor.r[:, : factor.rank])
        same = int((factor.permutation == first["factor"].permutation).sum())
        row = [name, timing.seconds, speed_up(found[naive].seconds, timing.seconds)]
        row += [step if step > 1e-5 else None for step in np.median(steps[name], axis=0).tolist()]
        table.rows.append([*row, *ms, got["cond"], f"{slack:.1e}", f"{same} of {d}"])
        seen.add(ms)
        table.checks.append((f"{name}: each pivot's residual is the largest, to 1e-6", slack < 1e-6))
    table.checks.append(("the same m by all, at both bounds", len(seen) == 1))
    return table
