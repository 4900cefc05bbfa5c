"""The columns of best Laplacian score, as the paper's own code offers them in place of the pivoted QR.

That code takes the best-scored columns and no more is asked of them: tau is no bound here, and the condition number of
what was taken is told.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from daskim.equals import numbered
from daskim.kept import CACHE_BYTES, take
from daskim.kernels import qr
from daskim.kernels.condition import condition_curve, leading_condition
from daskim.kernels.laplacian_score import heat_kernel_graph, laplacian_scores
from daskim.settings import Columns
from daskim.stages import Context, Size

__all__ = ["by_score", "need", "sample_rows", "scores_of"]


def sample_rows(table: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """At most `count` rows, ascending: of distinct standard images that are neither broken nor flat.

    Copies would be one another's nearest neighbours and say nothing about columns.
    """
    good = table[table["status"] == "ok"]
    rows = np.sort(good.groupby("digest", sort=False)["row"].min().to_numpy(dtype=np.int64))
    if len(rows) > count:
        rows = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    return rows


def scores_of(context: Context) -> tuple[np.ndarray, int]:
    """The score of every column, and the number of images it is from."""
    columns, run = context.settings.columns, context.run
    table = numbered(run.read_table("images", ["row", "status", "digest"]), "digest").to_pandas()
    rows = sample_rows(table, columns.sample, columns.seed)
    w = take(run, "wavelets", rows)
    return laplacian_scores(w, heat_kernel_graph(w, columns.neighbours)), len(rows)


def by_score(
    root: qr.PivotedFactor, scores: np.ndarray, columns: Columns, rounding: float
) -> tuple[qr.PivotedFactor, int, dict[int, float]]:
    """Take the columns of lowest score; ties go to the smaller index.

    Parameters
    ----------
    root : PivotedFactor
        Of W, without an early stop.
    scores : ndarray, shape (d,), float64
        Infinite for columns that are never taken, but for one that is not zero where all are infinite (one image, or
        copies of it): without a column all images would be alike.
    rounding : float
        Residuals below it, relative to the largest column, are rounding.

    Returns
    -------
    factor : PivotedFactor
        R of W with its columns by rising score; its rank is that of W.
    m : int
        Columns taken.
    curve : dict of int to float
        Condition number of the first k, with k = m and m + 1; infinite from the first column on that depends on those
        before it.
    """
    d = scores.size
    norms = np.empty(d)
    norms[root.permutation] = np.einsum("ij,ij->j", root.r, root.r)
    order = np.lexsort((norms == 0, scores)).astype(np.int64)
    wanted = columns.count if isinstance(columns.count, int) else max(1, round(columns.count * d))
    m = max(min(wanted, int(np.isfinite(scores).sum())), min(1, root.rank))
    factor = in_order(root, order)
    depends = np.flatnonzero(np.abs(np.diagonal(factor.r)) <= rounding * np.sqrt(norms.max()))
    sound = int(depends[0]) if depends.size else factor.rank
    leading = qr.PivotedFactor(factor.r[:sound], order, sound)
    known = {k: leading_condition(leading.r, k) for k in (m, m + 1) if 0 < k <= d}
    return factor, m, condition_curve(leading, points=columns.points, known=known)


def in_order(root: qr.PivotedFactor, order: np.ndarray) -> qr.PivotedFactor:
    """The factor of the same matrix with its columns in another order."""
    r = np.empty_like(root.r)
    r[:, root.permutation] = root.r
    return qr.PivotedFactor(qr.r_factor(r[:, order]), order, root.rank)


def need(size: Size, columns: Columns) -> tuple[int, int]:
    """Bytes that the scores read, and bytes that they hold in the process that orders the work."""
    d, images = size.columns, min(size.n, columns.sample)
    whole = size.n * d * size.itemsize
    graph = 512 * images * 8 * 4 + images * d * (8 + size.itemsize) + 4 * 256 * 8 * images
    return min(whole, images * size.rows * d * size.itemsize), min(CACHE_BYTES, whole) + graph + 4 * 8 * d * d
