"""One image kept for its close neighbours: leaders in a given order, no chains."""

from __future__ import annotations

import numpy as np

__all__ = ["follow_leaders", "rms_to"]

# Images compared at a time: bounds what the differences take.
PIECE = 1024


def rms_to(image: np.ndarray, others: np.ndarray) -> np.ndarray:
    """RMS difference in grey levels between an image and some others, exact before the root.

    Parameters
    ----------
    image : ndarray, shape (v,), uint8
    others : ndarray, shape (k, v), uint8
        v values of all pixels and channels.

    Returns
    -------
    ndarray, shape (k,), float64, 0 to 255
    """
    squared = np.empty(len(others), dtype=np.int64)
    for start in range(0, len(others), PIECE):
        difference = others[start : start + PIECE].astype(np.int32) - image.astype(np.int32)
        squared[start : start + PIECE] = np.einsum("ij,ij->i", difference, difference, dtype=np.int64)
    return np.sqrt(squared / image.size)


def follow_leaders(
    images: np.ndarray,
    order: np.ndarray,
    bound: float,
    fixed: np.ndarray,
    *,
    points: np.ndarray | None = None,
    reach: float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Which images of a group stand for which others.

    The first image in the order leads; every later one within `bound` of it follows it; the next that follows nobody
    leads again, until all are settled. So no image follows one that it is not itself close to.

    Parameters
    ----------
    images : ndarray, shape (k, v), uint8
    order : ndarray, shape (k,), int
        A permutation: who is asked first.
    bound : float
        RMS difference in grey levels.
    fixed : ndarray, shape (k,), bool
        Images that may lead and never follow.
    points : ndarray, shape (k, m), optional
        What the images were clustered by; needed with a `reach`.
    reach : float
        Largest distance between the points of an image and its leader.

    Returns
    -------
    leader : ndarray, shape (k,), int64
        Its own index for a leader.
    distance : ndarray, shape (k,), float64
        RMS difference to the leader.
    """
    leader = np.full(len(images), -1, dtype=np.int64)
    distance = np.zeros(len(images))
    waiting = np.asarray(order, dtype=np.int64)
    while waiting.size:
        first, rest = int(waiting[0]), waiting[1:]
        leader[first] = first
        rms = rms_to(images[first], images[rest])
        close = (rms <= bound) & ~fixed[rest]
        if points is not None and np.isfinite(reach):
            near = np.flatnonzero(close)
            for start in range(0, len(near), PIECE):
                part = near[start : start + PIECE]
                difference = points[rest[part]].astype(np.float64) - points[first].astype(np.float64)
                close[part] = np.einsum("ij,ij->i", difference, difference) <= reach**2
        leader[rest[close]] = first
        distance[rest[close]] = rms[close]
        waiting = rest[~close]
    return leader, distance
