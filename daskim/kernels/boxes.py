"""Boxes that a sample of points leads to: neighbours among many points get numbers near one another.

The points of the sample are halved at the median of their most varied column, again and again (a k-d tree: Bentley
1975). Any point is then in one of the boxes, which takes as many comparisons as there were halvings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_POINTS", "Boxes", "box_of", "split_boxes"]

# Points and values up to which the variances are exact: sums of squares of so many, times their number, are below 2^63.
MOST_POINTS, MOST_VALUE = 2**18, 2**12


class Boxes(NamedTuple):
    """A tree of halvings; of node i the lower half is node 2 i, the upper one 2 i + 1, the root is node 1.

    Attributes
    ----------
    column : ndarray, shape (2^depth,), int64
        The column that a node is halved by; entry 0 stands for nothing.
    middle : ndarray, shape (2^depth,), int64
        Its largest value in the lower half.
    """

    column: np.ndarray
    middle: np.ndarray


def split_boxes(points: np.ndarray, depth: int) -> Boxes:
    """Halve a sample of points `depth` times.

    Parameters
    ----------
    points : ndarray, shape (s, k), int16
        At most `MOST_POINTS`, values from -2^12 to 2^12. Whole numbers: so the tree does not depend on how a processor
        rounds.
    depth : int
        2^depth boxes, some of them empty where points are fewer or equal.

    Raises
    ------
    ValueError
        More or larger than that.
    """
    if len(points) > MOST_POINTS or np.abs(points, dtype=np.int64).max(initial=0) > MOST_VALUE:
        raise ValueError(f"more than {MOST_POINTS} points, or values above {MOST_VALUE}")
    column, middle = np.zeros(2**depth, dtype=np.int64), np.zeros(2**depth, dtype=np.int64)
    parts = {1: np.arange(len(points))}
    for node in range(1, 2**depth):
        mine = parts.pop(node)
        inside = points[mine].astype(np.int64)
        varied = len(mine) * (inside * inside).sum(axis=0) - inside.sum(axis=0) ** 2
        column[node] = varied.argmax() if varied.size else 0
        values = inside[:, column[node]]
        if len(values):
            middle[node] = np.partition(values, (len(values) - 1) // 2)[(len(values) - 1) // 2]
        upper = values > middle[node]
        parts[2 * node], parts[2 * node + 1] = mine[~upper], mine[upper]
    return Boxes(column, middle)


def box_of(points: np.ndarray, boxes: Boxes) -> NDArray[np.int64]:
    """The box that each point is in, from 0 on; shape (n,)."""
    node, rows = np.ones(len(points), dtype=np.int64), np.arange(len(points))
    size = len(boxes.column)
    while size > 1:
        node = 2 * node + (points[rows, boxes.column[node]] > boxes.middle[node])
        size //= 2
    return node - len(boxes.column)
