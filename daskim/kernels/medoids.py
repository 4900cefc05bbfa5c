"""k-medoids with a similarity known for listed pairs only: facility location on a sparse graph, then swaps.

The set M of k medoids is to maximise f(M) = sum_i max over m in M of s(i, m), with s(i, i) = 1, s of a listed pair its
similarity, and s of any other pair `elsewhere`. f is monotone and submodular, so that a gain worked out for a smaller M
is an upper bound for a larger one, and a loss worked out for a larger M a lower bound for a smaller one: a heap of such
bounds, renewed only at its top, takes the place of the n x k matrix (Minoux 1978). Memory is O(pairs).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

__all__ = ["Medoids", "k_medoids"]

ROUNDING = 1e-9  # a swap must gain more than this, or rounding could swap for ever


@dataclass(frozen=True)
class Medoids:
    """k-medoids of n images.

    Attributes
    ----------
    medoid : ndarray, shape (n,), int64
        The image that stands for each image; a medoid stands for itself.
    similarity : ndarray, shape (n,), float64
        To that medoid: 1 for medoids, `elsewhere` for images that no medoid is listed with.
    total : float
        Their sum.
    unlisted : int
        Images that no medoid is listed with: put with the first medoid for want of a better one, alike or not.
    swaps : int
        Made after the first choice.
    """

    medoid: np.ndarray
    similarity: np.ndarray
    total: float
    unlisted: int
    swaps: int


def k_medoids(
    n: int,
    a: np.ndarray,
    b: np.ndarray,
    similarity: np.ndarray,
    k: int,
    *,
    elsewhere: float = 0.0,
    iterations: int = 20,
) -> Medoids:
    """k images that stand for all n, with similarity as the measure.

    Parameters
    ----------
    n : int
    a, b : ndarray, shape (p,), int
        Listed pairs, a < b, each once.
    similarity : ndarray, shape (p,), float64, at most 1
        Pairs at or below `elsewhere` count as not listed.
    k : int, 1 <= k <= n
    elsewhere : float, below 1
        Similarity of pairs that are not listed.
    iterations : int
        At most this many passes over all images in search of a swap; ends with the first that finds none.

    Returns
    -------
    Medoids
        At least (1 - 1/e) of what is to be gained above n * elsewhere by the best k, and no single swap of a medoid
        for another image improves it (unless `iterations` ended the search). Ties go to the smaller image.

    Raises
    ------
    ValueError
        k out of range; bad pairs; a similarity that is not finite or above 1.

    Notes
    -----
    First choice: the greedy one from no medoid up, and for k >= n / 2 also the one from all medoids down, the better of
    the two. Near n the way down is the right one: what it removes first are images most similar to another. Swaps are
    those of PAM with the bookkeeping of FastPAM, worked out for all k medoids at once from the image's listed pairs.
    About O(pairs log n) a choice and O(pairs + n) a pass, plus O(n) for each swap made.

    References
    ----------
    Nemhauser, Wolsey, Fisher 1978 (the bound); Minoux 1978 (lazy greedy); Kaufman and Rousseeuw 1990 (PAM); Schubert
    and Rousseeuw 2021, "Fast and eager k-medoids clustering" (swaps for all medoids at once).
    """
    if not 1 <= k <= n:
        raise ValueError(f"{k} medoids of {n} images")
    near = _neighbours(n, np.asarray(a), np.asarray(b), np.asarray(similarity, dtype=np.float64), elsewhere)
    chosen = _greedy_up(near, k, elsewhere)
    state = _Assignment(near, chosen, elsewhere)
    if 2 * k >= n:
        other = _Assignment(near, _greedy_down(near, k, elsewhere), elsewhere)
        if other.value.sum() > state.value.sum() + ROUNDING:
            state = other
    swaps = 0
    for _ in range(iterations):
        made = _swap_pass(state)
        swaps += made
        if not made:
            break
    lost = state.owner < 0
    medoid = np.where(lost, int(np.argmax(state.chosen)), state.owner)
    return Medoids(medoid, state.value.copy(), float(state.value.sum()), int(lost.sum()), swaps)


@dataclass(frozen=True)
class _Near:
    """Listed neighbours of each image, most similar first, ties by number: row i is start[i]:start[i + 1]."""

    start: list[int]
    image: np.ndarray
    similarity: np.ndarray

    def row(self, i: int) -> slice:
        return slice(self.start[i], self.start[i + 1])


def _neighbours(n: int, a: np.ndarray, b: np.ndarray, similarity: np.ndarray, elsewhere: float) -> _Near:
    if not elsewhere < 1.0:
        raise ValueError("`elsewhere` must be below 1, which is identity")
    if len(a) and not ((a < b).all() and a.min() >= 0 and b.max() < n):
        raise ValueError(f"pairs must have 0 <= a < b < {n}")
    if not (similarity <= 1.0 + ROUNDING).all():
        raise ValueError("a similarity above 1, or not a number")
    if np.unique(a.astype(np.int64) * n + b).size != len(a):
        raise ValueError("a pair is listed twice")
    real = similarity > elsewhere
    a, b, similarity = a[real].astype(np.int64), b[real].astype(np.int64), np.minimum(similarity[real], 1.0)
    of, image, value = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([similarity, similarity])
    order = np.lexsort((image, -value, of))
    start = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=n))])
    return _Near(start.tolist(), image[order], value[order])


def _greedy_up(near: _Near, k: int, elsewhere: float) -> np.ndarray:
    """Which images the lazy greedy choice from none makes medoids; shape (n,), bool."""
    n = len(near.start) - 1
    value = np.full(n, elsewhere)
    listed = csr_array((near.similarity - elsewhere, near.image, near.start), shape=(n, n))
    heap = [(-gain, i) for i, gain in enumerate((1.0 - elsewhere + listed.sum(axis=1)).tolist())]
    heapq.heapify(heap)
    chosen = np.zeros(n, dtype=bool)
    for _ in range(k):
        while True:
            _, i = heap[0]
            row = near.row(i)
            own = 1.0 - value[i] + np.maximum(near.similarity[row] - value[near.image[row]], 0.0).sum()
            entry = (-float(own), i)
            heapq.heapreplace(heap, entry)
            if heap[0] == entry:
                break
        heapq.heappop(heap)
        chosen[i] = True
        value[near.image[row]] = np.maximum(value[near.image[row]], near.similarity[row])
        value[i] = 1.0
    return chosen


def _greedy_down(near: _Near, k: int, elsewhere: float) -> np.ndarray:
    """Which images stay medoids when the least loss is removed until k are left; shape (n,), bool.

    Neighbours are sorted and medoids only vanish, so that each image's next best medoid only moves down its row.
    """
    n = len(near.start) - 1
    image, similarity, start = near.image.tolist(), near.similarity.tolist(), near.start
    chosen = [True] * n
    owner = list(range(n))
    value = [1.0] * n
    members: list[list[int]] = [[i] for i in range(n)]
    place = list(start[:-1])

    def runner_up(j: int) -> tuple[float, int]:
        at = place[j]
        while at < start[j + 1] and (not chosen[image[at]] or image[at] == owner[j]):
            at += 1
        place[j] = at
        return (similarity[at], image[at]) if at < start[j + 1] else (elsewhere, -1)

    def loss(u: int) -> float:
        return sum(value[j] - runner_up(j)[0] for j in members[u])

    heap = [(loss(i), -i) for i in range(n)]
    heapq.heapify(heap)
    for _ in range(n - k):
        while True:
            _, minus = heap[0]
            entry = (loss(-minus), minus)
            heapq.heapreplace(heap, entry)
            if heap[0] == entry:
                break
        heapq.heappop(heap)
        u = -minus
        chosen[u] = False
        for j in members[u]:
            value[j], owner[j] = runner_up(j)
            if owner[j] >= 0:
                members[owner[j]].append(j)
        members[u] = []
    return np.array(chosen)


class _Assignment:
    """Best and second best medoid of each image, and what the loss of each medoid would cost."""

    def __init__(self, near: _Near, chosen: np.ndarray, elsewhere: float) -> None:
        n = len(chosen)
        self.near, self.chosen, self.elsewhere = near, chosen.copy(), elsewhere
        self.owner = np.full(n, -1, dtype=np.int64)
        self.value, self.second = np.full(n, elsewhere), np.full(n, elsewhere)
        self.runner = np.full(n, -1, dtype=np.int64)
        self.renew(range(n))

    def renew(self, images: range | list[int]) -> None:
        for j in images:
            row = self.near.row(j)
            hits = np.flatnonzero(self.chosen[self.near.image[row]])[:2] + row.start
            best = [(int(self.near.image[at]), float(self.near.similarity[at])) for at in hits]
            if self.chosen[j]:
                best.insert(0, (j, 1.0))
            best += [(-1, self.elsewhere)] * 2
            (self.owner[j], self.value[j]), (self.runner[j], self.second[j]) = best[0], best[1]
        owned = np.flatnonzero(self.owner >= 0)
        weights = self.value[owned] - self.second[owned]
        self.loss = np.bincount(self.owner[owned], weights=weights, minlength=len(self.owner))
        self.loss[~self.chosen] = np.inf
        self.cheapest = int(np.argmin(self.loss))

    def swap(self, out: int, into: int) -> None:
        self.chosen[out], self.chosen[into] = False, True
        row = self.near.row(out)
        around = self.near.image[row]
        told = around[(self.owner[around] == out) | (self.runner[around] == out)]
        row = self.near.row(into)
        around = self.near.image[row]
        better = around[self.near.similarity[row] >= self.second[around]]
        self.renew(sorted({out, into, *told.tolist(), *better.tolist()}))


def _swap_pass(state: _Assignment) -> int:
    """One pass over all images that are no medoid; each is swapped in at once for the medoid it best replaces."""
    near, made = state.near, 0
    for x in np.flatnonzero(~state.chosen).tolist():
        row = near.row(x)
        images, similarity = np.append(near.image[row], x), np.append(near.similarity[row], 1.0)
        value, second, owner = state.value[images], state.second[images], state.owner[images]
        gain = float(np.maximum(similarity - value, 0.0).sum())
        # an image of a medoid that goes falls back on x, or on its second best if that is nearer
        saved = np.clip(similarity, second, value) - second
        owners, inverse = np.unique(owner, return_inverse=True)
        cost = state.loss[owners] - np.bincount(inverse, weights=saved)
        cost[owners < 0] = np.inf
        at = int(np.argmin(cost))
        out, least = (int(owners[at]), cost[at])
        if state.loss[state.cheapest] < least:
            out, least = state.cheapest, state.loss[state.cheapest]
        if gain - least > ROUNDING:
            state.swap(out, x)
            made += 1
    return made
