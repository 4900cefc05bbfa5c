"""Pairs of a run that are looked up, or picked, without holding the table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from daskim.report.entries import MOTION, Motion, turned
from daskim.results import FinishedRun

__all__ = ["Pair", "codes_of", "look_up", "nearest_to_threshold"]

_NUMBERS = ["a", "b", "similarity", *MOTION]


class Pair(NamedTuple):
    """Rows a < b, their similarity, and the motion of b onto a where the similarity reports one."""

    a: int
    b: int
    similarity: float
    motion: Motion | None

    def seen_from(self, row: int) -> Motion | None:
        """The motion of the other image onto `row`."""
        return self.motion if row == self.a or self.motion is None else turned(self.motion)


def codes_of(one: np.ndarray, other: np.ndarray, n: int) -> np.ndarray:
    """One number for each pair of rows, whichever comes first; int64."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    return low.astype(np.int64) * n + high


def look_up(run: FinishedRun, codes: np.ndarray, n: int) -> dict[int, Pair]:
    """Those of the pairs that the table `pairs` lists, by their code.

    Parameters
    ----------
    codes : ndarray of int64
        As `codes_of` makes them.
    n : int
        Images of the run.
    """
    found: dict[int, Pair] = {}
    wanted = np.unique(codes)
    if not len(wanted) or not run.has("pairs"):
        return found
    for batch in run.store.batches("pairs", _NUMBERS):
        code = codes_of(np.asarray(batch["a"]), np.asarray(batch["b"]), n)
        at = np.minimum(np.searchsorted(wanted, code), len(wanted) - 1)
        for index in np.flatnonzero(wanted[at] == code).tolist():
            found[int(code[index])] = _pair(batch, index)
    return found


def nearest_to_threshold(run: FinishedRun, threshold: float, most: int) -> tuple[list[Pair], list[Pair], int]:
    """The pairs next to a threshold: at or above it and below it, the nearest first, and how many are listed in all."""
    above: list[tuple[float, int, int, Pair]] = []
    below: list[tuple[float, int, int, Pair]] = []
    total = 0
    for batch in run.store.batches("pairs", _NUMBERS):
        similarity = np.asarray(batch["similarity"], dtype=np.float64)
        total += len(similarity)
        for side, kept in ((above, similarity >= threshold), (below, similarity < threshold)):
            inside = np.flatnonzero(kept & (similarity < 1.0))
            distance = np.abs(similarity[inside] - threshold)
            if len(inside) > most:
                limit = np.partition(distance, most - 1)[most - 1]
                inside, distance = inside[distance <= limit], distance[distance <= limit]
            order = np.lexsort((np.asarray(batch["b"])[inside], np.asarray(batch["a"])[inside], distance))[:most]
            for index in inside[order].tolist():
                pair = _pair(batch, index)
                side.append((abs(pair.similarity - threshold), pair.a, pair.b, pair))
            side.sort(key=lambda item: item[:3])
            del side[most:]
    return [item[3] for item in above], [item[3] for item in below], total


def _pair(batch: pa.Table, index: int) -> Pair:
    there = set(batch.column_names)
    motion = tuple(_number(batch[name][index].as_py()) for name in MOTION) if there.issuperset(MOTION) else None
    if motion is not None and not (np.isfinite(motion[1:5]).all() and min(motion[1:3]) > 0):
        motion = None
    a, b = batch["a"][index].as_py(), batch["b"][index].as_py()
    return Pair(int(a), int(b), _number(batch["similarity"][index].as_py()), motion)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
