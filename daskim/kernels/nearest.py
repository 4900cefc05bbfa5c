"""The k most similar rows of each row, from blocks of inner products as they come."""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["Best", "Nearest", "best_products", "best_rows"]

# Queries and rows of one product: its 2 MB stay in the cache while they are compared.
QUERIES = 256
ROWS = 2048
# Scores waiting, for each that is kept, before the best are picked out.
SLACK = 4


class Nearest:
    """The best `count` of what is offered to each of some queries.

    Parameters
    ----------
    queries : int
    count : int
    least : float
        Lower scores do not count.
    own : ndarray, shape (queries,), int64
        The row that each query is: it is not offered to itself. -1 for none.

    Notes
    -----
    Equal scores go to the lower row. The result does not depend on the order of offers; a row offered to a query more
    than once counts with its best score.
    """

    def __init__(self, queries: int, count: int, least: float, own: np.ndarray) -> None:
        self.count, self.own = count, own
        self.bound = np.full(queries, least, dtype=np.float32)
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._waiting = 0

    def offer(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """Scores (q, r), float32, of some queries (q,) with some rows (r,), int64."""
        i, j = np.divmod(np.flatnonzero(scores >= self.bound[queries][:, None]), scores.shape[1])
        query, row = queries[i], rows[j]
        other = row != self.own[query]
        self._found.append((query[other], row[other], scores[i[other], j[other]]))
        self._waiting += int(other.sum())
        if self._waiting > SLACK * self.count * len(self.bound):
            self._pick()

    def _pick(self) -> None:
        query, row, score = (np.concatenate(parts) for parts in zip(*self._found))
        query, row, score = best_rows(query, row, score, self.count)
        full = np.flatnonzero(np.bincount(query, minlength=len(self.bound)) == self.count)
        self.bound[full] = score[np.searchsorted(query, full, side="right") - 1]
        self._found = [(query, row, score)]
        self._waiting = 0

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query, row (int64) and score (float32), by query, then by falling score."""
        if not self._found:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty, np.zeros(0, dtype=np.float32)
        self._pick()
        return self._found[0]


def best_rows(
    query: np.ndarray, row: np.ndarray, score: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each query the `count` rows of highest score, by query, then by falling score; equal scores by row.

    A row that comes more than once counts with its best score.
    """
    order = np.lexsort((-score, row, query))
    query, row, score = query[order], row[order], score[order]
    first = np.ones(len(query), dtype=bool)
    first[1:] = (query[1:] != query[:-1]) | (row[1:] != row[:-1])
    query, row, score = query[first], row[first], score[first]
    order = np.lexsort((row, -score, query))
    query, row, score = query[order], row[order], score[order]
    keep = np.arange(len(query)) - np.searchsorted(query, query) < count
    return query[keep], row[keep], score[keep]


class Best:
    """The one best row of each of some queries, however low its score; cheaper than `Nearest` with a count of 1.

    Parameters
    ----------
    queries : int

    Notes
    -----
    Equal scores go to the lower row, whatever the order of offers.
    """

    def __init__(self, queries: int) -> None:
        self.row = np.full(queries, -1, dtype=np.int64)
        self.score = np.full(queries, -np.inf, dtype=np.float32)

    def offer(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """Scores (q, r), float32, of some queries (q,), repeats allowed, with some rows (r,), int64, ascending."""
        if not len(rows):
            return
        at = scores.argmax(axis=1)
        row, score = rows[at], scores[np.arange(len(queries)), at]
        held = self.score[queries]
        better = np.flatnonzero((score > held) | ((score == held) & (row < self.row[queries])))
        better = better[np.lexsort((-row[better], score[better]))]  # of a query's own offers the last one written stays
        self.row[queries[better]], self.score[queries[better]] = row[better], score[better]

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query, row (int64) and score (float32) of the queries that were offered any."""
        query = np.flatnonzero(self.row >= 0)
        return query, self.row[query], self.score[query]


class Offered(Protocol):
    """What takes scores of some queries with some rows."""

    def offer(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None: ...


def best_products(nearest: Offered, forms: np.ndarray, rows: np.ndarray, block: np.ndarray) -> None:
    """Offer each query the rows of a block with the largest inner product over the query's forms.

    Parameters
    ----------
    forms : ndarray, shape (queries, f, k), float32
    rows : ndarray, shape (r,), int64
        Names of the rows of the block.
    block : ndarray, shape (r, k), float32

    Notes
    -----
    Products always have the same shape, the last ones filled up with zeros: their last bits may depend on it.
    """
    queries, count, k = forms.shape
    product = np.empty((QUERIES, ROWS), dtype=np.float32)
    best = np.empty_like(product)
    for lo in range(0, len(rows), ROWS):
        tile = np.zeros((ROWS, k), dtype=np.float32)
        tile[: len(rows) - lo] = block[lo : lo + ROWS]
        held = min(ROWS, len(rows) - lo)
        for start in range(0, queries, QUERIES):
            some = np.zeros((QUERIES, count, k), dtype=np.float32)
            size = min(QUERIES, queries - start)
            some[:size] = forms[start : start + size]
            for form in range(count):
                np.matmul(np.ascontiguousarray(some[:, form]), tile.T, out=product if form else best)
                if form:
                    np.maximum(best, product, out=best)
            nearest.offer(np.arange(start, start + size), rows[lo : lo + held], best[:size, :held])
