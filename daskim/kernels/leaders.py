"""One image kept for its close neighbours: leaders in a given order, no chains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["follow_leaders", "follow_links", "rms_to"]

# Values compared at a time: bounds what the differences take (8 bytes each, and the rows themselves).
PIECE_VALUES = 2**20


def rms_to(image: np.ndarray, others: np.ndarray) -> NDArray[np.float64]:
    """RMS difference in grey levels between an image and some others, exact before the root.

    Parameters
    ----------
    image : ndarray, shape (v,) or (k, v), uint8
        One for all, or one for each.
    others : ndarray, shape (k, v), uint8
        v values of all pixels and channels.

    Returns
    -------
    ndarray, shape (k,), float64, 0 to 255
    """
    squared = np.empty(len(others), dtype=np.int64)
    rows = max(1, PIECE_VALUES // max(1, others.shape[1]))
    image = np.broadcast_to(image, others.shape)
    for start in range(0, len(others), rows):
        part = slice(start, start + rows)
        difference = others[part].astype(np.int32) - image[part].astype(np.int32)
        squared[part] = np.einsum("ij,ij->i", difference, difference, dtype=np.int64)
    return np.sqrt(squared / max(1, others.shape[1]))


def follow_leaders(
    images: np.ndarray,
    order: np.ndarray,
    bound: float,
    fixed: np.ndarray,
    *,
    group: np.ndarray | None = None,
    points: np.ndarray | None = None,
    reach: float = np.inf,
    agree: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    apart: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which images of a group stand for which others.

    The first image in the order leads; every later one within `bound` of it follows it; the next that follows nobody
    leads again, until all are settled. So no image follows one that it is not itself close to. All groups take such a
    step together: there are as many steps as leaders in one group.

    Parameters
    ----------
    images : ndarray, shape (k, v), uint8
    order : ndarray, shape (k,), int
        A permutation: who is asked first.
    bound : float
        RMS difference in grey levels.
    fixed : ndarray, shape (k,), bool
        Images that may lead and never follow.
    group : ndarray, shape (k,), int, optional
        Nobody follows an image of another group; from 0 on. One group by default.
    points : ndarray, shape (k, m), optional
        What the images were clustered by; needed with a `reach`.
    reach : float
        Largest distance between the points of an image and its leader.
    agree : callable, optional
        `agree(first, rest)` tells for images rest[t], within both bounds of leader first[t] and different from it,
        whether they may follow it, shape (p,), bool; those that may not wait for another leader. Equal images are not
        asked about, and no pair twice.
    apart : pair of ndarray, shape (q,), int, optional
        Images apart[0][t] and apart[1][t] never have one leader, and neither leads the other; the later one waits for
        another leader.

    Returns
    -------
    leader : ndarray, shape (k,), int64
        Its own index for a leader.
    distance : ndarray, shape (k,), float64
        RMS difference to the leader.
    """
    leader = np.full(len(images), -1, dtype=np.int64)
    distance = np.zeros(len(images))
    group = np.zeros(len(images), dtype=np.int64) if group is None else np.asarray(group)
    strangers = _strangers(apart)
    waiting = np.asarray(order, dtype=np.int64)
    waiting = waiting[np.argsort(group[waiting], kind="stable")]
    while waiting.size:
        leads = np.diff(group[waiting], prepend=-1) != 0
        at = np.flatnonzero(leads)
        leader[waiting[at]] = waiting[at]
        first = np.repeat(waiting[at], np.diff(at, append=len(waiting)))[~leads]
        rest = waiting[~leads]
        rms = _in_pieces(images, first, rest, rms_to)
        close = (rms <= bound) & ~fixed[rest]
        if points is not None and np.isfinite(reach):
            near = np.flatnonzero(close)
            close[near] = _in_pieces(points, first[near], rest[near], _squared) <= reach**2
        if agree is not None:
            asked = np.flatnonzero(close & (rms > 0))
            if asked.size:
                close[asked] = agree(first[asked], rest[asked])
        if strangers:
            _part(strangers, first, rest, close)
        leader[rest[close]] = first[close]
        distance[rest[close]] = rms[close]
        waiting = rest[~close]
    return leader, distance


def follow_links(
    order: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    fixed: np.ndarray,
    *,
    apart: tuple[np.ndarray, np.ndarray] | None = None,
) -> NDArray[np.int64]:
    """Which images stand for which others, where only linked images may follow one another.

    As `follow_leaders`: images are asked in the order, and the first that follows nobody leads all that are linked to
    it, wait, and come later. One step for each leader that has a link: the time grows with images and links.

    Parameters
    ----------
    order : ndarray, shape (k,), int
        A permutation: who is asked first.
    one, other : ndarray, shape (p,), int
        Links, in any order and either way round; repeats allowed.
    fixed : ndarray, shape (k,), bool
        Images that may lead and never follow.
    apart : pair of ndarray, shape (q,), int, optional
        As of `follow_leaders`.

    Returns
    -------
    ndarray, shape (k,), int64
        The leader of each image; its own index for a leader.
    """
    order = np.asarray(order, dtype=np.int64)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    early = np.minimum(place[one], place[other])
    late = order[np.maximum(place[one], place[other])]
    follows = ~fixed[late]
    early, late = early[follows], late[follows]
    by = np.lexsort((place[late], early))
    early, late = early[by], late[by]
    strangers = _strangers(apart)
    leader = np.full(len(order), -1, dtype=np.int64)
    starts = np.flatnonzero(np.diff(early, prepend=-1))
    ends = np.append(starts[1:], len(early))
    for own, lo, hi in zip(order[early[starts]].tolist(), starts.tolist(), ends.tolist()):
        if leader[own] < 0:
            leader[own] = own
            mine = late[lo:hi]
            mine = mine[leader[mine] < 0]
            if strangers:
                joined = np.ones(len(mine), dtype=bool)
                _part(strangers, np.full(len(mine), own), mine, joined)
                mine = mine[joined]
            leader[mine] = own
    return np.where(leader < 0, np.arange(len(order)), leader)


def _strangers(apart: tuple[np.ndarray, np.ndarray] | None) -> dict[int, set[int]]:
    """Of each image that is kept apart from others, those others."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    if apart is not None:
        for one, other in zip(apart[0].tolist(), apart[1].tolist()):
            found[one].add(other)
            found[other].add(one)
    return dict(found)


def _part(strangers: dict[int, set[int]], first: np.ndarray, rest: np.ndarray, joined: np.ndarray) -> None:
    """Take back those of rest[t] joining first[t] that would share a leader with an image they are kept apart from."""
    doubtful = np.flatnonzero(joined & np.isin(rest, np.fromiter(strangers, dtype=np.int64)))
    family: dict[int, int] = {}
    for at in doubtful.tolist():
        own, leader = int(rest[at]), int(first[at])
        if any(other == leader or family.get(other) == leader for other in strangers[own]):
            joined[at] = False
        else:
            family[own] = leader


def _in_pieces(
    rows: np.ndarray, first: np.ndarray, rest: np.ndarray, compare: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> NDArray[np.float64]:
    """`compare(rows[first], rows[rest])` without gathering all rows at once."""
    out = np.empty(len(rest))
    step = max(1, PIECE_VALUES // max(1, rows.shape[1]))
    for start in range(0, len(rest), step):
        part = slice(start, start + step)
        out[part] = compare(rows[first[part]], rows[rest[part]])
    return out


def _squared(left: np.ndarray, right: np.ndarray) -> NDArray[np.float64]:
    """Squared Euclidean distance of rows, shape (k,)."""
    difference = right.astype(np.float64) - left.astype(np.float64)
    return np.einsum("ij,ij->i", difference, difference)
