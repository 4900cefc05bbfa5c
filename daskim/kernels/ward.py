"""Ward clustering up to a height, from the pairs within that height: exact, without a distance matrix.

Ward's heights are sqrt(2 a b / (a + b)) * |centre_A - centre_B| for clusters of a and b points (the square root of
twice the rise of the sum of squared errors; Euclidean distance for two single points), as in `scipy.cluster`.

Two facts make a truncated tree exact. Ward is reducible: when the two nearest clusters merge, the result is no nearer
to a third than the nearer of the two was. So no merge up to height r crosses two components of the graph of pairs
within r, and the neighbours of a merged cluster within r are among the neighbours of its two parts. It is enough to
keep the pairs within r, and to work out a distance anew only where a third cluster was a neighbour of one part and not
of the other.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from daskim.kernels.compiled import engine

__all__ = ["Merges", "components", "cut", "labels_after", "ward_dense", "ward_heights", "ward_merges"]

# Sums over columns are kept in so many parts, as in the compiled form.
LANES = 16
# Pairs from which the compiled form is taken: fewer take less than a second without, and compiling takes ten, once.
COMPILED = 50_000


@dataclass(frozen=True)
class Merges:
    """Merges in the order made: after step t the clusters that hold points `a[t]` and `b[t]` are one.

    Attributes
    ----------
    height : ndarray, shape (t,), float64, ascending
    a, b : ndarray, shape (t,), int64
        The smallest point of each of the two clusters, a < b.
    """

    height: np.ndarray
    a: np.ndarray
    b: np.ndarray


def components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Connected component of each of n points, numbered by their smallest point; shape (n,), int64."""
    graph = coo_array((np.ones(len(a), dtype=np.bool_), (a, b)), shape=(n, n))  # bool: repeated pairs cannot wrap
    _, label = connected_components(graph, directed=False)
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(first.size)
    return rank[inverse]


def ward_heights(squared: np.ndarray, weight_a: np.ndarray | float, weight_b: np.ndarray) -> np.ndarray:
    """Squared Ward height of pairs of points of given weights from their squared distance."""
    return squared * (2.0 * weight_a * weight_b / (weight_a + weight_b))


def _squared_bound(radius: float) -> float:
    return float(radius) ** 2 * (1 + 2**-51)  # the square of sqrt(k), rounded, can be less than k


def ward_merges(
    points: np.ndarray, weights: np.ndarray, a: np.ndarray, b: np.ndarray, squared: np.ndarray, radius: float
) -> Merges:
    """All Ward merges up to height `radius` among weighted points.

    Parameters
    ----------
    points : ndarray, shape (n, m), integer or float
    weights : ndarray, shape (n,)
        How many equal images each point stands for.
    a, b : ndarray, shape (p,), int
        Every pair with squared Ward height <= radius^2 (others are ignored); each pair once.
    squared : ndarray, shape (p,), float64
        Their squared Ward heights (see `ward_heights`).
    radius : float

    Returns
    -------
    Merges
        Equal to the part of the full Ward tree up to `radius`; ties go to the smaller points.

    Notes
    -----
    Memory: the points, one float64 row for each cluster of several, and compiled about 60 bytes a pair. Cost: for a
    merge, the neighbours of both parts, times m for those that need a new distance. The array form, without numba,
    gives the same to the last bit, takes ten times as long and 350 bytes a pair.

    References
    ----------
    Ward 1963; Lance and Williams 1967 (the update); Murtagh 1983 (reducibility).
    """
    bound = _squared_bound(radius)
    inside = np.asarray(squared) <= bound
    low, high = np.minimum(a, b)[inside].astype(np.int32), np.maximum(a, b)[inside].astype(np.int32)
    values = np.asarray(squared, dtype=np.float64)[inside]
    order = np.lexsort((high, low, values))
    low, high, values = low[order], high[order], values[order]
    if len(values) >= COMPILED and engine() == "numba":
        from daskim.kernels.compiled import forest as compiled

        made, one, two = compiled.grow(
            points,
            np.asarray(weights, dtype=np.float64),
            *_neighbours(len(points), low, high, values),
            values,
            low,
            high,
            bound,
        )
        return Merges(np.sqrt(made), one, two)
    forest = _Forest(points, weights, low, high, values, bound)
    height: list[float] = []
    first: list[int] = []
    second: list[int] = []
    low = 0.0
    while (step := forest.nearest()) is not None:
        value, x, y = step
        low = max(low, value)  # rounding can lower a height by some ulp: keep the order made
        height.append(low)
        first.append(min(forest.smallest[x], forest.smallest[y]))
        second.append(max(forest.smallest[x], forest.smallest[y]))
        forest.merge(x, y, value)
    return Merges(np.sqrt(np.array(height)), np.array(first, dtype=np.int64), np.array(second, dtype=np.int64))


class _Forest:
    """Clusters under way: neighbours within the radius, sizes, sums, and a heap of candidate merges."""

    def __init__(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        values: np.ndarray,
        bound: float,
    ) -> None:
        self.points = points
        self.bound = bound
        n = points.shape[0]
        self.size: list[float] = np.asarray(weights, dtype=np.float64).tolist()
        self.smallest: list[int] = list(range(n))
        self.centre: dict[int, np.ndarray] = {}
        self.heap: list[tuple[float, int, int, int, int]] = []  # of the clusters made; the first pairs are sorted
        self.first = list(zip(values.tolist(), low.tolist(), high.tolist()))
        self.at = 0
        starts, others, held = (part.tolist() for part in _neighbours(n, low, high, values))
        self.near = {x: dict(zip(others[lo:hi], held[lo:hi])) for x, (lo, hi) in enumerate(pairwise(starts)) if lo < hi}

    def _entry(self, x: int, y: int, value: float) -> tuple[float, int, int, int, int]:
        p, q = self.smallest[x], self.smallest[y]
        return (value, p, q, x, y) if p < q else (value, q, p, y, x)

    def nearest(self) -> tuple[float, int, int] | None:
        """The next merge (squared height, cluster, cluster), or None when none is left within the radius."""
        near, first = self.near, self.first
        while self.at < len(first) and not (first[self.at][1] in near and first[self.at][2] in near):
            self.at += 1  # one of the two points is in a cluster by now
        while self.heap and near.get(self.heap[0][3], {}).get(self.heap[0][4]) != self.heap[0][0]:
            heapq.heappop(self.heap)
        if self.at < len(first) and (not self.heap or first[self.at] < self.heap[0][:3]):
            return first[self.at]
        return (self.heap[0][0], *self.heap[0][3:]) if self.heap else None

    def merge(self, x: int, y: int, value: float) -> None:
        new = len(self.size)
        near_x, near_y = self.near.pop(x), self.near.pop(y)
        del near_x[y], near_y[x]
        for third in near_x:
            del self.near[third][x]
        for third in near_y:
            del self.near[third][y]
        size_x, size_y = self.size[x], self.size[y]
        total = size_x + size_y
        self.size.append(total)
        self.smallest.append(min(self.smallest[x], self.smallest[y]))
        self.centre[new] = (self._centre(x) * size_x + self._centre(y) * size_y) / total
        self.centre.pop(x, None)
        self.centre.pop(y, None)
        found = self._common(near_x, near_y, size_x, size_y, value)
        found += self._one_sided(new, near_x, near_y, size_x, size_y, value)
        found += self._one_sided(new, near_y, near_x, size_y, size_x, value)
        self.near[new] = dict(found)
        for third, distance in found:
            self.near[third][new] = distance
            heapq.heappush(self.heap, self._entry(new, third, distance))

    def _centre(self, x: int) -> np.ndarray:
        centre = self.centre.get(x)
        return self.points[x].astype(np.float64) if centre is None else centre

    def _common(
        self, near_x: dict[int, float], near_y: dict[int, float], size_x: float, size_y: float, value: float
    ) -> list[tuple[int, float]]:
        """Neighbours of both parts, by the Lance-Williams update."""
        found = []
        for third in near_x.keys() & near_y.keys():
            size = self.size[third]
            top = (size_x + size) * near_x[third] + (size_y + size) * near_y[third] - size * value
            distance = top / (size_x + size_y + size)
            if distance <= self.bound:
                found.append((third, distance))
        return sorted(found)

    def _one_sided(
        self,
        new: int,
        near: dict[int, float],
        other: dict[int, float],
        size_near: float,
        size_other: float,
        value: float,
    ) -> list[tuple[int, float]]:
        """Neighbours of one part only: the other is farther than the radius, which rules most of them out unseen."""
        total = size_near + size_other
        thirds = []
        for third, distance in near.items():
            size = self.size[third]
            least = (size_near + size) * distance + (size_other + size) * self.bound - size * value
            if third not in other and least <= self.bound * (total + size):
                thirds.append(third)
        thirds.sort()
        found = []
        centre = self.centre[new]
        for start in range(0, len(thirds), 256):  # 256 rows of float64: some MB at a time
            part = thirds[start : start + 256]
            rows = np.stack([self._centre(third) for third in part])
            rows -= centre
            sizes = np.array([self.size[third] for third in part])
            squared = ward_heights(_squares(rows), total, sizes)
            found += [(third, value) for third, value in zip(part, squared.tolist()) if value <= self.bound]
        return found


def _squares(rows: np.ndarray) -> np.ndarray:
    """Sum of squares of each row, column by column in 16 parts, which are added up last; rows are overwritten."""
    rows *= rows
    spare = -rows.shape[1] % LANES
    parts = np.pad(rows, ((0, 0), (0, spare))).reshape(len(rows), -1, LANES)
    lanes = np.zeros((len(rows), LANES))
    for at in range(parts.shape[1]):
        lanes += parts[:, at]
    summed = np.zeros(len(rows))
    for lane in range(LANES):
        summed += lanes[:, lane]
    return summed


def _neighbours(n: int, a: np.ndarray, b: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs from the side of each of n points: where its neighbours begin, the neighbours (int32), the values."""
    points = np.concatenate([a, b])
    order = np.argsort(points, kind="stable")
    starts = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(points, minlength=n), out=starts[1:])
    return starts, np.concatenate([b, a])[order], np.concatenate([values, values])[order]


def ward_dense(squared: np.ndarray, weights: np.ndarray, radius: float = np.inf) -> Merges:
    """All Ward merges up to height `radius`, from the full matrix: for few points with many pairs.

    Parameters
    ----------
    squared : ndarray, shape (n, n), float64
        Squared Euclidean distances, symmetric. Not changed.
    weights : ndarray, shape (n,)

    Returns
    -------
    Merges
        As `ward_merges`. Memory n^2, cost about n^2 (every row remembers its nearest).
    """
    n = squared.shape[0]
    size = np.asarray(weights, dtype=np.float64).copy()
    height = ward_heights(squared, size[:, None], size[None, :])
    np.fill_diagonal(height, np.inf)
    nearest = height.argmin(axis=1) if n > 1 else np.zeros(n, dtype=np.int64)
    least = height[np.arange(n), nearest]
    bound = _squared_bound(radius)
    made: list[tuple[float, int, int]] = []
    low = 0.0
    for _ in range(n - 1):
        x = int(least.argmin())
        y = int(nearest[x])
        value = float(least[x])
        if value > bound:
            break
        x, y = min(x, y), max(x, y)
        low = max(low, value)
        made.append((low, x, y))
        row = ((size[x] + size) * height[x] + (size[y] + size) * height[y] - size * value) / (size[x] + size[y] + size)
        row[[x, y]] = np.inf
        size[x] += size[y]
        height[x], height[:, x] = row, row
        height[y], height[:, y] = np.inf, np.inf
        least[y] = np.inf
        stale = np.flatnonzero(((nearest == x) | (nearest == y)) & np.isfinite(least))
        stale = np.union1d(stale, [x])
        nearest[stale] = height[stale].argmin(axis=1)
        least[stale] = height[stale, nearest[stale]]
        closer = row < least
        nearest[closer], least[closer] = x, row[closer]
        tied = (row == least) & (nearest > x) & np.isfinite(row)
        nearest[tied] = x
    heights, first, second = zip(*made) if made else ((), (), ())
    return Merges(
        np.sqrt(np.array(heights, dtype=np.float64)), np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
    )


def cut(heights: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """The `count` lowest merges of several trees together, and the common height at which they are cut.

    Parameters
    ----------
    heights : ndarray, shape (t,)
        Heights of all trees' merges, each tree's in its own order and ascending.
    count : int, 0 <= count <= t

    Returns
    -------
    taken : ndarray, shape (t,), bool
        Closed under "made before in the same tree": equal heights are taken in the order given.
    height : float
        The largest height taken; 0 when none is.
    """
    if not 0 <= count <= heights.size:
        raise ValueError(f"cannot take {count} of {heights.size} merges")
    taken = np.zeros(heights.size, dtype=bool)
    order = np.argsort(heights, kind="stable")[:count]
    taken[order] = True
    return taken, float(heights[order[-1]]) if count else 0.0


def labels_after(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cluster of each of n points after the merges (a, b): numbered by the smallest point; shape (n,), int64."""
    return components(n, a, b)
