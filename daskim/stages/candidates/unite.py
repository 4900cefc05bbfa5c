"""Candidates of all searches, each pair once: sorted into ranges of the smaller place, and united one task a range.

Places are those of `order.py`: so what stands together in the table shares its images. It goes by squares of places,
and within these by smaller ones: a run of pairs then has few images, and these stand in few blocks. No process ever
holds the pairs of all images: the driver learns how many there are, and of each image the most alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from daskim.kernels.splits import across
from daskim.stages import Context
from daskim.stages.candidates.order import order_in
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["best_of_each", "by_range", "counts", "spans", "unite_all", "united", "write", "write_lists"]

# Bits of a source, and their names in order.
JOIN, LSH = 1, 2
NAMES = ["", "join", "lsh", "join+lsh"]
# Places of one range at least, and ranges and groups of searches at most: together they bound the number of files.
SPAN = 16_384
SPANS = 128
GROUPS = 64
# Places of a side of a square of pairs, and of a small one. By the candidates of CIFAR-10, as if they were of two
# million images: 65,536 pairs that follow one another have 0.59 images a pair in 47 of 1,463 blocks; ordered by their
# places alone 0.72 in 176, by rows 1.14 in 79.
SQUARE, SMALL = 16_384, 2048


def spans(n: int) -> list[tuple[int, int]]:
    """[lo, hi) of the ranges of smaller places."""
    return block_bounds(n, max(SPAN, -(-n // SPANS)))


def by_range(context: Context, files: list[str], edges: list[int]) -> list[list[str]]:
    """For each range the files of pairs in it (smaller place, larger place, score), from what a search left.

    Also leaves the table `neighbours`.
    """
    size = max(4, -(-len(files) // GROUPS))
    groups = [files[start : start + size] for start in range(0, len(files), size)]
    keys = [f"{index:06d}" for index in range(len(groups))]
    infos = context.engine.each(NAME, "sorted", keys, [(group, edges) for group in groups], sort_lists)
    if not groups:
        write_lists(context.run, "d00000-000000", np.zeros((3, 0)))
    return [
        [f"sorted-{key}-{index:03d}.npy" for key, info in zip(keys, infos) if index in info["ranges"]]
        for index in range(len(edges))
    ]


def sort_lists(run: Run, key: str, files: list[str], edges: list[int]) -> dict[str, Any]:
    """Lists of some images: into the table `neighbours`, and as pairs into a file for each range."""
    lists = np.concatenate([run.load("partial", NAME, name) for name in files], axis=1)
    write_lists(run, f"d00000-{key}", lists)
    ends = order_in(run, run.array("images").shape[0]).places[lists[:2].astype(np.int64)]
    pairs = np.stack([ends.min(axis=0), ends.max(axis=0), lists[2]])
    owner = np.searchsorted(edges, pairs[0], side="right") - 1
    ranges = np.unique(owner).tolist()
    for index in ranges:
        run.save(pairs[:, owner == index], "partial", NAME, f"sorted-{key}-{index:03d}.npy")
    return {"ranges": ranges}


def write_lists(run: Run, key: str, lists: np.ndarray) -> None:
    """A part of the table `neighbours`: image, other, correlation; shape (3, entries), float64."""
    table = {"row": lists[0].astype(np.int64), "other": lists[1].astype(np.int64)}
    run.write_part("neighbours", key, pa.table({**table, "correlation": lists[2].astype(np.float32)}))


class Pairs(NamedTuple):
    """Candidates: rows (or places) a < b, source, correlation of the coarse coefficients."""

    a: np.ndarray
    b: np.ndarray
    source: np.ndarray
    correlation: np.ndarray

    def of(self, some: np.ndarray) -> Pairs:
        return Pairs(*(column[some] for column in self))


def united(n: int, lists: np.ndarray, codes: np.ndarray) -> Pairs:
    """Each pair once, ordered by (a, b), with its better correlation.

    Parameters
    ----------
    n : int
        More than all rows (or places).
    lists : ndarray, shape (3, p), float64
        Two rows and their correlation; pairs may come more than once.
    codes : ndarray, shape (q,), int64
        Pairs of shared bands, as a * n + b; they may come more than once.
    """
    rows = lists[:2].astype(np.int64)
    near = rows.min(axis=0) * n + rows.max(axis=0)
    order = np.argsort(near, kind="stable")
    near, score = near[order], lists[2, order]
    first = np.flatnonzero(np.diff(near, prepend=-1))
    best = np.maximum.reduceat(score, first) if len(near) else score
    near, codes = near[first], _distinct(codes)
    both = _distinct(np.concatenate([near, codes]))
    source = np.zeros(len(both), dtype=np.int64)
    correlation = np.full(len(both), np.nan, dtype=np.float32)
    at = np.searchsorted(both, near)
    source[at], correlation[at] = JOIN, best
    source[np.searchsorted(both, codes)] += LSH
    return Pairs(both // n, both % n, source, correlation)


def counts(pairs: Pairs) -> dict[str, int]:
    """How many pairs there are, and by which source."""
    by = {name: int((pairs.source & bit > 0).sum()) for name, bit in (("join", JOIN), ("lsh", LSH))}
    return {"candidates": len(pairs.a), **by}


def _distinct(codes: np.ndarray) -> np.ndarray:
    """Sorted, each once: `np.unique` by sorting, which is faster than its hash table where most are distinct."""
    codes = np.sort(codes)
    return codes[np.diff(codes, prepend=-1) != 0]


def in_squares(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The order of pairs of places by squares; shape (p,), int64."""
    return np.lexsort((high, low, low // SMALL, high // SMALL, high // SQUARE, low // SQUARE))


def write(run: Run, mark: str, pairs: Pairs, part: int, *, empty: bool = True) -> int:
    """Candidates as they come, in parts of the table whose names begin with a mark; how many parts.

    Parameters
    ----------
    part : int
        Pairs in one part: the unit of work of the similarities.
    empty : bool
        Write a part also if there are no pairs: so that the table can be read.
    """
    a, b, source, correlation = pairs
    bounds = block_bounds(len(a), part) or [(0, 0)] * empty
    names = pa.array(NAMES)
    for index, (lo, hi) in enumerate(bounds):
        table = {"a": a[lo:hi], "b": b[lo:hi], "source": names.take(pa.array(source[lo:hi]))}
        run.write_part(NAME, f"{mark}{index:06d}", pa.table({**table, "correlation": correlation[lo:hi]}))
    return len(bounds)


def best_of_each(pairs: Pairs) -> np.ndarray:
    """Of each row of the pairs that have a correlation the other of the best pair; row, other, score; (3, rows).

    The pairs are ordered by (a, b); of equal ones the lower row is taken.
    """
    known = ~np.isnan(pairs.correlation)
    a, b, score = pairs.a[known], pairs.b[known], pairs.correlation[known].astype(np.float64)
    row, other, score = np.concatenate([b, a]), np.concatenate([a, b]), np.concatenate([score, score])
    order = np.argsort(row, kind="stable")  # the others of a row ascend, as pairs are ordered by (a, b)
    row, other, score = row[order], other[order], score[order]
    first = np.flatnonzero(np.diff(row, prepend=-1))
    best = np.maximum.reduceat(score, first) if len(row) else score
    at = np.flatnonzero(score == np.repeat(best, np.diff(first, append=len(row))))
    at = at[np.diff(row[at], prepend=-1) != 0]
    return np.stack([row[at].astype(np.float64), other[at].astype(np.float64), score[at]])


def unite_all(context: Context, near: list[list[str]], shared: list[list[str]], part: int) -> list[dict[str, Any]]:
    """Leave the candidates of each range; how many, and in how many parts.

    Parameters
    ----------
    near, shared : list of lists of str
        Of each range, the files of pairs by neighbours (`by_range`) and by bands.
    part : int
        Pairs in one part of the table.
    """
    n, apart = context.known.n, context.settings.candidates.across == "splits"
    keys = [f"{index:03d}" for index in range(len(near))]
    calls = [(n, ours, theirs, apart, part) for ours, theirs in zip(near, shared)]
    return context.engine.each(NAME, "range", keys, calls, unite_range)


def unite_range(
    run: Run, key: str, n: int, near: list[str], shared: list[str], apart: bool, part: int
) -> dict[str, Any]:
    """The candidates whose smaller place is in one range: into the table, and the best of each image into a file."""
    order = order_in(run, n)
    lists = np.concatenate([np.zeros((3, 0)), *(run.load("partial", NAME, name) for name in near)], axis=1)
    codes = np.concatenate([np.zeros(0, dtype=np.int64), *(run.load("partial", NAME, name) for name in shared)])
    if apart:
        masks = run.load("partial", NAME, "masks.npy")
        codes = codes[across(masks[order.rows[codes // n]], masks[order.rows[codes % n]])]
    pairs = united(n, lists, codes)
    pairs = pairs.of(in_squares(pairs.a, pairs.b))
    ends = np.stack([order.rows[pairs.a], order.rows[pairs.b]])
    pairs = Pairs(ends.min(axis=0), ends.max(axis=0), pairs.source, pairs.correlation)
    run.save(best_of_each(pairs.of(np.lexsort((pairs.b, pairs.a)))), "partial", NAME, f"range-{key}.npy")
    return {**counts(pairs), "parts": write(run, f"{key}-", pairs, part, empty=int(key) == 0)}
