"""The nearest images of each image in coarse coefficients: made once, and brought up to date by each delivery.

Leaves the table `neighbours` (row, other, correlation): of each searched image at most `candidates.neighbours` others,
by falling correlation; images in the order in which they were looked up. It is read when a later delivery is looked up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from daskim.kernels.nearest import best_rows
from daskim.stages import Change, Context
from daskim.stages.candidates.features import renew_features
from daskim.stages.candidates.join import Search
from daskim.stages.candidates.rows import NAME
from daskim.stages.candidates.unite import by_range, write_lists
from daskim.store import Run, block_bounds

__all__ = ["join_files", "renew_lists"]

# Entries of one part of the table.
PART = 1_000_000


def join_files(context: Context, rows: np.ndarray, edges: list[int]) -> tuple[list[list[str]], dict[str, Any]]:
    """Files of the pairs of images near each other, for each range of smaller places (`unite.by_range`); and facts.

    Parameters
    ----------
    rows : ndarray, shape (p,), int64
        Images that are searched, and whose coarse features are there.
    edges : list of int
        Where the ranges begin.
    """
    search = Search(context, rows)
    return by_range(context, search.nearest("nearest", rows, rows), edges), search.facts


def renew_lists(
    context: Context, rows: np.ndarray, change: Change, before: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The lists after a delivery, from those that were there: image, other, correlation, (3, entries); and facts.

    The lists of images that are searched for the first time are made from all others. Of the others, those that were
    full and held an image that is gone are made again; the rest only meet the new images. So the lists are those that a
    search of all images would give.

    Parameters
    ----------
    before : dict
        Facts of the stage before the delivery.
    """
    run, most = context.run, context.settings.candidates.neighbours
    renew_features(context, change)
    search = Search(context, rows, f"{change.mark}-")
    searched, held = _held(run, before["delivery"])
    if search.renewed:
        context.say(f"{NAME}: {len(rows):,} images have outgrown the cells they are looked up in: they are made anew")
        searched = searched[:0]
    stayed = np.setdiff1d(np.intersect1d(searched, rows), change.removed)
    known = np.isin(held[0], stayed)
    gone = known & ~np.isin(held[1], stayed)
    size = np.bincount(held[0][known].astype(np.int64), minlength=context.known.n)
    short = np.unique(held[0][gone].astype(np.int64))
    short = short[size[short] >= most]
    again = np.union1d(np.setdiff1d(rows, stayed), short)
    rest = np.setdiff1d(stayed, short)
    fresh = _loaded(run, search.nearest("whole", again, rows))
    met = _loaded(run, search.nearest("rest", rest, np.setdiff1d(rows, stayed)))
    old = held[:, known & ~gone & ~np.isin(held[0], short)]
    query, row, score = np.concatenate([old, met, fresh], axis=1)
    lists = np.stack([column.astype(np.float64) for column in best_rows(query, row, score, most)])
    for index, (lo, hi) in enumerate(block_bounds(lists.shape[1], PART) or [(0, 0)]):
        write_lists(run, f"{change.mark}-{index:06d}", lists[:, lo:hi])
    return lists, {**search.facts, "lists_made_again": len(short)}


def _loaded(run: Run, files: list[str]) -> np.ndarray:
    return np.concatenate([np.zeros((3, 0)), *(run.load("partial", NAME, name) for name in files)], axis=1)


def _held(run: Run, mark: str) -> tuple[np.ndarray, np.ndarray]:
    """Images that were searched before, and their lists: image, other, correlation."""
    searched = run.load("frozen", NAME, f"{mark}-searched.npy")
    parts = [run.read_part("neighbours", key) for key in run.parts("neighbours") if key.startswith(mark)]
    table = pa.concat_tables(parts)
    return searched, np.stack([np.asarray(table[name]).astype(np.float64) for name in table.column_names])
