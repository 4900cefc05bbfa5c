"""The pairs of the join that are within the radius, by their exact distances."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.kept import Kept, whole_block
from daskim.kernels.neighbours import squared_distances
from daskim.kernels.ward import ward_heights
from daskim.stages import Context
from daskim.stages.clusters.points import STAGE, Points, load
from daskim.store import Run

__all__ = ["HELD", "TooManyPairs", "verified"]

# Candidates verified by one task, at most.
VERIFY = 65_536
# Blocks of W that a task holds while the blocks of their partners go by: each pair of blocks meets once, and all
# blocks are read 1 / (2 HELD) times their number.
HELD = 8


class TooManyPairs(Exception):
    """More pairs lie within the radius than may be kept."""

    def __init__(self, pairs: float, radius: float) -> None:
        super().__init__(pairs, radius)
        self.pairs = pairs
        self.radius = radius


def verified(
    context: Context, kept: Kept, points: Points, radius: float, attempt: int, counts: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (positions a < b) within the radius of the candidates that the tiles left, and their squared heights.

    Ordered so that a task looks into few blocks of W: a group of blocks for a, one after the other for b.

    Parameters
    ----------
    counts : dict
        Candidates in each of the files that the tiles left.
    """
    run, total = context.run, sum(counts.values())
    if total > 20 * context.settings.clusters.max_pairs:
        raise TooManyPairs(total, radius)
    small = np.int32 if len(points.rows) < 2**31 else np.int64
    pairs = np.empty((2, total), dtype=small)
    at = 0
    for name, count in counts.items():
        pairs[:, at : at + count] = load(run, name)
        at += count
    block = (points.rows // run.block_rows("wavelets")).astype(small)
    group = block[pairs[0]] // HELD
    order = np.lexsort((block[pairs[0]], block[pairs[1]], group))
    pairs, group = pairs[:, order], group[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1)).tolist()
    batches = [
        (at, min(at + VERIFY, end))
        for lo, end in zip(starts, [*starts[1:], len(group)])
        for at in range(lo, end, VERIFY)
    ]
    keys = [f"{index:06d}" for index in range(len(batches))]
    there = run.marked(STAGE)
    for key, (lo, hi) in zip(keys, batches):
        if f"verify{attempt}-{key}" not in there:
            run.save(pairs[:, lo:hi], "partial", STAGE, f"candidates{attempt}-{key}.npy")
    del pairs, order, group
    infos = context.engine.each(STAGE, f"verify{attempt}", keys, [(kept, radius, attempt) for _ in keys], verify_batch)
    if (count := sum(info["pairs"] for info in infos)) > context.settings.clusters.max_pairs:
        raise TooManyPairs(count, radius)
    parts = [load(run, f"pairs{attempt}-{key}.npy") for key in keys] or [np.zeros((3, 0))]
    found = np.concatenate(parts, axis=1)
    found = found[:, np.lexsort((found[1], found[0]))]
    return found[0].astype(np.int64), found[1].astype(np.int64), found[2]


def verify_batch(run: Run, key: str, kept: Kept, radius: float, attempt: int) -> dict[str, Any]:
    """Squared Ward heights of the candidates that are within the radius."""
    rows, weights = load(run, "rows.npy"), load(run, "weights.npy")
    a, b = load(run, f"candidates{attempt}-{key}.npy")
    size = run.block_rows("wavelets")
    (block_a, i), (block_b, j) = np.divmod(rows[a], size), np.divmod(rows[b], size)
    held = {index: whole_block(kept, index) for index in np.unique(block_a).tolist()}
    squared = np.empty(len(a))
    starts = np.flatnonzero((np.diff(block_a, prepend=-1) != 0) | (np.diff(block_b, prepend=-1) != 0)).tolist()
    index, other = -1, np.zeros((0, 0))
    for lo, hi in zip(starts, [*starts[1:], len(a)]):
        if block_b[lo] != index:
            index = int(block_b[lo])
            other = held[index] if index in held else whole_block(kept, index)
        part = slice(lo, hi)
        squared[part] = squared_distances(held[int(block_a[lo])], other, i[part], j[part], radius**2)
    height = ward_heights(squared, weights[a], weights[b])
    inside = height <= radius**2
    run.save(
        np.stack([a[inside].astype(np.float64), b[inside].astype(np.float64), height[inside]]),
        *("partial", STAGE, f"pairs{attempt}-{key}.npy"),
    )
    return {"pairs": int(inside.sum())}
