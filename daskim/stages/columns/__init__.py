"""Which coefficients are kept: by rank-revealing QR of W, from its Gram matrix or a tree of R factors; or by score."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.linalg import solve_triangular

from daskim.errors import SettingsError
from daskim.kept import take
from daskim.kernels import qr
from daskim.kernels.condition import conditions
from daskim.plugins import transform_of
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.stages.columns import laplacian
from daskim.stages.columns.fold import READ_BYTES, factor_of, gram_source, leaf_rows, triangle_rows
from daskim.store import Run
from daskim.transforms import Transform

__all__ = ["STAGE", "choose_method"]

# A pivoted Cholesky factor tells condition numbers up to about 1e8, its pivots up to about 1e7 (Higham 1990; measured:
# the same m as QR up to tau = 1e7 on three spectra). One decade is kept in hand.
CHOLESKY_TAU = 1e7
CHOLESKY_TAU_FLOAT = 1e6
# The columns are chosen anew when the share of a delivery's energy that they do not explain is more than so many times
# that of the images by which they were chosen, and this much more. Rows of one task that measures it.
DRIFT, DRIFT_SLACK = 2.0, 0.01
DRIFT_ROWS = 2048
# Whole numbers up to here are exact in float64.
EXACT = 2.0**53


def choose_method(settings: Settings, transform: Transform, n: int) -> tuple[str, str]:
    """How R is made, and the reason for it."""
    columns = settings.columns
    exact = transform.exact and n * transform.bound**2 < EXACT
    if columns.method in ("cholesky-qr", "tsqr"):
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


def _run(context: Context) -> dict[str, Any]:
    size, columns = context.known, context.settings.columns
    transform = transform_of(context.settings.wavelets, (size.height, size.width, size.channels))
    method, why = choose_method(context.settings, transform, size.n)
    by_score = columns.method == "laplacian-score"
    context.say(f"columns: {'laplacian-score, R by ' if by_score else ''}{method} ({why})")
    stop = 0.0 if by_score else columns.stop
    factor, zero = factor_of(context.engine, context.run, method, transform, size, stop)
    if by_score:
        rounding = size.columns * float(np.finfo(float).eps)  # of R; the Gram matrix holds the square of R
        facts = _by_score(context, factor, rounding if method == "tsqr" else rounding**0.5, transform)
        facts["why"] = f"as set; R by {method}: {why}"
    else:
        facts = {**_by_pivots(context, factor, transform), "method": method, "why": why}
    if zero.size:
        context.say(f"columns: {zero.size} of {size.columns} are zero in every image and dropped")
    return {**facts, "d": size.columns, "rank": factor.rank, "n_zero": int(zero.size), "tau": columns.tau}


def _update(context: Context, change: Change) -> dict[str, Any] | None:
    """Keep the columns that were chosen, unless they say much less of the images of the delivery than of the others.

    By R = [R11 R12; 0 R22] the other columns are W1 inv(R11) R12 and a remainder with the energy of R22: that of the
    new images is measured with the same coefficients.
    """
    run, facts = context.run, context.run.facts("columns")
    table = run.read_table("columns", ["kept", "pivot"])
    kept = np.asarray(table["kept"])
    if kept.all() or not kept.any() or not len(change.added):
        return facts
    order, m = np.argsort(np.asarray(table["pivot"])), int(kept.sum())
    r = np.asarray(run.array("columns_r")[:])
    run.save(order, "partial", "columns", "order.npy")
    run.save(solve_triangular(r[:m, :m], r[:m, m:]), "partial", "columns", "explained.npy")
    rest = float((r[m:] ** 2).sum() / (r**2).sum())
    keys = [f"{index:06d}" for index in range(-(-len(change.added) // DRIFT_ROWS))]
    calls = [(change.added[t * DRIFT_ROWS : (t + 1) * DRIFT_ROWS],) for t in range(len(keys))]
    infos = context.engine.each("columns", f"{change.mark}-drift", keys, calls, unexplained_block)
    now = sum(info["rest"] for info in infos) / max(sum(info["energy"] for info in infos), 1e-300)
    if now > DRIFT * rest + DRIFT_SLACK:
        context.say(
            f"columns: the kept ones leave {100 * now:.2g} % of the energy of the new images unexplained, "
            f"{100 * rest:.2g} % of the others': they are chosen anew"
        )
        return None
    return {**facts, "unexplained": rest, "unexplained_of_delivery": now}


def unexplained_block(run: Run, key: str, rows: np.ndarray) -> dict[str, Any]:
    """Energy of some images' coefficients, and of what the kept columns do not explain of the others."""
    order, explained = (run.load("partial", "columns", name) for name in ("order.npy", "explained.npy"))
    block = take(run, "wavelets", rows)[:, order].astype(np.float64)
    m = len(explained)
    rest = block[:, m:] - block[:, :m] @ explained
    return {"rest": float((rest**2).sum()), "energy": float((block**2).sum())}


def _by_pivots(context: Context, factor: qr.PivotedFactor, transform: Transform) -> dict[str, Any]:
    """As many pivots as tau allows."""
    columns = context.settings.columns
    with ThreadPoolExecutor(1) as beside:
        stored = beside.submit(_store_r, context.run, factor, transform)
        m, curve = conditions(factor, columns.tau, points=columns.points)
        slack = qr.greedy_slack(factor.r[:, : factor.rank])
        stored.result()
    _write(context.run, factor, m, curve, transform)
    return {"m": m, **_conditions(context, m, factor.permutation.size, curve), "greedy_slack": slack}


def _by_score(context: Context, root: qr.PivotedFactor, rounding: float, transform: Transform) -> dict[str, Any]:
    """The columns of best Laplacian score, whatever their condition number."""
    columns = context.settings.columns
    scores, images = laplacian.scores_of(context)
    factor, m, curve = laplacian.by_score(root, scores, columns, rounding)
    _store_r(context.run, factor, transform)
    _write(context.run, factor, m, curve, transform, {"score": scores})
    facts = {"m": m, **_conditions(context, m, scores.size, curve)}
    if m and not curve[m] < columns.tau:
        context.say(f"columns: columns.tau = {columns.tau:g} is no bound on columns by Laplacian score")
    constant = int(np.isinf(scores).sum())
    if constant:
        context.say(f"columns: {constant} of {scores.size} have one value in the {images} images of the graph")
    more = {"n_constant": constant, "graph_images": images, "greedy_slack": None}
    return {**facts, "method": "laplacian-score", **more}


def _conditions(context: Context, m: int, d: int, curve: dict[int, float]) -> dict[str, float | None]:
    """Condition numbers with m columns and with one more, said and as facts; None where infinite."""
    below, above = (curve.get(k, float("nan")) for k in (m, m + 1))
    if m == d or (m == 0 and not curve):
        more = "there is none more"
    elif above == float("inf"):
        more = "the rest depends on them numerically"
    else:
        more = f"with one more: {above:,.0f}"
    told = "numerically infinite" if below == float("inf") else f"{below:,.0f}"
    context.say(f"columns: m = {m} of {d} kept, condition number {told} ({more})")
    return {"cond": _finite(below), "cond_next": _finite(above)}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _write(
    run: Run,
    factor: qr.PivotedFactor,
    m: int,
    curve: dict[int, float],
    transform: Transform,
    more: dict[str, np.ndarray] | None = None,
) -> None:
    d = factor.permutation.size
    pivot = np.empty(d, dtype=np.int64)
    pivot[factor.permutation] = np.arange(d)
    diagonal = np.zeros(d)
    diagonal[: factor.rank] = np.abs(np.diagonal(factor.r)[: factor.rank])
    table = {"column": np.arange(d), "kept": pivot < m, "pivot": pivot, "r_diagonal": diagonal[pivot] * transform.scale}
    run.write_part("columns", "000000", pa.table({**table, **(more or {}), **transform.table()}))
    run.write_part(
        "condition", "000000", pa.table({"m": np.array(list(curve), dtype=np.int64), "cond": list(curve.values())})
    )


def _store_r(run: Run, factor: qr.PivotedFactor, transform: Transform) -> None:
    if factor.rank:
        stored = run.create_array("columns_r", factor.r.shape, "f8", factor.rank, {"scale": transform.scale})
        stored[:] = factor.r


def _need(size: Size, settings: Settings, workers: int) -> Need:
    d = size.columns
    method = settings.columns.method
    read, driver = laplacian.need(size, settings.columns) if method == "laplacian-score" else (0, 0)
    if method not in ("cholesky-qr", "tsqr"):
        method = "cholesky-qr" if settings.columns.tau <= CHOLESKY_TAU_FLOAT else "tsqr"
    transform = transform_of(settings.wavelets, (size.height, size.width, size.channels))
    source = gram_source(transform, size) if method == "cholesky-qr" else None
    rows = min(size.n, leaf_rows(method, size.n, d) if source is None else triangle_rows(size.n))
    leaves = -(-size.n // rows)
    bytes_read = size.n * (size.pixels if source == "images" else d * size.itemsize)
    if method == "tsqr":
        task = 3 * 8 * d * max(rows, 4 * d) + rows * d * size.itemsize
    elif source is None:
        task = 2 * rows * d * size.itemsize + 3 * 8 * d * d + 1024 * d * 8
    else:
        task = 24 * d * d + 6 * READ_BYTES
    return Need(
        blocks=leaves,
        read=bytes_read + read,
        write=8 * d * d * (leaves + 2),
        task=task,
        driver=6 * 8 * d * d + driver,
    )


STAGE = Stage(
    name="columns",
    version=1,
    reads=("images", "wavelets"),
    settings=("columns",),
    leaves=("tables/columns", "tables/condition", "arrays/columns_r"),
    run=_run,
    need=_need,
    update=_update,
)
