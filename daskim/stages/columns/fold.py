"""W folded to one small matrix, and that factored with pivoting: by its Gram matrix, or by a tree of R factors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from daskim.engine import Engine, Fold, total
from daskim.kernels import qr
from daskim.kernels.gram import SAFE, exact_gram, joined, packed, unpacked
from daskim.stages import Size
from daskim.store import Run
from daskim.transforms import Transform

__all__ = ["READ_BYTES", "factor_of", "gram_source", "leaf_rows", "stack", "triangle_rows"]

# The Gram matrix is summed in at most this many parts, so that what waits on disk is bounded whatever n. Triangles of
# whole numbers are a quarter or a half as large.
PARTS, TRIANGLES = 64, 128
# Rows of a leaf that are read together, in bytes.
READ_BYTES = 16_000_000


def leaf_rows(method: str, n: int, d: int) -> int:
    """Rows of W in one leaf of the fold. From n and d alone: neither blocks nor workers change the sums."""
    if method == "tsqr":
        return max(4 * d, 1024)
    leaves = min(max(n // 8192, 8), PARTS)
    return max(1024, -(-n // (leaves * 512)) * 512)


def triangle_rows(n: int) -> int:
    """Rows in one leaf of sums of whole numbers, which are the same however they are split: so parts of equal size."""
    return max(1024, -(-n // min(max(n // 8192, 8), TRIANGLES)))


def gram_source(transform: Transform, size: Size) -> str | None:
    """The array whose Gram matrix is summed in whole numbers; None where W is to be summed in float64.

    W = P L' with the pixels P and a linear map L: then W'W is L (P'P) L', and pixels are smaller, in fewer bytes.
    """
    rows = max(size.n, 4 * min(size.n, triangle_rows(size.n)))  # of all leaves joined, and of what one leaf adds up
    if not transform.exact or rows * transform.bound**2 >= SAFE:
        return None
    return "images" if hasattr(transform, "linear") and size.pixels <= size.columns else "wavelets"


def stack(parts: Iterator[np.ndarray]) -> np.ndarray:
    """R of R factors stacked on one another."""
    return qr.r_factor(*parts)


def factor_of(
    engine: Engine, run: Run, method: str, transform: Transform, size: Size, stop: float
) -> tuple[qr.PivotedFactor, np.ndarray]:
    """Fold W into one small matrix and factor it with pivoting; the factor, and the columns of zeros."""
    source = gram_source(transform, size) if method != "tsqr" else None
    if source is not None:
        gram = _exact(engine, run, source, transform, size)
    else:
        import dask.array as da

        coefficients = da.from_zarr(run.array("wavelets")).rechunk((leaf_rows(method, size.n, size.columns), -1))
        if method == "tsqr":
            r = engine.fold("columns", "tsqr", coefficients, Fold(qr.r_factor, stack))
            engine.progress.begin("columns", "factor", 1, 0)
            return qr.pivoted_qr(r, stop=stop), np.flatnonzero(~r.any(axis=0))
        gram = engine.fold("columns", "gram", coefficients, Fold(partial(qr.gram, leaf=1024), total, fan_in=8))
    engine.progress.begin("columns", "factor", 1, 0)
    return qr.pivoted_cholesky(gram, stop=stop), np.flatnonzero(np.diagonal(gram) == 0)


def _exact(engine: Engine, run: Run, source: str, transform: Transform, size: Size) -> np.ndarray:
    """W'W by triangles of whole numbers, one a leaf."""
    rows = triangle_rows(size.n)
    bounds = [(lo, min(lo + rows, size.n)) for lo in range(0, size.n, rows)]
    keys = [f"{index:06d}" for index in range(len(bounds))]
    names = [f"sums-leaf-{key}" for key in keys]
    calls = [(source, *bound, name) for bound, name in zip(bounds, names)]
    engine.each("columns", "sums-leaf", keys, calls, sum_leaf)
    triangle = engine.join("columns", "sums", names, joined, fan_in=8)
    if source == "wavelets":
        return unpacked(triangle, size.columns)
    return _through(transform, _through(transform, unpacked(triangle, size.pixels), size).T, size)


def _through(transform: Transform, rows: np.ndarray, size: Size) -> np.ndarray:
    """The linear map of a transform applied to each row, half of them by another thread."""
    first, second = np.array_split(rows.reshape(-1, size.height, size.width, size.channels), 2)
    linear = transform.linear  # type: ignore[attr-defined]  # `gram_source` asked for it
    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(linear, first)
        later = linear(second)
        return np.concatenate([other.result(), later])


def sum_leaf(run: Run, key: str, source: str, lo: int, hi: int, name: str) -> dict[str, Any]:
    """Sum the products of the columns of some rows, read a few at a time."""
    array = run.array(source)
    width = int(np.prod(array.shape[1:]))
    chunk = array.chunks[0]
    step = chunk * max(1, READ_BYTES // (chunk * width * array.dtype.itemsize))
    cuts = [lo, *range(lo // step * step + step, hi, step), hi]
    parts = (np.asarray(array[start:end]).reshape(-1, width) for start, end in pairwise(cuts))
    run.save(packed(exact_gram(parts, width)), "partial", "columns", f"{name}.npy")
    return {"rows": hi - lo}
