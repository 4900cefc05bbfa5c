"""Pairs of points that tasks leave in files, and how near they are in steps of the radius."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from daskim.stages.clusters.points import load
from daskim.store import Run

__all__ = ["BATCH", "LEVELS", "Pairs", "level_file", "levels_of"]

# Pairs that the driver holds at a time, at least.
BATCH = 4_000_000
# Steps of the radius in which cuts look for the nearest pairs that they may part.
LEVELS = 64


@dataclass(frozen=True)
class Pairs:
    """Pairs of points that tasks left in files.

    Attributes
    ----------
    counts : dict of str to int
        Pairs in each file: an array of (2, count) positions a < b of candidates, whose levels stand in a file beside
        it, or of (3, count) with squared Ward heights of pairs that are known to be within the radius.
    reach : float
        The largest height: of level `LEVELS`.
    """

    counts: dict[str, int]
    reach: float

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def batches(self, run: Run) -> Iterator[np.ndarray]:
        """All of them, some files at a time."""
        return (part for _, part in self._batches(run))

    def levels(self, run: Run) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All of them, as `batches` gives them, and the level of each."""
        for names, part in self._batches(run):
            if len(part) == 3:
                yield part, levels_of(part[2], self.reach)
            else:
                yield part, np.concatenate([load(run, level_file(name)) for name in names])

    def _batches(self, run: Run) -> Iterator[tuple[list[str], np.ndarray]]:
        """Files of `BATCH` pairs or a few more together, and what is in them."""
        names: list[str] = []
        held = 0
        there = [name for name, count in self.counts.items() if count]
        for name in there:
            names.append(name)
            held += self.counts[name]
            if held >= BATCH or name == there[-1]:
                yield names, np.concatenate([load(run, name) for name in names], axis=1)
                names, held = [], 0


def levels_of(squared: np.ndarray, reach: float) -> np.ndarray:
    """The least l in 1 .. `LEVELS` with a height of at most l / `LEVELS` of the reach; uint8.

    Of squared lower bounds of heights, levels of lower bounds: no pair of a height of at most l / `LEVELS` of the reach
    has a level above l.
    """
    share = np.sqrt(np.asarray(squared, dtype=np.float64)) / (reach or 1.0)
    # what rounding may add must not raise a pair that lies on a step
    return np.clip(np.ceil(LEVELS * share * (1 - 1e-6)), 1, LEVELS).astype(np.uint8)


def level_file(name: str) -> str:
    """The file of the levels of the pairs in another one."""
    return name.removesuffix(".npy") + "-level.npy"
