"""Components of a graph of pairs that are too large for one task, cut so that the nearest points stay together."""

from __future__ import annotations

import numpy as np

from daskim.kernels.ward import components
from daskim.stages.clusters.pairs import LEVELS, Pairs
from daskim.store import Run

__all__ = ["cut_components"]


def cut_components(
    run: Run, pairs: Pairs, label: np.ndarray, points: int, count: int, place: np.ndarray
) -> tuple[np.ndarray, float]:
    """Labels after each component of more points or pairs than a task may hold has been cut into parts that fit.

    Of each such component the highest level is sought at which the pairs up to it make only components that fit. These
    are kept whole (single linkage, stopped by size) and packed into parts, in the order of `place`.

    Parameters
    ----------
    label : ndarray, shape (p,), int
        Components of all pairs, numbered from 0.
    points, count : int
        What a task may hold.
    place : ndarray, shape (p,), int
        The place of each point in an order in which neighbours are near one another.

    Returns
    -------
    label : ndarray, shape (p,), int64
        Not numbered without gaps.
    near : float
        No pair of a height of at most this part of `pairs.reach` lies across a cut; infinite where nothing was cut.
    """
    size, load = np.bincount(label), _inside(run, pairs, label)
    large = (size > points) | (load > count)
    if not large.any():
        return label, float("inf")
    used = np.flatnonzero(large[label])
    node = np.full(len(label), -1, dtype=np.int64)
    node[used] = np.arange(len(used))
    _, component = np.unique(label[used], return_inverse=True)
    # single points fit, the whole does not
    fits, fails = (np.full(int(component.max()) + 1, level, dtype=np.int64) for level in (0, LEVELS))
    atom = np.arange(len(used))
    while (fails - fits > 1).any():
        level = (fits + fails) // 2
        tried = _up_to(run, pairs, node, level[component])
        good = np.ones(len(fits), dtype=np.bool_)
        many = np.bincount(tried) > points
        good[component[many[tried]]] = False
        if good.any():
            many = _inside(run, pairs, tried, node) > count
            good[component[many[tried]]] = False
        open_ = fails - fits > 1
        better = (open_ & good)[component]
        # the labels of two levels must not meet: those of a component keep clear of any other's
        atom = np.unique(np.where(better, tried, len(used) + atom), return_inverse=True)[1]
        fits, fails = np.where(open_ & good, level, fits), np.where(open_ & ~good, level, fails)
    part = _packed(atom, component, place[used], np.full(len(fits), points))
    while True:
        load, size = _inside(run, pairs, part, node), np.bincount(part)
        atoms = np.bincount(part[np.unique(atom, return_index=True)[1]], minlength=len(size))
        heavy = (load > count) & (atoms > 1)
        if not heavy.any():
            break
        most = np.where(heavy, -(-size // np.maximum(2, -(-load // count))), size)
        part = _packed(atom, part, place[used], most)
    label = label.copy()
    label[used] = int(label.max()) + 1 + part
    return label, float(fits.min()) / LEVELS


def _up_to(run: Run, pairs: Pairs, node: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Components of some points by the pairs up to a level of each; shape (nodes,)."""
    label = np.arange(len(level))
    for part, levels in pairs.levels(run):
        a, b = node[part[0].astype(np.int64)], node[part[1].astype(np.int64)]
        near = (a >= 0) & (levels <= level[a])
        label = components(len(level), label[a[near]], label[b[near]])[label]
    return label


def _inside(run: Run, pairs: Pairs, label: np.ndarray, node: np.ndarray | None = None) -> np.ndarray:
    """Pairs inside each component; shape (labels,)."""
    count = np.zeros(int(label.max(initial=-1)) + 1, dtype=np.int64)
    for part in pairs.batches(run):
        a, b = part[0].astype(np.int64), part[1].astype(np.int64)
        if node is not None:
            a, b = node[a], node[b]
            some = a >= 0  # then b too: they are of one component
            a, b = a[some], b[some]
        mine = label[a]
        count += np.bincount(mine[mine == label[b]], minlength=len(count))
    return count


def _packed(atom: np.ndarray, group: np.ndarray, place: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Parts of groups: whole atoms in the order of their first places, as many as have `most` points together.

    Parameters
    ----------
    atom, group : ndarray, shape (nodes,), int
        Numbered without gaps; an atom lies in one group.
    most : ndarray, shape (groups,), int
        An atom of more points is a part by itself.
    """
    order = np.argsort(place)
    _, first = np.unique(atom[order], return_index=True)
    groups = group[order[first]]
    sequence = np.lexsort((first, groups))
    ends = np.cumsum(np.bincount(atom)[sequence])
    bounds = np.searchsorted(groups[sequence], np.arange(len(most) + 1))
    part_of = np.empty(len(sequence), dtype=np.int64)
    part = 0
    for at in range(len(most)):
        start, end = int(bounds[at]), int(bounds[at + 1])
        while start < end:
            before = ends[start - 1] if start else 0
            stop = min(end, max(start + 1, int(np.searchsorted(ends, before + most[at], side="right"))))
            part_of[sequence[start:stop]] = part
            start, part = stop, part + 1
    return part_of[atom]
