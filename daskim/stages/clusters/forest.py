"""Ward on a graph of pairs: components packed into tasks, their merges put together.

The driver looks at the pairs batch by batch and keeps what is one number a point; which of the candidates are within
the radius is found out where the rows are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskim.kept import Kept, gather
from daskim.kernels.neighbours import squared_distances
from daskim.kernels.ward import Merges, components, ward_dense, ward_heights, ward_merges
from daskim.scatter import Scattered, scatter
from daskim.stages import Context
from daskim.stages.clusters.cuts import cut_components
from daskim.stages.clusters.pairs import Pairs
from daskim.stages.clusters.points import GROUP, STAGE, Points, load
from daskim.store import Run

__all__ = [
    "DENSE_PAIRS",
    "DENSE_POINTS",
    "Forest",
    "all_squared",
    "grow_forest",
    "packed",
    "whole_forest",
]

# A component with more points than this never gets a full matrix (200 MB).
DENSE_POINTS = 5000
# Pairs in one component above which the full matrix, where it fits, is smaller and faster.
DENSE_PAIRS = 200_000
# Pairs that one task may hold, for each point that it may.
PAIRS = 128


@dataclass(frozen=True)
class Forest:
    """What became of a graph of pairs.

    Attributes
    ----------
    merges : Merges
        Of all components, the lowest first.
    pairs : int
        Within the radius.
    cut : int
        Points of components that were too large for one task, and cut.
    lost : int
        Pairs across such cuts.
    near : float
        None of them has a height of at most this; infinite where nothing was cut.
    """

    merges: Merges
    pairs: int
    cut: int
    lost: int
    near: float

    def tell(self, context: Context, total: int, within: str, unit: float) -> dict[str, int | float]:
        """Say what was cut, of so many pairs; the facts of it, none where nothing was. `unit` as for `join_merges`."""
        if not self.cut:
            return {}
        near = self.near * unit
        context.say(
            f"clusters: {self.cut:,} points are chained{within}, more than clusters.largest = "
            f"{context.settings.clusters.largest:,}: cut into parts, {self.lost:,} of {total:,} pairs left out "
            f"(none within {near:.1f})"
        )
        return {"cut_points": self.cut, "cut_pairs": self.lost, "cut_beyond_rms": near}


def grow_forest(
    context: Context, kept: Kept, points: Points, pairs: Pairs, place: np.ndarray, radius: float, group: str
) -> Forest:
    """Ward merges of all components of the graph of pairs, each component whole in one task; lowest first.

    A component of more points than `clusters.largest`, or of more than `PAIRS` pairs for each of so many, is cut into
    parts, so that the nearest points stay together (`cut_components`); no merge is made across a cut.

    Parameters
    ----------
    pairs : Pairs
        Positions of points, with or without squared Ward heights.
    place : ndarray, shape (p,), int
        The place of each point in an order in which neighbours are near one another.
    """
    run, most = context.run, context.settings.clusters.largest
    label = np.arange(len(points.rows))
    for part in pairs.batches(run):
        mine = components(len(points.rows), label[part[0].astype(np.int64)], label[part[1].astype(np.int64)])
        label = mine[label]
    whole = label
    label, near = cut_components(run, pairs, label, most, PAIRS * most, place)
    cut = int((np.bincount(whole)[whole] > np.bincount(label)[label]).sum())
    used = np.flatnonzero(np.bincount(label)[label] > 1)
    name, mine = np.unique(label[used], return_inverse=True)
    task = np.full(len(points.rows), -1, dtype=np.int64)
    task[used] = packed(np.bincount(mine, minlength=len(name)), GROUP)[mine]
    keys = [f"{t:06d}" for t in range(int(task.max(initial=-1)) + 1)]
    there = run.marked(STAGE)
    lost, files, count = 0, [list[str]() for _ in keys], np.zeros(len(keys), dtype=np.int64)
    for index, part in enumerate(pairs.batches(run)):
        a, b = part[0].astype(np.int64), part[1].astype(np.int64)
        inside = label[a] == label[b]
        lost += len(a) - int(inside.sum())
        part, a = part[:, inside], a[inside]
        order = np.argsort(task[a], kind="stable")
        ends = np.searchsorted(task[a][order], np.arange(len(keys) + 1))
        count += np.diff(ends)
        for t in np.flatnonzero(np.diff(ends)).tolist():
            files[t].append(f"{group}-in-{keys[t]}-{index:04d}.npy")
            if f"{group}-{keys[t]}" not in there:
                run.save(part[:, order[ends[t] : ends[t + 1]]], "partial", STAGE, files[t][-1])
    rows = scatter(context.engine, STAGE, kept, points.rows[used], task[used], f"{group}-read")
    for t, key in enumerate(keys):
        if f"{group}-{key}" not in there:
            run.save(np.flatnonzero(task == t), "partial", STAGE, f"{group}-points-{key}.npy")
    calls = [(rows[t], files[t], radius, group) for t in range(len(keys))]
    infos = context.engine.each(STAGE, group, keys, calls, forest_task)
    merges = lowest_first([load(run, f"{group}-out-{key}.npy") for key in keys])
    return Forest(merges, sum(info["pairs"] for info in infos), cut, lost, near * pairs.reach)


def packed(sizes: np.ndarray, most: int) -> np.ndarray:
    """The task of each set of points of these sizes: consecutive ones, of `most` points where they are not larger."""
    task = np.zeros(len(sizes), dtype=np.int64)
    total, index = 0, 0
    for c, size in enumerate(sizes.tolist()):
        if total and total + size > most:
            total, index = 0, index + 1
        task[c] = index
        total += size
    return task


def forest_task(run: Run, key: str, rows: Scattered, files: list[str], radius: float, group: str) -> dict[str, Any]:
    """Ward merges of some components, of the pairs that are within the radius."""
    used = load(run, f"{group}-points-{key}.npy")
    weights = load(run, "weights.npy")[used]
    # none where all pairs of these points lead to other parts of a component that was cut
    table = np.concatenate([load(run, name) for name in files], axis=1) if files else np.zeros((2, 0))
    i, j = (np.searchsorted(used, side.astype(np.int64)) for side in table[:2])
    block = rows.block(run)
    if len(table) == 3:
        squared = table[2]
    else:
        order = np.lexsort((j, i))  # one row after another
        i, j = i[order], j[order]
        squared = ward_heights(squared_distances(block, block, i, j, radius**2), weights[i], weights[j])
        inside = squared <= radius**2
        i, j, squared = i[inside], j[inside], squared[inside]
    del table
    component = components(len(used), i, j)
    out = []
    edge_order = np.argsort(component[i], kind="stable")
    node_order = np.argsort(component, kind="stable")
    edge_ends = np.searchsorted(component[i][edge_order], np.arange(component.max(initial=-1) + 2))
    node_ends = np.searchsorted(component[node_order], np.arange(component.max(initial=-1) + 2))
    for c in range(len(node_ends) - 1):
        nodes = node_order[node_ends[c] : node_ends[c + 1]]
        edges = edge_order[edge_ends[c] : edge_ends[c + 1]]
        if len(nodes) == 1:
            continue
        if len(nodes) == 2:
            out.append(np.array([np.sqrt(squared[edges]), nodes[:1], nodes[1:], nodes[:1]], dtype=np.float64))
            continue
        mine = block if len(nodes) == len(used) else block[nodes]
        if len(edges) > DENSE_PAIRS and len(nodes) <= DENSE_POINTS:
            merges = ward_dense(all_squared(mine), weights[nodes], radius)
        else:
            a, b = np.searchsorted(nodes, i[edges]), np.searchsorted(nodes, j[edges])
            merges = ward_merges(mine, weights[nodes], a, b, squared[edges], radius)
        tree = np.full(len(merges.height), nodes[0])
        out.append(np.array([merges.height, nodes[merges.a], nodes[merges.b], tree], dtype=np.float64))
    made = np.concatenate(out, axis=1) if out else np.zeros((4, 0))
    made[1:] = used[made[1:].astype(np.int64)]
    run.save(made, "partial", STAGE, f"{group}-out-{key}.npy")
    return {"pairs": len(i), "merges": made.shape[1], "components": len(node_ends) - 1}


def whole_forest(context: Context, kept: Kept, attempt: int) -> Merges:
    """The full Ward tree of all points from their distance matrix, as one task."""
    group = f"whole{attempt}"
    context.engine.each(STAGE, group, ["000000"], [(kept, group)], whole_task)
    return lowest_first([load(context.run, f"{group}-out.npy")])


def whole_task(run: Run, key: str, kept: Kept, group: str) -> dict[str, Any]:
    block = gather(kept, load(run, "rows.npy"))
    merges = ward_dense(all_squared(block), load(run, "weights.npy"))
    made = np.array([merges.height, merges.a, merges.b, np.zeros(len(merges.height))], dtype=np.float64)
    run.save(made, "partial", STAGE, f"{group}-out.npy")
    return {"merges": made.shape[1]}


def lowest_first(parts: list[np.ndarray]) -> Merges:
    """All merges by height; equal heights by the smallest point of their trees, and in each tree's own order.

    Parameters
    ----------
    parts : list of ndarray, shape (4, t)
        Height, the two points, smallest point of the tree; each tree whole, in one part.
    """
    made = np.concatenate(parts, axis=1) if parts else np.zeros((4, 0))
    order = np.lexsort((made[3], made[0]))  # stable
    return Merges(made[0][order], made[1][order].astype(np.int64), made[2][order].astype(np.int64))


def all_squared(block: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """Squared distances of all rows to all of `other` (or one another), shape (n, p), float64.

    Exact where the rows are whole numbers: their products stay below 2^53.
    """
    left = block.astype(np.float64)
    right = left if other is None else other.astype(np.float64)
    squared = left @ right.T
    squared *= -2.0
    squared += np.einsum("ij,ij->i", left, left)[:, None]
    squared += np.einsum("ij,ij->i", right, right)[None, :]
    return np.maximum(squared, 0.0, out=squared)
