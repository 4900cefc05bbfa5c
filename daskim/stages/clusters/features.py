"""A few numbers for every image whose distance never exceeds the distance of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from daskim.kept import Kept, gather, whole_block
from daskim.kernels.neighbours import PIECE, principal_directions, project
from daskim.release import kept_for_a_stage
from daskim.stages import Context
from daskim.stages.clusters.points import STAGE, load, spread
from daskim.store import Run, block_bounds

__all__ = ["GROUPS", "HEAD", "LEAF", "TASK", "heads", "make_features"]

# Rows of one task. A constant: nothing may depend on the blocks of the run.
TASK = 4096
# Rows whose mean is taken off, of so many parts of W (`spread`). Any vector serves; the mean keeps numbers, so
# rounding, small.
MEAN_ROWS, MEAN_BLOCKS = 1024, 4
# The directions are those of the columns that vary most and hold this share of all variance: a third of the columns of
# photographs, and a third of the work. Of the others, `GROUPS` lengths. All columns where they are few.
SHARE, GROUPS, FEW = 0.95, 8, 512
# Leading features by which the images are put in order.
HEAD = 8
# Points after one another in that order that have one bounding box: that of `daskim.kernels.neighbours`.
LEAF = 64


@dataclass(frozen=True)
class _Basis:
    """Arguments of `project`."""

    mean: np.ndarray
    directions: np.ndarray
    columns: np.ndarray | None
    rest: tuple[np.ndarray, ...]


@lru_cache(maxsize=2)
def _basis(run: Run, token: str) -> _Basis:
    mean, directions, columns = (load(run, f"{name}.npy") for name in ("mean", "directions", "columns"))
    if len(columns) == len(mean):
        return _Basis(mean, directions, None, ())
    others = np.setdiff1d(np.arange(len(mean)), columns)
    return _Basis(mean, directions, columns, tuple(np.array_split(others, min(GROUPS, len(others)))))


kept_for_a_stage(_basis.cache_clear)


def make_features(context: Context, kept: Kept, rows: np.ndarray, token: str) -> int:
    """Leave the array `features` (n, k) f4 in the run; returns k.

    Parameters
    ----------
    rows : ndarray
        Rows that count (not broken), for the mean.
    token : str
        Names this attempt: a process that worked on another run must not use its directions.
    """
    run, n = context.run, context.known.n
    if not run.exists("partial", STAGE, "directions.npy"):
        _choose(context, kept, rows)
    basis = _basis(run, token)
    width = basis.directions.shape[1] + 1 + len(basis.rest)
    if not any(key.startswith("features") for key in run.marked(STAGE)):
        run.create_array("features", (n, width), "f4", TASK, {"fingerprint": token})  # a prime n would chunk by rows
    bounds = block_bounds(n, TASK)
    calls = [(kept, token, lo, hi) for lo, hi in bounds]
    context.engine.each(STAGE, "features", [f"{index:06d}" for index in range(len(bounds))], calls, features_task)
    return width


def _choose(context: Context, kept: Kept, rows: np.ndarray) -> None:
    """Leave the mean, the columns that vary most, and their principal directions."""
    run, k = context.run, context.settings.clusters.directions
    sample = gather(kept, spread(rows, MEAN_ROWS, MEAN_BLOCKS))
    mean = sample.mean(axis=0, dtype=np.float64)
    m = len(mean)
    columns = np.arange(m)
    if m > FEW:
        variance = sample.var(axis=0, dtype=np.float64)
        order = np.argsort(-variance, kind="stable")
        held = int(np.searchsorted(np.cumsum(variance[order]), SHARE * variance.sum())) + 1
        columns = np.sort(order[: max(held, min(m, k))])
    # The leading rows of the pivoted factor hold nearly all of it.
    r = np.asarray(run.array("columns_r")[: 4 * k])
    table = run.read_table("columns", ["kept", "pivot"]).to_pandas()
    pivots = table.loc[table["kept"], "pivot"].to_numpy()  # in the order of the columns of W
    run.save(mean, "partial", STAGE, "mean.npy")
    run.save(columns, "partial", STAGE, "columns.npy")
    run.save(principal_directions(r[:, pivots[columns]], k), "partial", STAGE, "directions.npy")


def features_task(run: Run, key: str, kept: Kept, token: str, lo: int, hi: int) -> dict[str, Any]:
    """Features of some images, and the leading ones of them by themselves."""
    basis = _basis(run, token)
    parts = [project(rows, basis.mean, basis.directions, basis.columns, basis.rest) for rows in _pieces(kept, lo, hi)]
    features = np.concatenate(parts)
    run.array("features")[lo:hi] = features
    run.save(np.ascontiguousarray(features[:, :HEAD]), "partial", STAGE, f"head-{key}.npy")
    return {"rows": hi - lo}


def _pieces(kept: Kept, lo: int, hi: int) -> Iterator[np.ndarray]:
    """Consecutive rows of W, PIECE at a time, without a copy where they lie in one block."""
    size = kept.run.block_rows("wavelets")
    index, block = -1, np.zeros((0, 0))
    for start in range(lo, hi, PIECE):
        found, at, end = [], start, min(start + PIECE, hi)
        while at < end:
            if at // size != index:
                index = at // size
                block = whole_block(kept, index)
            stop = min(end, (index + 1) * size)
            found.append(block[at - index * size : stop - index * size])
            at = stop
        yield found[0] if len(found) == 1 else np.concatenate(found)


def heads(run: Run, n: int) -> np.ndarray:
    """The leading features of all images; shape (n, at most HEAD), float32."""
    return np.concatenate([load(run, f"head-{index:06d}.npy") for index in range(len(block_bounds(n, TASK)))])
