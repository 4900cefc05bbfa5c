"""Rows of an array for several tasks: it is read once, in its order, and each task finds its rows in few files.

A task that takes rows from anywhere reads nearly every block of the array, and the more images there are, the more such
tasks there are: together they would read it a number of times that grows with n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskim.engine import Engine
from daskim.kept import Kept, gather, take
from daskim.store import Run, block_bounds

__all__ = ["READ_BYTES", "Scattered", "rows_read", "scatter"]

# Bytes of the rows that one task reads, and their number at most.
READ_BYTES, READ = 100_000_000, 65_536


@dataclass(frozen=True)
class Scattered:
    """Where the rows of one task are.

    Attributes
    ----------
    stage : str
        Among whose partial results.
    names : tuple of str
        Files, in the order of the rows.
    """

    stage: str
    names: tuple[str, ...]

    def parts(self, run: Run) -> Iterator[np.ndarray]:
        """The rows, file by file."""
        return (run.load("partial", self.stage, name) for name in self.names)

    def block(self, run: Run) -> np.ndarray:
        """All of them; shape (rows, ...)."""
        return np.concatenate(list(self.parts(run)))


def rows_read(one: int) -> int:
    """Rows of so many bytes that one task reads."""
    return max(1, min(READ, READ_BYTES // max(1, one)))


def scatter(
    engine: Engine, stage: str, source: str | Kept, rows: np.ndarray, target: np.ndarray, group: str
) -> dict[int, Scattered]:
    """The rows for each target, in their order.

    Parameters
    ----------
    engine : Engine
    stage : str
    source : str or Kept
        Name of an array of the run; or the kept coefficients.
    rows : ndarray, shape (r,), int64, ascending
    target : ndarray, shape (r,), int64
        The task that each row is for.
    group : str
        Names the tasks that read; of this stage alone.
    """
    run = engine.run
    array = run.array(source if isinstance(source, str) else "wavelets")
    one = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    bounds = block_bounds(len(rows), rows_read(one))
    keys = [f"{index:06d}" for index in range(len(bounds))]
    there = run.marked(stage)
    for key, (lo, hi) in zip(keys, bounds):
        if f"{group}-{key}" not in there:
            run.save(np.stack([rows[lo:hi], target[lo:hi]]), "partial", stage, f"{group}-rows-{key}.npy")
    engine.each(stage, group, keys, [(source, stage, group) for _ in keys], scatter_task)
    found: dict[int, list[str]] = {}
    for key, (lo, hi) in zip(keys, bounds):
        for t in np.unique(target[lo:hi]).tolist():
            found.setdefault(t, []).append(_name(group, key, t))
    return {t: Scattered(stage, tuple(names)) for t, names in found.items()}


def scatter_task(run: Run, key: str, source: str | Kept, stage: str, group: str) -> dict[str, Any]:
    """Leave some rows, those of each target in a file."""
    rows, target = run.load("partial", stage, f"{group}-rows-{key}.npy")
    block = take(run, source, rows) if isinstance(source, str) else gather(source, rows)
    order = np.argsort(target, kind="stable")
    names, starts = np.unique(target[order], return_index=True)
    for t, mine in zip(names.tolist(), np.split(order, starts[1:])):
        run.save(block[mine], "partial", stage, _name(group, key, t))
    return {"rows": len(rows)}


def _name(group: str, key: str, target: int) -> str:
    return f"{group}-{key}-{target:06d}.npy"
