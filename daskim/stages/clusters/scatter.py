"""Rows of W for several tasks: W is read once, in its order, and each task finds its rows in few files.

A task that gathers rows from anywhere reads nearly every block of W, and the more images there are, the more such tasks
there are: together they would read W a number of times that grows with n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskim.kept import Kept, gather
from daskim.stages import Context
from daskim.stages.clusters.points import STAGE, load
from daskim.store import Run, block_bounds

__all__ = ["READ", "Scattered", "scatter"]

# Rows that one task reads.
READ = 16_384


@dataclass(frozen=True)
class Scattered:
    """Where the rows of one task are.

    Attributes
    ----------
    names : tuple of str
        Files of stored coefficients, in the order of the rows.
    """

    names: tuple[str, ...]

    def parts(self, run: Run) -> Iterator[np.ndarray]:
        """The rows, file by file."""
        return (load(run, name) for name in self.names)

    def block(self, run: Run) -> np.ndarray:
        """All of them; shape (rows, m)."""
        return np.concatenate(list(self.parts(run)))


def scatter(context: Context, kept: Kept, rows: np.ndarray, target: np.ndarray, group: str) -> dict[int, Scattered]:
    """The rows for each target, in their order.

    Parameters
    ----------
    rows : ndarray, shape (r,), int64, ascending
    target : ndarray, shape (r,), int64
        The task that each row is for.
    group : str
        Names the tasks that read.
    """
    bounds = block_bounds(len(rows), READ)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    there = context.run.marked(STAGE)
    for key, (lo, hi) in zip(keys, bounds):
        if f"{group}-{key}" not in there:
            context.run.save(np.stack([rows[lo:hi], target[lo:hi]]), "partial", STAGE, f"{group}-rows-{key}.npy")
    context.engine.each(STAGE, group, keys, [(kept, group) for _ in keys], scatter_task)
    found: dict[int, list[str]] = {}
    for key, (lo, hi) in zip(keys, bounds):
        for t in np.unique(target[lo:hi]).tolist():
            found.setdefault(t, []).append(_name(group, key, t))
    return {t: Scattered(tuple(names)) for t, names in found.items()}


def scatter_task(run: Run, key: str, kept: Kept, group: str) -> dict[str, Any]:
    """Leave some rows of W, those of each target in a file."""
    rows, target = load(run, f"{group}-rows-{key}.npy")
    block = gather(kept, rows)
    order = np.argsort(target, kind="stable")
    names, starts = np.unique(target[order], return_index=True)
    for t, mine in zip(names.tolist(), np.split(order, starts[1:])):
        run.save(block[mine], "partial", STAGE, _name(group, key, t))
    return {"rows": len(rows)}


def _name(group: str, key: str, target: int) -> str:
    return f"{group}-{key}-{target:06d}.npy"
