"""Rows of arrays of a run that a delivery adds: found by blocks, computed from the images, written in their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskim.engine import Engine
from daskim.kept import take
from daskim.store import Run

__all__ = ["by_block", "renew_rows"]


def by_block(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Ascending rows, those of each block of `size` rows together."""
    return [part for part in np.split(rows, np.flatnonzero(np.diff(rows // size)) + 1) if len(part)]


def renew_rows(
    engine: Engine, stage: str, group: str, rows: np.ndarray, n: int, target: str, transform: Callable[..., np.ndarray]
) -> None:
    """Compute some rows of an array from the images of these rows, one task a block; blocks that are marked are done.

    Parameters
    ----------
    rows : ndarray, int64, ascending
    n : int
        Rows of the array, which grows if it has fewer.
    transform : callable
        Images (b, h, w, c) uint8 to rows (b, columns), each from its image alone.
    """
    run = engine.run
    if not any(name.startswith(f"{group}-") for name in run.marked(stage)):
        run.grow_array(target, n)
    parts = by_block(rows, run.block_rows(target))
    keys = [f"{index:06d}" for index in range(len(parts))]
    engine.each(stage, group, keys, [(part, target, transform) for part in parts], renew_block)


def renew_block(
    run: Run, key: str, rows: np.ndarray, target: str, transform: Callable[..., np.ndarray]
) -> dict[str, Any]:
    """Some rows of one block."""
    run.put_rows(target, rows, transform(take(run, "images", rows)))
    return {"rows": len(rows)}
