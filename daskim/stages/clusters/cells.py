"""Regime cells: k-means cells by dask-ml, several looked up for each image, neighbours inside, then Ward on those.

For numbers of clusters between the two exact regimes. Approximate: two images are compared only where they share one
of their `clusters.probes` nearest cells, and each keeps its `clusters.neighbours` nearest of a cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.errors import SettingsError
from daskim.kept import Kept, gather, take
from daskim.kernels.neighbours import box_order
from daskim.kernels.ward import Merges, ward_heights
from daskim.lloyd import dask_ml_steps
from daskim.stages import Context
from daskim.stages.clusters.features import LEAF, heads
from daskim.stages.clusters.forest import all_squared, grow_forest
from daskim.stages.clusters.lloyd import CHUNK, nearest_cells, seeds_from_features
from daskim.stages.clusters.pairs import Pairs
from daskim.stages.clusters.points import STAGE, Points, load
from daskim.store import Run

__all__ = ["cell_merges"]

# A cell with more members than this is split among tasks of that many rows each against all of the cell.
CELL_ROWS = 4096


def cell_merges(context: Context, kept: Kept, points: Points, count: int, unit: float) -> tuple[Merges, dict[str, Any]]:
    """At least `count` Ward merges on the neighbour graph of the cells; the lowest first."""
    run, settings = context.run, context.settings.clusters
    p = len(points.rows)
    cells = min(settings.cells or round(p**0.5), p)
    probes = min(settings.probes, cells)
    run.save(points.rows, "partial", STAGE, "rows.npy")
    run.save(points.weights, "partial", STAGE, "weights.npy")
    member, order = assign(context, points, cells, probes)
    ends = np.searchsorted(member[order], np.arange(cells + 1))
    keys, calls = [], []
    there = run.marked(STAGE)
    for cell in range(cells):
        mine = order[ends[cell] : ends[cell + 1]] // probes
        for start in range(0, len(mine), CELL_ROWS):
            keys.append(f"{cell:06d}-{start:08d}")
            calls.append((kept, start, settings.neighbours, f"cell-{cell:06d}"))
        if len(mine) and f"near-{keys[-1]}" not in there:
            run.save(np.sort(mine), "partial", STAGE, f"cell-{cell:06d}.npy")
    context.engine.each(STAGE, "near", keys, calls, cell_neighbours)
    found = np.concatenate([load(run, f"near-{key}.npy") for key in keys], axis=1)
    _, first = np.unique(found[0] * p + found[1], return_index=True)
    found = found[:, first]
    run.save(found, "partial", STAGE, "near.npy")
    place = np.argsort(box_order(heads(run, context.known.n)[points.rows], LEAF))
    pairs = Pairs({"near.npy": found.shape[1]}, float(np.sqrt(found[2].max(initial=0.0))))
    forest = grow_forest(context, kept, points, pairs, place, float("inf"), "wardcells")
    merges = forest.merges
    if len(merges.height) < min(count, p - 1):
        raise SettingsError(
            f"regime cells: the neighbour graph allows {len(merges.height)} merges, {count} are needed",
            "Raise clusters.neighbours or clusters.probes, or lower clusters.cells.",
        )
    facts = {"cells": cells, "probes": probes, "pairs": pairs.total}
    return merges, facts | forest.tell(context, pairs.total, "", unit)


def assign(context: Context, points: Points, cells: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of each point, flattened (p * probes), and the order that groups them by cell."""
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
    member = load(run, "cells.npy").ravel()
    return member, np.argsort(member, kind="stable")


def cell_neighbours(run: Run, key: str, kept: Kept, start: int, neighbours: int, name: str) -> dict[str, Any]:
    """The nearest neighbours, by exact distance, of some members of a cell among all of them."""
    rows, weights = load(run, "rows.npy"), load(run, "weights.npy")
    members = load(run, f"{name}.npy")
    block = gather(kept, rows[members])
    part = block[start : start + CELL_ROWS]
    squared = all_squared(part, block)
    squared[np.arange(len(part)), start + np.arange(len(part))] = np.inf
    count = min(neighbours, len(block) - 1)
    i = np.repeat(np.arange(len(part)), count)
    j = np.argsort(squared, axis=1, kind="stable")[:, :count].ravel()
    a, b = members[start + i], members[j]
    height = ward_heights(squared[i, j], weights[a], weights[b])
    found = np.stack([np.minimum(a, b).astype(np.float64), np.maximum(a, b).astype(np.float64), height])
    run.save(found, "partial", STAGE, f"near-{key}.npy")
    return {"pairs": found.shape[1]}
