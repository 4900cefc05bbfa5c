"""Clusters straight from the pairs: leaders above the threshold, and k-medoids. Exact duplicates stay together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

from daskim.kernels.leaders import follow_links
from daskim.kernels.medoids import k_medoids
from daskim.kernels.ward import components
from daskim.store import Run

__all__ = ["by_medoids", "by_threshold"]


def by_threshold(run: Run, rows: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The leader of each readable image, 1 - similarity to it, and facts.

    Images are asked in the order of their number of pairs at or above min_similarity, ties by their place in the
    listing; one that has no leader among its pairs leads. Every other image goes to the most similar leader it has such
    a pair with, ties to the first in the listing: no chain joins images that are not alike. Exact duplicates have the
    same pairs, and so the same leader.

    Parameters
    ----------
    rows : ndarray, int64, ascending
        Readable images.
    place : ndarray, int64
        The place of each of them in the listing (`daskim.kept.order_of`).
    """
    least = float(run.facts("similarities")["min_similarity"])
    a, b, similarity, _ = _pairs(run, rows, least)
    n = len(rows)
    degree = np.bincount(a, minlength=n) + np.bincount(b, minlength=n)
    leads = follow_links(np.lexsort((place, -degree)), a, b, np.zeros(n, dtype=bool)) == np.arange(n)
    one, other, value = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([similarity, similarity])
    found = leads[other] & ~leads[one]
    one, other, value = one[found], other[found], value[found]
    order = np.lexsort((place[other], -value, one))
    image, at = np.unique(one[order], return_index=True)
    label, distance = np.arange(n), np.zeros(n)
    label[image], distance[image] = other[order][at], 1.0 - value[order][at]
    return label, distance, {"min_similarity": least, "followers": len(image)}


def by_medoids(run: Run, rows: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The medoid of each readable image, 1 - similarity to it, and facts.

    All pairs that are listed count. An image that no medoid is listed with stays alone. Exact duplicates go where the
    first medoid among them is, or else the first of them: there may be fewer clusters than asked for.
    """
    n = len(rows)
    a, b, similarity, exact = _pairs(run, rows, 0.0)
    found = k_medoids(n, a, b, np.minimum(similarity, 1.0), wanted)
    label, value = found.medoid.copy(), found.similarity.copy()
    alone = (value <= 0.0) & (label != np.arange(n))
    label[alone] = np.flatnonzero(alone)
    group = components(n, a[exact], b[exact])
    # of each group the first medoid, else its first image: the others follow it, and who followed them follows too
    order = np.lexsort((np.arange(n), label != np.arange(n), group))
    head = order[np.unique(group[order], return_index=True)[1]][group]
    value = np.where(label == np.arange(n), 1.0, value)[head]
    return head[label[head]], 1.0 - value, {"alone": int(alone.sum()), "swaps": found.swaps}


def _pairs(run: Run, rows: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of at least this similarity by their places among the rows, ordered; and whether they are exact copies."""
    found: list[tuple[np.ndarray, ...]] = []
    for key in run.parts("pairs"):
        table = run.read_part("pairs", key, ["a", "b", "similarity", "source"])
        value = np.asarray(table["similarity"])
        kept = value >= least
        a, b = (np.searchsorted(rows, np.asarray(table[name])[kept]) for name in ("a", "b"))
        exact = np.asarray(pc.equal(table["source"], "exact"))
        found.append((a, b, value[kept], exact[kept]))
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros(0), np.zeros(0, dtype=bool)
    a, b, value, exact = (np.concatenate(column) for column in zip(*found))
    order = np.lexsort((b, a))
    return a[order], b[order], value[order], exact[order]
