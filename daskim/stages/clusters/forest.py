"""Ward on a graph of pairs: components packed into tasks, their merges put together."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.kept import Kept, gather
from daskim.kernels.ward import Merges, components, ward_dense, ward_merges
from daskim.stages import Context
from daskim.stages.clusters.points import GROUP, STAGE, load
from daskim.store import Run

__all__ = ["DENSE_PAIRS", "DENSE_POINTS", "all_squared", "grow_forest", "whole_forest"]

# A component with more points than this never gets a full matrix (200 MB).
DENSE_POINTS = 5000
# Pairs in one component above which the full matrix, where it fits, is smaller and faster.
DENSE_PAIRS = 200_000


def grow_forest(
    context: Context, kept: Kept, a: np.ndarray, b: np.ndarray, squared: np.ndarray, radius: float, group: str
) -> Merges:
    """Ward merges of all components of the graph of pairs, each component whole in one task; lowest first.

    Parameters
    ----------
    a, b : ndarray
        Positions of points.
    """
    run = context.run
    used, position = np.unique(np.concatenate([a, b]), return_inverse=True)
    component = components(len(used), position[: len(a)], position[len(a) :])
    sizes = np.bincount(component)
    pack = np.zeros(len(sizes), dtype=np.int64)  # consecutive components until a task has enough points
    total, index = 0, 0
    for c, size in enumerate(sizes.tolist()):
        if total and total + size > GROUP:
            total, index = 0, index + 1
        pack[c] = index
        total += size
    task = pack[component[position[: len(a)]]]
    keys = [f"{t:06d}" for t in range(int(pack.max(initial=-1)) + 1)]
    there = run.marked(STAGE)
    order = np.argsort(task, kind="stable")
    ends = np.searchsorted(task[order], np.arange(len(keys) + 1))
    for t, key in enumerate(keys):
        if f"{group}-{key}" not in there:
            mine = order[ends[t] : ends[t + 1]]
            run.save(
                np.stack([a[mine].astype(np.float64), b[mine].astype(np.float64), squared[mine]]),
                *("partial", STAGE, f"{group}-in-{key}.npy"),
            )
    context.engine.each(STAGE, group, keys, [(kept, radius, group) for _ in keys], forest_task)
    return lowest_first([load(run, f"{group}-out-{key}.npy") for key in keys])


def forest_task(run: Run, key: str, kept: Kept, radius: float, group: str) -> dict[str, Any]:
    """Ward merges of some components."""
    rows, weights = load(run, "rows.npy"), load(run, "weights.npy")
    table = load(run, f"{group}-in-{key}.npy")
    a, b, squared = table[0].astype(np.int64), table[1].astype(np.int64), table[2]
    used, position = np.unique(np.concatenate([a, b]), return_inverse=True)
    i, j = position[: len(a)], position[len(a) :]
    component = components(len(used), i, j)
    block = gather(kept, rows[used])
    out = []
    edge_order = np.argsort(component[i], kind="stable")
    node_order = np.argsort(component, kind="stable")
    edge_ends = np.searchsorted(component[i][edge_order], np.arange(component.max(initial=-1) + 2))
    node_ends = np.searchsorted(component[node_order], np.arange(component.max(initial=-1) + 2))
    for c in range(len(node_ends) - 1):
        nodes = node_order[node_ends[c] : node_ends[c + 1]]
        edges = edge_order[edge_ends[c] : edge_ends[c + 1]]
        if len(nodes) == 2:
            out.append(np.array([np.sqrt(squared[edges]), nodes[:1], nodes[1:]], dtype=np.float64))
            continue
        dense = len(edges) > DENSE_PAIRS and len(nodes) <= DENSE_POINTS
        if dense:
            merges = ward_dense(all_squared(block[nodes]), weights[used[nodes]], radius)
        else:
            merges = ward_merges(
                block[nodes],
                weights[used[nodes]],
                np.searchsorted(nodes, i[edges]),
                np.searchsorted(nodes, j[edges]),
                squared[edges],
                radius,
            )
        out.append(np.array([merges.height, nodes[merges.a], nodes[merges.b]], dtype=np.float64))
    made = np.concatenate(out, axis=1) if out else np.zeros((3, 0))
    made[1:] = used[made[1:].astype(np.int64)]
    run.save(made, "partial", STAGE, f"{group}-out-{key}.npy")
    return {"merges": made.shape[1], "components": len(node_ends) - 1}


def whole_forest(context: Context, kept: Kept, attempt: int) -> Merges:
    """The full Ward tree of all points from their distance matrix, as one task."""
    group = f"whole{attempt}"
    context.engine.each(STAGE, group, ["000000"], [(kept, group)], whole_task)
    return lowest_first([load(context.run, f"{group}-out.npy")])


def whole_task(run: Run, key: str, kept: Kept, group: str) -> dict[str, Any]:
    block = gather(kept, load(run, "rows.npy"))
    merges = ward_dense(all_squared(block), load(run, "weights.npy"))
    made = np.array([merges.height, merges.a, merges.b], dtype=np.float64)
    run.save(made, "partial", STAGE, f"{group}-out.npy")
    return {"merges": made.shape[1]}


def lowest_first(parts: list[np.ndarray]) -> Merges:
    """All merges by height; equal heights in the order of their trees, which keeps each tree's own order."""
    made = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
    order = np.argsort(made[0], kind="stable")
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
