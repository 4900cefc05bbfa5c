"""`daskim.kernels.ward` compiled: the same merges and heights to the last bit, from arrays in place of dictionaries.

A cluster has a number of its own, so the distance of two clusters never changes: an entry of a list or of the heap
counts as long as both clusters are there. Nothing is ever looked for in a list, and what has gone stays until the list
is read.
"""

from __future__ import annotations

import numpy as np

from daskim.kernels.compiled import compiled

__all__ = ["LANES", "grow"]

# Sums of a row are kept in so many parts, column by column, which LLVM turns into vectors.
LANES = 16
# Centres that are allocated at once.
CHUNK = 256


@compiled
def grow(points, weights, starts, others, values, first, low, high, bound):  # type: ignore[no-untyped-def]
    """All Ward merges up to a height.

    Parameters
    ----------
    points : ndarray, shape (n, m)
    weights : ndarray, shape (n,), float64
    starts : ndarray, shape (n + 1,), int64
        Where the neighbours of each point begin in `others` (int32) and `values` (float64, squared heights).
    first, low, high : ndarray, shape (p,), float64, int32, int32
        Each pair once, by squared height, then the smaller point, then the larger one.
    bound : float
        Largest squared height.

    Returns
    -------
    height, a, b : ndarray
        Squared heights, ascending, and the smallest points of the merged clusters.
    """
    n = len(points)
    most = 2 * n
    size, smallest = np.zeros(most), np.zeros(most, dtype=np.int32)
    there, slot = np.zeros(most, dtype=np.bool_), np.full(most, -1, dtype=np.int32)
    head, mark = np.full(most, -1, dtype=np.int64), np.full(most, -1, dtype=np.int64)
    for x in range(n):
        size[x], smallest[x], there[x] = weights[x], x, True
    entry, after, far = np.empty(1024, dtype=np.int32), np.empty(1024, dtype=np.int64), np.empty(1024)
    entries = 0
    centres = [np.empty((CHUNK, points.shape[1]))]
    free = np.arange(CHUNK - 1, -1, -1)
    freed = CHUNK
    key, left, right = np.empty(1024), np.empty(1024, dtype=np.int32), np.empty(1024, dtype=np.int32)
    held, at, new = 0, 0, n
    height, a, b = np.empty(n), np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    made, least = 0, 0.0
    lanes = np.zeros(LANES)
    while True:
        # the nearest pair of clusters that are still there
        while at < len(first) and not (there[low[at]] and there[high[at]]):
            at += 1
        while held and not (there[left[0]] and there[right[0]]):
            held = _pop(key, left, right, smallest, held)
        if at < len(first) and (held == 0 or _before(first[at], low[at], high[at], key, left, right, smallest, 0)):
            value, x, y = first[at], np.int64(low[at]), np.int64(high[at])
        elif held:
            value, x, y = key[0], np.int64(left[0]), np.int64(right[0])
        else:
            break
        least = max(least, value)
        height[made] = least
        a[made], b[made] = min(smallest[x], smallest[y]), max(smallest[x], smallest[y])
        made += 1
        # the cluster of both
        there[x] = there[y] = False
        total = size[x] + size[y]
        size[new], smallest[new], there[new] = total, min(smallest[x], smallest[y]), True
        if freed == 0:
            centres.append(np.empty((CHUNK, points.shape[1])))
            free = np.arange(len(centres) * CHUNK - 1, (len(centres) - 1) * CHUNK - 1, -1)
            grown = np.empty(len(centres) * CHUNK, dtype=np.int64)
            grown[:CHUNK] = free
            free, freed = grown, CHUNK
        freed -= 1
        slot[new] = free[freed]
        middle = centres[slot[new] // CHUNK][slot[new] % CHUNK]
        _mean(points, centres, slot, x, y, size, total, middle)
        if slot[x] >= 0:
            free[freed] = slot[x]
            freed += 1
        if slot[y] >= 0:
            free[freed] = slot[y]
            freed += 1
        # its neighbours: those of both parts by the update of Lance and Williams, the others, if near enough, anew
        near, near_far = _listed(x, starts, others, values, head, entry, after, far, there)
        more, more_far = _listed(y, starts, others, values, head, entry, after, far, there)
        for t in range(len(near)):
            mark[near[t]] = t
        found = 0
        ids, distances = np.empty(len(near) + len(more), dtype=np.int64), np.empty(len(near) + len(more))
        for t in range(len(more)):
            third, distance = more[t], more_far[t]
            s = size[third]
            if mark[third] >= 0:
                top = (size[x] + s) * near_far[mark[third]] + (size[y] + s) * distance - s * value
                mark[third] = -1
                result = top / (size[x] + size[y] + s)
            else:
                if _beyond(size[y], size[x], s, distance, value, bound):
                    continue
                result = _apart(points, centres, slot, third, middle, lanes) * (2.0 * total * s / (total + s))
            if result <= bound:
                ids[found], distances[found] = third, result
                found += 1
        for t in range(len(near)):
            third, distance = near[t], near_far[t]
            if mark[third] < 0:
                continue
            mark[third] = -1
            s = size[third]
            if _beyond(size[x], size[y], s, distance, value, bound):
                continue
            result = _apart(points, centres, slot, third, middle, lanes) * (2.0 * total * s / (total + s))
            if result <= bound:
                ids[found], distances[found] = third, result
                found += 1
        # into the lists of both sides, and the heap
        if entries + 2 * found > len(entry):
            room = max(2 * len(entry), entries + 2 * found)
            entry, after, far = _longer(entry, room), _longer(after, room), _longer(far, room)
        if held + found > len(key):
            room = max(2 * len(key), held + found)
            key, left, right = _longer(key, room), _longer(left, room), _longer(right, room)
        for t in range(found):
            third, distance = ids[t], distances[t]
            entry[entries], far[entries], after[entries] = third, distance, head[new]
            head[new] = entries
            entry[entries + 1], far[entries + 1], after[entries + 1] = new, distance, head[third]
            head[third] = entries + 1
            entries += 2
            held = _push(key, left, right, smallest, held, distance, third, new)
        new += 1
    return height[:made], a[:made], b[:made]


@compiled
def _longer(values, length):  # type: ignore[no-untyped-def]
    longer = np.empty(length, dtype=values.dtype)
    longer[: len(values)] = values
    return longer


@compiled
def _listed(x, starts, others, values, head, entry, after, far, there):  # type: ignore[no-untyped-def]
    """The neighbours of a cluster that are still there, and their squared heights."""
    count = 0
    if x < len(starts) - 1:
        for t in range(starts[x], starts[x + 1]):
            count += there[others[t]]
    t = head[x]
    while t >= 0:
        count += there[entry[t]]
        t = after[t]
    names, heights = np.empty(count, dtype=np.int64), np.empty(count)
    count = 0
    if x < len(starts) - 1:
        for t in range(starts[x], starts[x + 1]):
            if there[others[t]]:
                names[count], heights[count] = others[t], values[t]
                count += 1
    t = head[x]
    while t >= 0:
        if there[entry[t]]:
            names[count], heights[count] = entry[t], far[t]
            count += 1
        t = after[t]
    return names, heights


@compiled
def _beyond(near, other, s, distance, value, bound):  # type: ignore[no-untyped-def]
    """Whether a neighbour of one part only is too far from both together, whatever lies beyond the bound."""
    return (near + s) * distance + (other + s) * bound - s * value > bound * (near + other + s)


@compiled
def _mean(points, centres, slot, x, y, size, total, out):  # type: ignore[no-untyped-def]
    """The centre of two clusters."""
    if slot[x] >= 0 and slot[y] >= 0:
        one, two = centres[slot[x] // CHUNK][slot[x] % CHUNK], centres[slot[y] // CHUNK][slot[y] % CHUNK]
        for k in range(len(out)):
            out[k] = (one[k] * size[x] + two[k] * size[y]) / total
    elif slot[x] >= 0:
        one = centres[slot[x] // CHUNK][slot[x] % CHUNK]
        for k in range(len(out)):
            out[k] = (one[k] * size[x] + np.float64(points[y, k]) * size[y]) / total
    elif slot[y] >= 0:
        two = centres[slot[y] // CHUNK][slot[y] % CHUNK]
        for k in range(len(out)):
            out[k] = (np.float64(points[x, k]) * size[x] + two[k] * size[y]) / total
    else:
        for k in range(len(out)):
            out[k] = (np.float64(points[x, k]) * size[x] + np.float64(points[y, k]) * size[y]) / total


@compiled
def _apart(points, centres, slot, x, middle, lanes):  # type: ignore[no-untyped-def]
    """Squared distance of a cluster's centre to another centre."""
    lanes[:] = 0.0
    whole = len(middle) - len(middle) % LANES
    if slot[x] >= 0:
        row = centres[slot[x] // CHUNK][slot[x] % CHUNK]
        for k in range(0, whole, LANES):
            for lane in range(LANES):
                difference = row[k + lane] - middle[k + lane]
                lanes[lane] += difference * difference
        for k in range(whole, len(middle)):
            difference = row[k] - middle[k]
            lanes[k - whole] += difference * difference
    else:
        point = points[x]
        for k in range(0, whole, LANES):
            for lane in range(LANES):
                difference = np.float64(point[k + lane]) - middle[k + lane]
                lanes[lane] += difference * difference
        for k in range(whole, len(middle)):
            difference = np.float64(point[k]) - middle[k]
            lanes[k - whole] += difference * difference
    summed = 0.0
    for lane in range(LANES):
        summed += lanes[lane]
    return summed


@compiled
def _before(value, p, q, key, left, right, smallest, other):  # type: ignore[no-untyped-def]
    """Whether a pair comes before one of the heap: by height, then the smallest point of one, then of the other."""
    if value != key[other]:
        return value < key[other]
    x, y = smallest[left[other]], smallest[right[other]]
    if x > y:
        x, y = y, x
    return p < x or (p == x and q < y)


@compiled
def _push(key, left, right, smallest, held, value, x, y):  # type: ignore[no-untyped-def]
    if smallest[x] > smallest[y]:
        x, y = y, x
    at = held
    while at > 0:
        parent = (at - 1) >> 1
        if not _before(value, smallest[x], smallest[y], key, left, right, smallest, parent):
            break
        key[at], left[at], right[at] = key[parent], left[parent], right[parent]
        at = parent
    key[at], left[at], right[at] = value, x, y
    return held + 1


@compiled
def _pop(key, left, right, smallest, held):  # type: ignore[no-untyped-def]
    """Remove the first of the heap."""
    held -= 1
    value, x, y = key[held], left[held], right[held]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= held:
            break
        if child + 1 < held and _before(
            key[child + 1], smallest[left[child + 1]], smallest[right[child + 1]], key, left, right, smallest, child
        ):
            child += 1
        if _before(value, smallest[x], smallest[y], key, left, right, smallest, child):
            break
        key[at], left[at], right[at] = key[child], left[child], right[child]
        at = child
    key[at], left[at], right[at] = value, x, y
    return held
