"""Images of a run as pairs need them, and the best of many pairs in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskim.results import FinishedRun
from daskim.statuses import READABLE

__all__ = ["Images", "Pool", "order_of"]


@dataclass(frozen=True)
class Images:
    """n images, by row.

    Attributes
    ----------
    ids : ndarray, shape (n,), object
    labels : ndarray, shape (n,), object
        None where unknown.
    code : ndarray, shape (n,), int64
        Number of the label, -1 where unknown.
    readable, textured : ndarray, shape (n,), bool
        Not broken; and not flat either.
    copy : ndarray, shape (n,), int64
        The first of its exact duplicates, else the image itself.
    cluster : ndarray, shape (n,), int64
        -1 where it is in none; all -1 where the run has no clusters.
    """

    ids: NDArray[np.object_]
    labels: NDArray[np.object_]
    code: NDArray[np.int64]
    readable: NDArray[np.bool_]
    textured: NDArray[np.bool_]
    copy: NDArray[np.int64]
    cluster: NDArray[np.int64]

    @classmethod
    def of(cls, run: FinishedRun) -> Images:
        table = run.table("images", ["row", "id", "label", "status"]).sort_values("row")
        labels = table["label"].astype(object).where(table["label"].notna(), None).to_numpy()
        n = len(table)
        copy, cluster = np.arange(n), np.full(n, -1, dtype=np.int64)
        if run.has("exact"):
            exact = run.table("exact", ["row", "group"])
            copy[exact["row"]] = exact["group"]
        if run.has("clusters"):
            found = run.table("clusters", ["row", "cluster"])
            cluster[found["row"]] = found["cluster"]
        names = np.unique(np.array([label for label in labels.tolist() if label is not None], dtype=object))
        number = {label: index for index, label in enumerate(names.tolist())}
        code = np.array([number.get(label, -1) for label in labels.tolist()], dtype=np.int64)
        readable = table["status"].isin(READABLE).to_numpy()
        textured = (table["status"] == "ok").to_numpy()
        return cls(table["id"].to_numpy(dtype=object), labels, code, readable, textured, copy, cluster)

    def same(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether pairs are exact duplicates."""
        return self.copy[a] == self.copy[b]


def order_of(a: NDArray[np.int64], b: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A pseudo-random number in [0, 1) for each pair, that depends on the pair and the seed alone (SplitMix64).

    A sample by the smallest of these is the same in whatever order, and in whatever parts, pairs come.
    """
    golden, one, two = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
    value = np.full(len(a), (seed + 1) % 2**64, dtype=np.uint64)
    for part in (a, b):
        value = (value ^ part.astype(np.uint64)) + golden
        value = (value ^ (value >> np.uint64(30))) * one
        value = (value ^ (value >> np.uint64(27))) * two
        value ^= value >> np.uint64(31)
    return np.ldexp((value >> np.uint64(11)).astype(np.float64), -53)


class Pool:
    """The `limit` pairs of the lowest `order`, of all that were taken; ties by (a, b). Memory: those and one piece."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen = 0
        none = np.zeros(0, dtype=np.int64)
        self._held = (none, none, np.zeros(0), np.zeros(0))

    def take(
        self, a: NDArray[np.int64], b: NDArray[np.int64], similarity: NDArray[np.float64], order: NDArray[np.float64]
    ) -> None:
        """Some more pairs, none that was there before."""
        self.seen += len(a)
        a, b, similarity, order = (np.concatenate(both) for both in zip(self._held, (a, b, similarity, order)))
        best = np.lexsort((b, a, order))[: self.limit]
        self._held = (a[best], b[best], similarity[best], order[best])

    def by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """a, b and similarity of the pairs, by (a, b): neighbours in the source are read together."""
        a, b, similarity, _ = self._held
        order = np.lexsort((b, a))
        return a[order], b[order], similarity[order]
