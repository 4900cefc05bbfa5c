"""`daskim.kernels.nearest` compiled: the same numbers to the last bit, in one pass over each block of scores."""

from __future__ import annotations

from daskim.kernels.compiled import compiled

__all__ = ["insert", "join_mirrored"]

# Scores that are compared with a bound at once, before any of them is looked at by itself.
STRIDE = 64


@compiled
def join_mirrored(even, odd, best):  # type: ignore[no-untyped-def]
    """The better of each form and its mirrored one, over the forms: the largest even[f] + |odd[f]|.

    Parameters
    ----------
    even, odd : ndarray, shape (f, q, r), float32
    best : ndarray, shape (q, r), float32
        Written.
    """
    forms, queries, rows = even.shape
    for i in range(queries):
        line = best[i]
        for first in range(0, forms, 3):  # three at a time: a third of the time that one after the other takes
            second, third = min(first + 1, forms - 1), min(first + 2, forms - 1)
            a, b, c = even[first, i], even[second, i], even[third, i]
            d, e, f = odd[first, i], odd[second, i], odd[third, i]
            if first == 0:
                for j in range(rows):
                    x, y, z = a[j] + abs(d[j]), b[j] + abs(e[j]), c[j] + abs(f[j])
                    x = x if x > y else y
                    line[j] = x if x > z else z
            else:
                for j in range(rows):
                    x, y, z = a[j] + abs(d[j]), b[j] + abs(e[j]), c[j] + abs(f[j])
                    x = x if x > y else y
                    x = x if x > z else z
                    line[j] = x if x > line[j] else line[j]


@compiled
def insert(scores, queries, rows, own, bound, size, kept_rows, kept_scores):  # type: ignore[no-untyped-def]
    """Put scores that reach their query's bound into its list.

    Parameters
    ----------
    scores : ndarray, shape (q, r), float32
    queries, rows : ndarray, shape (q,) and (r,), int64
    own : ndarray, shape (all queries,), int64
        Rows that do not count.
    bound, size : ndarray, shape (all queries,), float32 and int64
        Least score that still enters a list, and what it holds; changed in place, as are the lists.
    kept_rows, kept_scores : ndarray, shape (all queries, count), int64 and float32
        By falling score, equal scores by row; no row twice.
    """
    columns = scores.shape[1]
    for i in range(scores.shape[0]):
        query, line = queries[i], scores[i]
        for start in range(0, columns, STRIDE):
            end = min(start + STRIDE, columns)
            part, least, hits = line[start:end], bound[query], 0
            for j in range(len(part)):
                hits += part[j] >= least
            if hits == 0:
                continue
            for j in range(start, end):
                if line[j] >= bound[query] and rows[j] != own[query]:
                    _enter(line[j], rows[j], query, bound, size, kept_rows, kept_scores)


@compiled
def _enter(score, row, query, bound, size, kept_rows, kept_scores):  # type: ignore[no-untyped-def]
    names, values = kept_rows[query], kept_scores[query]
    held, most = size[query], len(names)
    at = held  # the place that is free after this row or the last one has gone
    for k in range(held):
        if names[k] == row:
            if values[k] >= score:
                return
            at = k
            break
    if at == most:
        at = most - 1
        if values[at] == score and names[at] < row:
            return
    elif at == held:
        size[query] = held + 1
    while at > 0 and (values[at - 1] < score or (values[at - 1] == score and names[at - 1] > row)):
        names[at], values[at] = names[at - 1], values[at - 1]
        at -= 1
    names[at], values[at] = row, score
    if size[query] == most:
        bound[query] = values[most - 1]
