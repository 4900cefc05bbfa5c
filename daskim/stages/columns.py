"""Which coefficients are kept: rank-revealing QR of W, by its Gram matrix or by a tree of R factors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pyarrow as pa

from daskim.engine import Engine, Fold
from daskim.errors import SettingsError
from daskim.kernels import qr
from daskim.plugins import transform_of
from daskim.settings import Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.store import Run
from daskim.transforms import Transform

__all__ = ["STAGE", "choose_method"]

# A pivoted Cholesky factor tells condition numbers up to about 1e8, its pivots up to about 1e7 (Higham 1990; measured:
# the same m as QR up to tau = 1e7 on three spectra). One decade is kept in hand.
CHOLESKY_TAU = 1e7
CHOLESKY_TAU_FLOAT = 1e6
# Whole numbers up to here are exact in float64.
EXACT = 2.0**53
# The Gram matrix is summed in at most this many parts, so that what waits on disk is bounded whatever n.
PARTS = 64


def choose_method(settings: Settings, transform: Transform, n: int) -> tuple[str, str]:
    """The column method and the reason for it."""
    columns = settings.columns
    exact = transform.exact and n * transform.bound**2 < EXACT
    if columns.method != "auto":
        if columns.method == "cholesky-qr" and columns.tau > CHOLESKY_TAU:
            raise SettingsError(
                f"columns.method = cholesky-qr cannot tell condition numbers near tau = {columns.tau:g}",
                f"It is good to {CHOLESKY_TAU:g}; use columns.method = tsqr.",
            )
        return columns.method, "as set"
    limit = CHOLESKY_TAU if exact else CHOLESKY_TAU_FLOAT
    if columns.tau <= limit:
        how = "summed exactly in whole numbers" if exact else "summed in float64"
        return "cholesky-qr", f"tau = {columns.tau:g} is within {limit:g}, the reach of a Gram matrix {how}"
    return "tsqr", f"tau = {columns.tau:g} is beyond {limit:g}, the reach of the Gram matrix"


def leaf_rows(method: str, n: int, d: int) -> int:
    """Rows of W in one leaf of the fold. From n and d alone: neither blocks nor workers change the sums."""
    if method == "tsqr":
        return max(4 * d, 1024)
    leaves = min(max(n // 8192, 8), PARTS)
    return max(1024, -(-n // (leaves * 512)) * 512)


def add(parts: Iterator[np.ndarray]) -> np.ndarray:
    """Sum of Gram matrices."""
    total = next(parts).copy()
    for part in parts:
        total += part
    return total


def stack(parts: Iterator[np.ndarray]) -> np.ndarray:
    """R of R factors stacked on one another."""
    return qr.r_factor(*parts)


def factor_of(
    engine: Engine, run: Run, method: str, n: int, d: int, stop: float
) -> tuple[qr.PivotedFactor, np.ndarray]:
    """Fold W into one small matrix and factor it with pivoting; the factor, and the columns of zeros."""
    coefficients = da.from_zarr(run.array("wavelets")).rechunk((leaf_rows(method, n, d), -1))
    if method == "tsqr":
        r = engine.fold("columns", "tsqr", coefficients, Fold(qr.r_factor, stack))
        engine.progress.begin("columns", "factor", 1, 0)
        return qr.pivoted_qr(r, stop=stop), np.flatnonzero(~r.any(axis=0))
    total = engine.fold("columns", "gram", coefficients, Fold(partial(qr.gram, leaf=1024), add, fan_in=8))
    engine.progress.begin("columns", "factor", 1, 0)
    return qr.pivoted_cholesky(total, stop=stop), np.flatnonzero(np.diagonal(total) == 0)


def _run(context: Context) -> dict[str, Any]:
    size, columns = context.known, context.settings.columns
    transform = transform_of(context.settings.wavelets, (size.height, size.width, size.channels))
    method, why = choose_method(context.settings, transform, size.n)
    context.say(f"columns: {method} ({why})")
    factor, zero = factor_of(context.engine, context.run, method, size.n, size.columns, columns.stop)
    m, known = qr.largest_well_conditioned(factor, columns.tau)
    curve = qr.condition_curve(factor, points=columns.points, known=known)
    kept = np.zeros(size.columns, dtype=bool)
    kept[factor.permutation[:m]] = True
    _write(context.run, factor, curve, kept, transform)
    if zero.size:
        context.say(f"columns: {zero.size} of {size.columns} are zero in every image and dropped")
    below = curve.get(m, float("nan"))
    above = curve.get(m + 1)
    more = "there is none more" if above is None else f"with one more: {above:,.0f}"
    if above == float("inf"):
        above, more = None, "the rest depends on them numerically"
    context.say(f"columns: m = {m} of {size.columns} kept, condition number {below:,.0f} ({more})")
    return {
        "m": m,
        "d": size.columns,
        "cond": below if m else None,
        "cond_next": above,
        "method": method,
        "why": why,
        "rank": factor.rank,
        "n_zero": int(zero.size),
        "tau": columns.tau,
        "greedy_slack": qr.greedy_slack(factor.r[:, : factor.rank]),
    }


def _write(run: Run, factor: qr.PivotedFactor, curve: dict[int, float], kept: np.ndarray, transform: Transform) -> None:
    d = kept.size
    pivot = np.empty(d, dtype=np.int64)
    pivot[factor.permutation] = np.arange(d)
    diagonal = np.zeros(d)
    diagonal[: factor.rank] = np.abs(np.diagonal(factor.r)[: factor.rank])
    table = {"column": np.arange(d), "kept": kept, "pivot": pivot, "r_diagonal": diagonal[pivot] * transform.scale}
    run.write_part("columns", "000000", pa.table({**table, **transform.table()}))
    run.write_part(
        "condition", "000000", pa.table({"m": np.array(list(curve), dtype=np.int64), "cond": list(curve.values())})
    )
    if factor.rank:
        stored = run.create_array("columns_r", factor.r.shape, "f8", factor.rank, {"scale": transform.scale})
        stored[:] = factor.r


def _need(size: Size, settings: Settings, workers: int) -> Need:
    d = size.columns
    method = settings.columns.method
    if method == "auto":
        method = "cholesky-qr" if settings.columns.tau <= CHOLESKY_TAU_FLOAT else "tsqr"
    rows = min(size.n, leaf_rows(method, size.n, d))
    leaves = -(-size.n // rows)
    if method == "tsqr":
        task = 3 * 8 * d * max(rows, 4 * d) + rows * d * size.itemsize
    else:
        task = 2 * rows * d * size.itemsize + 3 * 8 * d * d + 1024 * d * 8
    return Need(
        blocks=leaves,
        read=size.n * d * size.itemsize,
        write=8 * d * d * (leaves + 2),
        task=task,
        driver=6 * 8 * d * d,
    )


STAGE = Stage(
    name="columns",
    version=1,
    reads=("wavelets",),
    settings=("columns",),
    leaves=("tables/columns", "tables/condition", "arrays/columns_r"),
    run=_run,
    need=_need,
)
