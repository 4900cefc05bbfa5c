"""Lloyd's k-means by dask-ml, always from centres of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from daskim.kept import Kept, gather, take
from daskim.kernels.kmeans import cluster_sums, nearest_centres, seed_centres, squared_error
from daskim.lloyd import dask_ml_steps
from daskim.settings import Clusters
from daskim.stages import Context
from daskim.stages.clusters.points import STAGE, load

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["check_by_lloyd", "is_checked", "k_means", "seeds_from_features"]

# Rows in a chunk of dask-ml's input: a constant, so that sums and labels do not depend on the blocks of the run. Each
# chunk's sums have k x m float64 numbers, so there should be few of them where k is large.
CHUNK = 8192
# Lloyd steps between two looks: that many are lost by an interruption.
STEPS = 5
# Rows from which centres are seeded, at least this many a centre.
SEED_ROWS = 4


def rows_of(kept: Kept, rows: np.ndarray, n: int) -> da.Array:
    """The kept coefficients of some rows as a Dask array of float32, in chunks of a fixed size."""
    import dask.array as da

    coefficients = da.from_zarr(kept.run.array("wavelets"))
    if len(rows) < n:
        coefficients = coefficients[rows]
    width = coefficients.shape[1] if kept.columns is None else len(kept.columns)
    chosen = coefficients.map_blocks(
        lambda block: kept.select(block).astype(np.float32),
        dtype="f4",
        chunks=(coefficients.chunks[0], (width,)),
        meta=np.empty((0, 0), "f4"),
    )
    return chosen.rechunk((CHUNK, -1))


def k_means(
    context: Context, kept: Kept, rows: np.ndarray, k: int, seeds: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Cluster of each of the given rows by Lloyd's algorithm, at most `clusters.max_iter` steps.

    dask-ml does the steps, a few at a time. Between them an empty cluster, to which dask-ml would give the zero vector
    as its centre, takes over the row that lies farthest from its own centre; and the centres are left in the run, so
    that an interrupted run goes on from there.
    """
    run, settings = context.run, context.settings.clusters
    data = rows_of(kept, rows, context.known.n)
    centres = gather(kept, seeds).astype(np.float64)
    done, steps, labels, reseeded = 0, 0, None, 0
    progress = context.engine.progress
    progress.begin(STAGE, "k-means", -(-settings.max_iter // STEPS), 0)
    while done < settings.max_iter:
        name = f"kmeans-{done:04d}"
        if name in run.marked(STAGE):
            centres, info = load(run, f"{name}.npy"), run.marker(STAGE, name)
            labels = load(run, f"{name}-labels.npy")
            context.engine.resumed[STAGE] = context.engine.resumed.get(STAGE, 0) + 1
        else:
            before = labels
            most = min(STEPS, settings.max_iter - done)
            labels, centres, used = dask_ml_steps(context.engine.place, data, centres, most)
            centres, fresh = fill_empty(kept, rows, labels, centres)
            still = before is not None and not fresh and bool((before == labels).all())
            info = {"steps": used, "stopped": still or (used < STEPS and not fresh), "reseeded": fresh}
            run.save(centres, "partial", STAGE, f"{name}.npy")
            run.save(labels, "partial", STAGE, f"{name}-labels.npy")
            run.mark(STAGE, name, info)
            context.engine.computed[STAGE] = context.engine.computed.get(STAGE, 0) + 1
        done += STEPS
        progress.advance(STAGE)
        steps += info["steps"]
        reseeded += info["reseeded"]
        if info["stopped"]:
            break
    assert labels is not None
    return labels, {"lloyd_steps": steps, "reseeded": reseeded, "converged": info["stopped"]}


def fill_empty(kept: Kept, rows: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, int]:
    """Centres with the empty clusters moved to the rows that lie farthest from theirs; how many were moved."""
    counts = np.bincount(labels, minlength=len(centres))
    empty = np.flatnonzero(counts == 0)
    if not empty.size:
        return centres, 0
    distance = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        difference = gather(kept, rows[part]).astype(np.float64) - centres[labels[part]]
        distance[part] = np.einsum("ij,ij->i", difference, difference)
    distance[counts[labels] < 2] = -1.0  # the only row of a cluster stays
    farthest = np.argsort(-distance, kind="stable")[: empty.size]
    centres = centres.copy()
    centres[empty[: len(farthest)]] = gather(kept, rows[farthest]).astype(np.float64)
    return centres, int(empty.size)


def seeds_from_features(context: Context, rows: np.ndarray, k: int) -> np.ndarray:
    """Rows that serve as first centres: k-means++ on the features of a sample."""
    settings = context.settings.clusters
    size = min(len(rows), max(SEED_ROWS * k, 10_000))
    sample = np.sort(np.random.default_rng(settings.seed).permutation(len(rows))[:size])
    block = take(context.run, "features", rows[sample]).astype(np.float64)
    return rows[sample[seed_centres(block, k, seed=settings.seed)]]


def nearest_cells(features: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest centres of each row; shape (n, count)."""
    return nearest_centres(features.astype(np.float64), centres, count)


def is_checked(n: int, k: int, m: int, settings: Clusters) -> bool:
    """Whether Lloyd steps check the k clusters that merges made of n rows of m coefficients: where they are cheap.

    A step compares all rows with all centres, while the merges look at neighbours alone.
    """
    return k > 1 and float(n) * k * m <= settings.lloyd_limit


def check_by_lloyd(
    context: Context, kept: Kept, rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Lloyd steps by dask-ml from the centres of a clustering: labels with the smaller objective, and both objectives.

    Parameters
    ----------
    rows : ndarray
        Images that were clustered.
    labels : ndarray, shape (len(rows),)
        0 to k - 1, none empty.
    """
    import dask.array as da

    block = gather(kept, rows)
    k = int(labels.max()) + 1
    centres = _means(block, labels, k)
    before = squared_error(block, centres, labels)
    data = da.from_array(block.astype(np.float32), chunks=(CHUNK, -1))
    moved, _, steps = dask_ml_steps(context.engine.place, data, centres, context.settings.clusters.max_iter)
    full = len(np.unique(moved)) == k
    after = squared_error(block, _means(block, moved, k), moved) if full else float("inf")
    better = full and after < before * (1 - 1e-12)
    unit = kept.scale**2
    facts = {
        "lloyd_objective_before": before * unit,
        "lloyd_objective_after": (after if better else before) * unit,
        "lloyd_steps": steps,
        "lloyd_moved": int((moved != labels).sum()) if better else 0,
    }
    return (moved if better else labels), facts


def _means(block: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Mean of each of k clusters, none empty."""
    sums, counts = cluster_sums(block, labels, k)
    sums /= counts[:, None]
    return sums
