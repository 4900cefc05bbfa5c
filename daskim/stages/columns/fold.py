"""W folded to one small matrix, and that factored with pivoting: by its Gram matrix, or by a tree of R factors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import dask.array as da
import numpy as np

from daskim.engine import Engine, Fold, total
from daskim.kernels import qr
from daskim.store import Run

__all__ = ["factor_of", "leaf_rows", "stack"]

# The Gram matrix is summed in at most this many parts, so that what waits on disk is bounded whatever n.
PARTS = 64


def leaf_rows(method: str, n: int, d: int) -> int:
    """Rows of W in one leaf of the fold. From n and d alone: neither blocks nor workers change the sums."""
    if method == "tsqr":
        return max(4 * d, 1024)
    leaves = min(max(n // 8192, 8), PARTS)
    return max(1024, -(-n // (leaves * 512)) * 512)


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
    gram = engine.fold("columns", "gram", coefficients, Fold(partial(qr.gram, leaf=1024), total, fan_in=8))
    engine.progress.begin("columns", "factor", 1, 0)
    return qr.pivoted_cholesky(gram, stop=stop), np.flatnonzero(np.diagonal(gram) == 0)
