"""The nearest images of each image in coarse coefficients: made once, and brought up to date by each delivery.

Leaves the table `neighbours` (row, other, correlation): of each searched image at most `candidates.neighbours` others,
by row, then by falling correlation. It is read when a later delivery is looked up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from daskim.kernels.nearest import best_rows
from daskim.stages import Change, Context
from daskim.stages.candidates.features import features, renew_features
from daskim.stages.candidates.join import Search
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["join_pairs", "renew_pairs"]

# Entries of one part of the table.
PART = 1_000_000

Found = tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


def join_pairs(context: Context, rows: np.ndarray) -> Found:
    """Pairs a < b of images near each other, with their correlation, ordered by (a, b).

    Parameters
    ----------
    rows : ndarray, shape (p,), int64
        Images that are searched.

    Returns
    -------
    a, b : ndarray, int64
    correlation : ndarray, float32
    facts : dict
    """
    features(context)
    search = Search(context, rows)
    lists = search.nearest("nearest", rows, rows)
    return _finish(context.run, lists, search.facts, "d00000")


def renew_pairs(context: Context, rows: np.ndarray, change: Change, before: dict[str, Any]) -> Found:
    """`join_pairs` after a delivery, from the lists that were there.

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
    fresh = search.nearest("whole", again, rows)
    met = search.nearest("rest", rest, np.setdiff1d(rows, stayed))
    old = held[:, known & ~gone & ~np.isin(held[0], short)]
    query, row, score = np.concatenate([old, met, fresh], axis=1)
    query, row, score = best_rows(query, row, score, most)
    facts = {**search.facts, "lists_made_again": len(short)}
    return _finish(run, np.stack([query, row, score]), facts, change.mark)


def _finish(run: Run, lists: np.ndarray, facts: dict[str, Any], mark: str) -> Found:
    order = np.lexsort((lists[1], -lists[2], lists[0]))
    query, row = lists[:2, order].astype(np.int64)
    score = lists[2, order].astype(np.float32)
    for index, (lo, hi) in enumerate(block_bounds(len(query), PART) or [(0, 0)]):
        table = {"row": query[lo:hi], "other": row[lo:hi], "correlation": score[lo:hi]}
        run.write_part("neighbours", f"{mark}-{index:06d}", pa.table(table))
    return *_merged(query, row, score), facts


def _held(run: Run, mark: str) -> tuple[np.ndarray, np.ndarray]:
    """Images that were searched before, and their lists: image, other, correlation."""
    searched = run.load("frozen", NAME, f"{mark}-searched.npy")
    parts = [run.read_part("neighbours", key) for key in run.parts("neighbours") if key.startswith(mark)]
    table = pa.concat_tables(parts)
    return searched, np.stack([np.asarray(table[name]).astype(np.float64) for name in table.column_names])


def _merged(query: np.ndarray, row: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair once, with its better score."""
    a, b = np.minimum(query, row), np.maximum(query, row)
    order = np.lexsort((-score, b, a))
    a, b, score = a[order], b[order], score[order]
    first = np.ones(len(a), dtype=bool)
    first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return a[first], b[first], score[first].astype(np.float32)
