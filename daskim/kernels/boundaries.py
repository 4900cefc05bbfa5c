"""Decision boundaries of a classifier on the straight lines between pairs of images.

The line from x1 to x2 is (1 - alpha) x1 + alpha x2 with alpha from 0 to 1. Reference: R. Yousefzadeh and D. P. O'Leary,
"Investigating decision boundaries of trained neural networks" (2019, arXiv 1908.02802), and section 5.3 of arXiv
2006.09879, whose question is whether there is a boundary at all.

Method. Scores are taken on a grid of `steps` equal intervals. An interval whose ends differ in class is halved until it
is no longer than `tol`; a third class met in the middle is followed on both sides. An interval whose ends agree is
halved too, at most `DEPTH` times, where a rival class comes close for the pace at which scores move there: if the sum
of the rival's distances behind the winner at both ends is at most `CAUTION` times the largest change of its score plus
that of the winner's, over this interval or a neighbour. Within bounds (`steps` such intervals a pair and level, the
closest first) this finds a change and back inside one interval.

What is guaranteed, whatever the classifier
- Every flip that is told is one: the classes at the two ends of its bracket differ, and the bracket is no longer than
  `tol` (or 1 / steps, if that is shorter).
- Every stretch of one class that is longer than 1 / steps is found, as it holds a point of the grid.
- So the number of boundaries is a lower bound, and so is the list of classes.
What is not
- A shorter stretch may be missed, also after the halving of close calls: scores that jump (hard labels, a very steep
  softmax) give no warning.
- Two or more flips inside one bracket count as one, or, where they return to the same class, as none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAUTION", "DEPTH", "LEAST_TOL", "Classify", "Path", "boundaries", "line"]

# (b, h, w, c) images -> (b, k) scores, b at most `batch`; the class is the column of the highest score.
Classify = Callable[[NDArray[np.float32]], NDArray[np.float64]]

# How often an interval whose ends agree is halved at most.
DEPTH = 4
# By how much faster than seen a rival may catch up inside an interval.
CAUTION = 2.0
# Two points of a line in float32 are hardly told apart below this.
LEAST_TOL = 1e-6


@dataclass(frozen=True)
class Path:
    """What the line between two images crosses; f flips.

    Attributes
    ----------
    alphas : ndarray, shape (f,), float64
        Middles of the brackets that hold the flips, ascending, in (0, 1).
    widths : ndarray, shape (f,), float64
        Lengths of the brackets.
    classes : ndarray, shape (f + 1,), int64
        Classes from x1 to x2, neighbours different.
    scores : ndarray, shape (steps + 1, k), float64
        On the grid alpha = 0, 1 / steps, ..., 1.
    margin : float
        Least difference of the two highest scores on the grid.
    """

    alphas: NDArray[np.float64]
    widths: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    margin: float

    @property
    def returns(self) -> bool:
        """Whether the path leaves a class and comes back to it: some class is met twice."""
        return len(np.unique(self.classes)) < len(self.classes)


@dataclass(frozen=True)
class _Intervals:
    """m intervals of lines: number of the pair, ends in alpha, scores at the ends (m, k), and how fast scores move.

    `pace` (m, k) is the largest change of a class's score over this interval or a neighbour of its length.
    """

    pair: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    at_low: NDArray[np.float64]
    at_high: NDArray[np.float64]
    pace: NDArray[np.float64]

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> _Intervals:
        return _Intervals(*(getattr(self, name)[chosen] for name in _Intervals.__dataclass_fields__))

    @property
    def changes(self) -> NDArray[np.bool_]:
        return self.at_low.argmax(axis=1) != self.at_high.argmax(axis=1)


def line(first: NDArray[np.float32], second: NDArray[np.float32], alpha: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points (1 - alpha) x1 + alpha x2 of lines, float32; exactly x1 and x2 at alpha 0 and 1.

    Parameters
    ----------
    first, second : ndarray, shape (b, h, w, c), float32
    alpha : ndarray, shape (b,), float64
    """
    weight = alpha.reshape(-1, 1, 1, 1)
    return (1.0 - weight).astype(np.float32) * first + weight.astype(np.float32) * second


def boundaries(
    classify: Classify,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    steps: int = 64,
    tol: float = 1e-3,
    batch: int = 256,
) -> list[Path]:
    """Every class change that can be found on the lines from `first` to `second`; see the head of this page.

    Parameters
    ----------
    classify : callable
        (b, h, w, c) float32 -> (b, k), k at least 2, finite; called with at most `batch` images. It must give one image
        the same scores every time.
    first, second : ndarray, shape (p, h, w, c), float32
        Ends of the lines.
    steps : int
        Intervals of the grid, at least 1.
    tol : float
        Longest bracket of a flip, in alpha, from `LEAST_TOL` to 1.
    batch : int

    Returns
    -------
    list of Path
        One a pair.

    Raises
    ------
    ValueError
        Arguments out of range.

    Notes
    -----
    Cost: steps + 1 calls a pair, about log2(1 / (steps tol)) a flip, and at most DEPTH * steps for close calls.
    Memory: the scores of the grid, p (steps + 1) k float64, about five times over, and 3 `batch` images.
    """
    if first.shape != second.shape or first.ndim != 4:
        raise ValueError(f"ends of shape {first.shape} and {second.shape}: both must be (p, h, w, c)")
    if steps < 1 or batch < 1 or not LEAST_TOL <= tol <= 1.0:
        raise ValueError(f"steps and batch must be at least 1, tol from {LEAST_TOL:g} to 1")
    pairs = len(first)
    if not pairs:
        return []

    def ask(pair: NDArray[np.int64], alpha: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate(
            [
                classify(line(first[pair[at : at + batch]], second[pair[at : at + batch]], alpha[at : at + batch]))
                for at in range(0, len(pair), batch)
            ]
        )

    grid = np.arange(steps + 1) / steps
    scores = ask(np.repeat(np.arange(pairs), steps + 1), np.tile(grid, pairs)).reshape(pairs, steps + 1, -1)
    pair, alpha, before, after, width = _flips(ask, scores, grid, tol)
    return [
        _path(scores[index], alpha[mine], width[mine], before[mine], after[mine])
        for index, mine in enumerate(np.split(np.arange(len(pair)), np.searchsorted(pair, np.arange(1, pairs))))
    ]


def _flips(
    ask: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]],
    scores: NDArray[np.float64],
    grid: NDArray[np.float64],
    tol: float,
) -> tuple[NDArray, ...]:
    """Pair, alpha, class before, class after and width of every bracket, by pair and alpha."""
    steps = len(grid) - 1
    live = _on_grid(scores, grid)
    found: list[tuple[NDArray, ...]] = []
    level = 0
    while len(live.pair):
        narrow = live.high - live.low <= tol
        done = live.of(live.changes & narrow)
        middle = (done.low + done.high) / 2
        ends = done.at_low.argmax(axis=1), done.at_high.argmax(axis=1)
        found.append((done.pair, middle, *ends, done.high - done.low))
        live = live.of(~narrow)
        chosen = live.changes
        if level < DEPTH:
            chosen = chosen | _close_calls(live, steps)
        live = _halved(ask, live.of(chosen))
        level += 1
    parts = [np.concatenate(column) for column in zip(*found)]
    order = np.lexsort((parts[1], parts[0]))
    return tuple(part[order] for part in parts)


def _on_grid(scores: NDArray[np.float64], grid: NDArray[np.float64]) -> _Intervals:
    """All intervals of the grid, pair by pair."""
    pairs, points, classes = scores.shape
    steps = points - 1
    at_low, at_high = scores[:, :-1], scores[:, 1:]
    own = np.abs(at_high - at_low)
    pace = own.copy()
    np.maximum(pace[:, 1:], own[:, :-1], out=pace[:, 1:])
    np.maximum(pace[:, :-1], own[:, 1:], out=pace[:, :-1])
    return _Intervals(
        np.repeat(np.arange(pairs), steps),
        np.tile(grid[:-1], pairs),
        np.tile(grid[1:], pairs),
        at_low.reshape(-1, classes),
        at_high.reshape(-1, classes),
        pace.reshape(-1, classes),
    )


def _close_calls(live: _Intervals, steps: int) -> NDArray[np.bool_]:
    """Intervals whose ends agree and where a rival might win in between; at most `steps` a pair, closest first."""
    winner = live.at_low.argmax(axis=1)[:, None]
    both = live.at_low + live.at_high
    behind = np.take_along_axis(both, winner, axis=1) - both
    np.put_along_axis(behind, winner, np.inf, axis=1)
    pace = live.pace + np.take_along_axis(live.pace, winner, axis=1)
    # how much faster than seen the fastest rival would have to be; one that is level at both ends needs no pace
    with np.errstate(divide="ignore", invalid="ignore"):
        need = np.where(behind <= 0, 0.0, behind / pace).min(axis=1)
    close = ~live.changes & (need <= CAUTION)
    order = np.lexsort((live.low, need, ~close, live.pair))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(live.pair[order], live.pair[order])
    return close & (rank < steps)


def _halved(
    ask: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]], live: _Intervals
) -> _Intervals:
    """Both halves of each interval; the pace of a half is seen over both."""
    if not len(live.pair):
        return live
    middle = (live.low + live.high) / 2
    at_middle = ask(live.pair, middle)
    pace = np.maximum(np.abs(at_middle - live.at_low), np.abs(live.at_high - at_middle))
    left = live.pair, live.low, middle, live.at_low, at_middle, pace
    right = live.pair, middle, live.high, at_middle, live.at_high, pace
    return _Intervals(*(np.concatenate(both) for both in zip(left, right)))


def _path(
    scores: NDArray[np.float64],
    alphas: NDArray[np.float64],
    widths: NDArray[np.float64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
) -> Path:
    start = int(scores[0].argmax())
    top = np.partition(scores, -2, axis=1)[:, -2:]
    classes = np.concatenate([[start], after]).astype(np.int64)
    assert (classes[:-1] == before).all(), "brackets of one line do not join"
    return Path(alphas, widths, classes, scores, float((top[:, 1] - top[:, 0]).min()))
