"""The k most similar rows of each row, from blocks of inner products as they come."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from daskim.kernels.compiled import engine

__all__ = ["Best", "Lists", "Nearest", "Offered", "best_products", "best_rows", "lowest", "nearest_of"]

# Queries and rows of one product: what three forms give, halves apart, is 0.8 MB.
QUERIES = 64
ROWS = 512
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


def lowest(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `count` lowest numbers of each row; of equal ones those further left.

    Parameters
    ----------
    values : ndarray, shape (q, r)
        No NaN.
    count : int
        From 1 to r.

    Returns
    -------
    i, j : ndarray, shape (q * count,), int64
        Ordered by (i, j).
    """
    bound = np.partition(values, count - 1, axis=1)[:, count - 1 : count]
    taken = values <= bound
    many = np.flatnonzero(taken.sum(axis=1) > count)
    equal = values[many] == bound[many]
    left = count - (values[many] < bound[many]).sum(axis=1, keepdims=True)
    taken[many] &= ~equal | (np.cumsum(equal, axis=1) <= left)
    i, j = np.nonzero(taken)
    return i, j


class Lists:
    """`Nearest` compiled: the same result, in lists that are kept in order."""

    def __init__(self, queries: int, count: int, least: float, own: np.ndarray) -> None:
        self.own = np.require(own, np.int64, ["C", "W"])
        self.bound = np.full(queries, least, dtype=np.float32)
        self._size = np.zeros(queries, dtype=np.int64)
        self._rows = np.zeros((queries, count), dtype=np.int64)
        self._scores = np.zeros((queries, count), dtype=np.float32)

    def offer(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """As `Nearest.offer`."""
        from daskim.kernels.compiled.lists import insert

        # one kind of array, so that one form is compiled
        scores, rows = np.ascontiguousarray(scores), np.require(rows, np.int64, ["C", "W"])
        insert(scores, queries, rows, self.own, self.bound, self._size, self._rows, self._scores)

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Nearest.result`."""
        query, place = np.nonzero(np.arange(self._rows.shape[1]) < self._size[:, None])
        return query, self._rows[query, place], self._scores[query, place]


def nearest_of(queries: int, count: int, least: float, own: np.ndarray) -> Nearest | Lists:
    """`Lists` where numba is there, else `Nearest`: the same result."""
    return (Lists if engine() == "numba" else Nearest)(queries, count, least, own)


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


class Found(Offered, Protocol):
    """What gives its best back."""

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


def best_products(
    nearest: Offered, forms: np.ndarray, rows: np.ndarray, block: np.ndarray, odd: np.ndarray | None = None
) -> None:
    """Offer each query the rows of a block with the largest inner product over the query's forms.

    Parameters
    ----------
    forms : ndarray, shape (queries, f, k), float32
    rows : ndarray, shape (r,), int64
        Names of the rows of the block.
    block : ndarray, shape (r, k), float32
    odd : ndarray, shape (k,), bool, optional
        Coordinates that change their sign when an image is mirrored; given, the mirrored forms count too.

    Notes
    -----
    An inner product is p + q, p over the coordinates that stay and q over the others; that of the mirrored form is
    p - q. So both cost what one would, and the better one is p + |q|.

    The last bits of a product depend on where in a tile its row stands: a library multiplies the last rows and columns
    in another order than those before them. Give it whole numbers whose sums stay below 2^24.
    """
    queries, count, _ = forms.shape
    halves = [slice(None)] if odd is None else [np.flatnonzero(~odd), np.flatnonzero(odd)]
    tiles = -(-queries // QUERIES)
    asked = np.zeros((tiles, count, QUERIES, forms.shape[2]), dtype=np.float32)
    for tile in range(tiles):
        some = forms[tile * QUERIES : (tile + 1) * QUERIES]
        asked[tile, :, : len(some)] = some.transpose(1, 0, 2)
    flat = asked.reshape(tiles, count * QUERIES, -1)
    left = [np.ascontiguousarray(flat[:, :, half]) for half in halves]
    products = [np.empty((count, QUERIES, ROWS), dtype=np.float32) for _ in halves]
    best = np.empty((QUERIES, ROWS), dtype=np.float32)
    for lo in range(0, len(rows), ROWS):
        held = min(ROWS, len(rows) - lo)
        filled = np.zeros((ROWS, block.shape[1]), dtype=np.float32)
        filled[:held] = block[lo : lo + held]
        right = [np.ascontiguousarray(filled[:, half]).T for half in halves]
        names = rows[lo : lo + held]
        for tile in range(tiles):
            for mine, theirs, product in zip(left, right, products):
                np.matmul(mine[tile], theirs, out=product.reshape(count * QUERIES, ROWS))
            _join_forms(products, best)
            start = tile * QUERIES
            size = min(QUERIES, queries - start)
            nearest.offer(np.arange(start, start + size), names, best[:size, :held])


def _join_forms(products: list[np.ndarray], best: np.ndarray) -> None:
    """The best over the forms of the products, or of their halves as they are and mirrored."""
    if len(products) == 1:
        products[0].max(axis=0, out=best)
    elif engine() == "numba":
        from daskim.kernels.compiled.lists import join_mirrored

        join_mirrored(products[0], products[1], best)
    else:
        even, odd = products
        np.abs(odd, out=odd)
        even += odd
        even.max(axis=0, out=best)
