"""Regime cells: k-means cells by dask-ml, several looked up for each image, neighbours inside, then Ward on those.

For numbers of clusters between the two exact regimes. Approximate: two images are compared only where they share one
of their `clusters.probes` nearest cells, and each keeps its `clusters.neighbours` nearest of a cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.errors import SettingsError
from daskim.kept import Kept, take
from daskim.kernels.nearest import lowest
from daskim.kernels.neighbours import box_order
from daskim.kernels.ward import Merges, ward_heights
from daskim.lloyd import dask_ml_steps
from daskim.scatter import Scattered, scatter
from daskim.settings import Clusters
from daskim.stages import Context
from daskim.stages.clusters.features import LEAF, heads
from daskim.stages.clusters.forest import all_squared, grow_forest, packed
from daskim.stages.clusters.lloyd import CHUNK, nearest_cells, seeds_from_features
from daskim.stages.clusters.pairs import Pairs
from daskim.stages.clusters.points import STAGE, Points, load
from daskim.store import Run

__all__ = ["cell_merges", "cell_tasks", "cells_bytes", "cells_of", "compared_in_cells"]

# Bytes of the rows of a group of cells, at least, and groups at most, but for large cells: each task that reads rows
# leaves a file for each group.
GROUP_BYTES, GROUPS = 2**25, 128
# Distances that one task works out, but for those of one image, and those that it holds at a time.
WORK, HELD = 2**26, 2**22
# Rows of a cell that are compared at a time: in float64 they take four times their bytes.
OTHERS = 1024
# Pairs, each as often as it is found, of one task that puts them together.
UNITED = 2**20


def cells_of(p: int, settings: Clusters) -> tuple[int, int]:
    """How many cells there are for p points, and in how many of them each is."""
    cells = min(settings.cells or round(p**0.5), p)
    return cells, min(settings.probes, cells)


def compared_in_cells(p: int, settings: Clusters) -> float:
    """Points that each is compared with, where all cells are of one size."""
    cells, probes = cells_of(p, settings)
    return probes * probes * p / max(1, cells)


def group_rows(p: int, probes: int, row: int) -> int:
    """Points, of so many bytes each, of a group of cells."""
    return max(1, max(GROUP_BYTES, p * probes * row // GROUPS) // row)


def range_edges(p: int, probes: int, neighbours: int) -> np.ndarray:
    """Ranges of points: the pairs of each, by their smaller point, are put together by one task."""
    return np.linspace(0, p, -(-p * probes * neighbours // UNITED) + 1).astype(np.int64)


def cell_tasks(p: int, row: int, settings: Clusters) -> int:
    """Tasks that look for neighbours in cells of one size and put them together."""
    probes = cells_of(p, settings)[1]
    groups = -(-p * probes // group_rows(p, probes, row))
    work = -(-int(p * compared_in_cells(p, settings)) // WORK)
    return groups + work + len(range_edges(p, probes, settings.neighbours)) - 1


def cells_bytes(p: int, m: int, itemsize: int, settings: Clusters) -> int:
    """Bytes that one task holds at most, where no cell is much larger than the others."""
    cells, probes = cells_of(p, settings)
    group = min(group_rows(p, probes, m * itemsize), p) * m * itemsize
    queries = min(p, max(1, HELD * cells // max(1, p * probes)))
    found = 3 * 8 * UNITED * 5
    return max(3 * group + 8 * m * (queries + OTHERS) + 4 * 8 * HELD, found)


def cell_merges(context: Context, kept: Kept, points: Points, count: int, unit: float) -> tuple[Merges, dict[str, Any]]:
    """At least `count` Ward merges on the neighbour graph of the cells; the lowest first."""
    run, settings = context.run, context.settings.clusters
    p = len(points.rows)
    cells, probes = cells_of(p, settings)
    run.save(points.rows, "partial", STAGE, "rows.npy")
    run.save(points.weights, "partial", STAGE, "weights.npy")
    member = assign(context, points, cells, probes)
    pairs = neighbour_pairs(context, kept, points, member, cells)
    place = np.argsort(box_order(heads(run, context.known.n)[points.rows], LEAF))
    forest = grow_forest(context, kept, points, pairs, place, float("inf"), "wardcells")
    merges = forest.merges
    if len(merges.height) < min(count, p - 1):
        raise SettingsError(
            f"regime cells: the neighbour graph allows {len(merges.height)} merges, {count} are needed",
            "Raise clusters.neighbours or clusters.probes, or lower clusters.cells.",
        )
    facts = {"cells": cells, "probes": probes, "pairs": pairs.total}
    return merges, facts | forest.tell(context, pairs.total, "", unit)


def neighbour_pairs(context: Context, kept: Kept, points: Points, member: np.ndarray, cells: int) -> Pairs:
    """Pairs of nearest neighbours in cells, each once, with their Ward heights, by the smaller point and the other.

    Parameters
    ----------
    member : ndarray, shape (p, probes), int64
        Cells of each point.
    """
    run, settings = context.run, context.settings.clusters
    p, probes = member.shape
    size = np.bincount(member.ravel(), minlength=cells)
    row = len(kept.columns) if kept.columns is not None else context.known.columns
    row *= run.array("wavelets").dtype.itemsize
    group = packed(size, group_rows(p, probes, row))
    order = np.argsort(member.ravel(), kind="stable") // probes  # points by cell, ascending in each
    bounds = np.concatenate([[0], np.cumsum(np.bincount(group, weights=size))]).astype(np.int64)
    edges = range_edges(p, probes, settings.neighbours)
    run.save(edges, "partial", STAGE, "near-edges.npy")
    there = run.marked(STAGE)
    keys: list[str] = []
    of: list[int] = []
    for index, (lo, hi) in enumerate(zip(bounds.tolist(), bounds[1:].tolist())):
        own = size[group == index]
        mine = [f"{index:06d}-{piece:06d}" for piece in range(-(-int((own**2).sum()) // WORK))]
        if any(f"near-{key}" not in there for key in mine):
            run.save(order[lo:hi], "partial", STAGE, f"cells-{index:06d}.npy")
            run.save(own, "partial", STAGE, f"cells-{index:06d}-size.npy")
        keys += mine
        of += [index] * len(mine)
    groups = len(bounds) - 1
    point, target = np.divmod(np.unique(np.arange(p)[:, None] * groups + group[member]), groups)
    rows = scatter(context.engine, STAGE, kept, points.rows[point], target, "cells-read")
    calls = [(rows[index], settings.neighbours) for index in of]
    infos = context.engine.each(STAGE, "near", keys, calls, cell_neighbours)
    files: list[list[str]] = [[] for _ in edges[1:]]
    for key, info in zip(keys, infos):
        for at in info["ranges"]:
            files[at].append(near_file(key, at))
    keys = [f"{at:06d}" for at in range(len(files))]
    infos = context.engine.each(STAGE, "united", keys, [(p, names) for names in files], unite)
    counts = {f"united-{key}.npy": info["pairs"] for key, info in zip(keys, infos)}
    return Pairs(counts, float(np.sqrt(max((info["highest"] for info in infos), default=0.0))))


def near_file(key: str, at: int) -> str:
    """The file of the pairs that a task found in a range of points."""
    return f"near-{key}-{at:06d}.npy"


def assign(context: Context, points: Points, cells: int, probes: int) -> np.ndarray:
    """Cells of each point; shape (p, probes), int64."""
    import dask.array as da

    run = context.run
    name = "cells"
    if name not in run.marked(STAGE):
        rows = points.rows
        features = da.from_zarr(run.array("features"))
        if len(rows) < features.shape[0]:
            features = features[rows]
        features = features.rechunk((CHUNK, -1))
        seeds = seeds_from_features(context, rows, cells)
        start = take(run, "features", seeds)
        _, centres, _ = dask_ml_steps(context.engine.place, features, start, 5)
        near = features.map_blocks(
            nearest_cells,
            centres,
            probes,
            dtype=np.int64,
            chunks=(features.chunks[0], (probes,)),
            meta=np.empty((0, 0)),
        )
        with context.engine.place.scheduler():
            run.save(np.asarray(near.compute()), "partial", STAGE, "cells.npy")
        run.mark(STAGE, name, {})
    return load(run, "cells.npy")


def cell_neighbours(run: Run, key: str, there: Scattered, neighbours: int) -> dict[str, Any]:
    """The nearest neighbours, by exact distance, of some points of a group of cells among all of their cells.

    The points of a group stand cell by cell; which of them are those of this task, a piece of equal work, the key says.
    """
    index, piece = (int(part) for part in key.split("-"))
    members, size = load(run, f"cells-{index:06d}.npy"), load(run, f"cells-{index:06d}-size.npy")
    rows, weights, edges = (load(run, f"{name}.npy") for name in ("rows", "weights", "near-edges"))
    block, own = there.block(run), np.unique(members)
    # a row belongs to the piece that its first distance falls into
    work = np.concatenate([[0], np.cumsum(np.repeat(size, size))])
    lo, hi = (int(np.searchsorted(work, (piece + more) * WORK)) for more in (0, 1))
    hi = min(hi, len(members))
    ends = np.cumsum(size)
    found = []
    for c in range(int(np.searchsorted(ends, lo, side="right")), len(size)):
        start, end = int(ends[c] - size[c]), int(ends[c])
        if start >= hi:
            break
        if size[c] < 2:
            continue
        whole = np.searchsorted(own, members[start:end])
        step = max(1, HELD // int(size[c]))
        for at in range(max(lo, start), min(hi, end), step):
            mine = slice(at, min(at + step, hi, end))
            query = np.searchsorted(own, members[mine])
            squared = squared_to(block, query, whole)
            squared[np.arange(len(query)), np.arange(mine.start, mine.stop) - start] = np.inf
            i, j = lowest(squared, min(neighbours, int(size[c]) - 1))
            a, b = own[query[i]], own[whole[j]]
            height = ward_heights(squared[i, j], weights[a], weights[b])
            found.append(np.stack([np.minimum(a, b).astype(np.float64), np.maximum(a, b).astype(np.float64), height]))
    made = each_once(found, len(rows))
    at = np.searchsorted(edges, made[0], side="right") - 1
    ranges = np.unique(at).tolist()
    for r in ranges:
        run.save(made[:, at == r], "partial", STAGE, near_file(key, r))
    return {"pairs": made.shape[1], "ranges": ranges}


def squared_to(block: np.ndarray, query: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances of some rows of a block to others of it, `OTHERS` at a time; shape (q, o), float64."""
    part = block[query]
    out = np.empty((len(query), len(others)))
    for start in range(0, len(others), OTHERS):
        out[:, start : start + OTHERS] = all_squared(part, block[others[start : start + OTHERS]])
    return out


def each_once(found: list[np.ndarray], p: int) -> np.ndarray:
    """Pairs (3, t), by their points, of p, each once: the height of a pair is the same wherever it is found."""
    pairs = np.concatenate([np.zeros((3, 0)), *found], axis=1)
    _, first = np.unique(pairs[0] * p + pairs[1], return_index=True)
    return pairs[:, first]


def unite(run: Run, key: str, p: int, files: list[str]) -> dict[str, Any]:
    """The pairs of a range of points, each once."""
    made = each_once([load(run, name) for name in files], p)
    run.save(made, "partial", STAGE, f"united-{key}.npy")
    return {"pairs": made.shape[1], "highest": float(made[2].max(initial=0.0))}
