"""The rows that are clustered: equal images once, with their number as weight; flat and broken ones apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from daskim.kept import Kept, gather, take
from daskim.store import Run

__all__ = ["GROUP", "Points", "energy_share", "load", "points_of", "spread"]

STAGE = "clusters"
# Rows in one task that gathers rows of W from anywhere.
GROUP = 8192
# Runs of so many rows that a sample is taken from at most, as few blocks of W are then read, and images that tell
# whether a transform keeps lengths. Constants: what is found must not depend on the blocks of the run.
TOGETHER, BLOCKS, FEW = 2048, 64, 32


@dataclass(frozen=True)
class Points:
    """What is clustered.

    Attributes
    ----------
    rows : ndarray, shape (p,), int64, ascending
        One image for each distinct standard image: the first.
    weights : ndarray, shape (p,), int64
        How many images it stands for.
    owner : ndarray, shape (n,), int64
        Position in `rows` of each image; -1 for flat and broken ones.
    flat : ndarray, shape (n,), int64
        For flat images the first flat image with the same pixels; else -1.
    """

    rows: np.ndarray
    weights: np.ndarray
    owner: np.ndarray
    flat: np.ndarray

    @property
    def n_flat(self) -> int:
        """Distinct flat images."""
        return len(np.unique(self.flat[self.flat >= 0]))


def points_of(table: pd.DataFrame, n: int) -> Points:
    """Points from the table `images` (row, status, digest)."""
    table = table.sort_values("row")
    owner = np.full(n, -1, dtype=np.int64)
    flat = np.full(n, -1, dtype=np.int64)
    good = table[table["status"] == "ok"]
    first = good.groupby("digest", sort=False)["row"].transform("min").to_numpy(dtype=np.int64)
    rows, position, weights = np.unique(first, return_inverse=True, return_counts=True)
    owner[good["row"].to_numpy()] = position
    even = table[table["status"] == "flat"]
    flat[even["row"].to_numpy()] = even.groupby("digest", sort=False)["row"].transform("min").to_numpy(dtype=np.int64)
    return Points(rows, weights, owner, flat)


def spread(rows: np.ndarray, count: int, blocks: int = BLOCKS) -> np.ndarray:
    """At most `count` of the rows, evenly over them, from at most so many runs of `TOGETHER` rows; ascending."""
    block = rows // TOGETHER
    there = np.unique(block)
    if len(there) > blocks:
        rows = rows[np.isin(block, there[np.linspace(0, len(there) - 1, blocks).astype(int)])]
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(int))]


def energy_share(kept: Kept, rows: np.ndarray) -> float:
    """Share of the squared pixel difference of two images that their kept coefficients show, on average.

    The mean squared distance of a set is twice its variance, so the share is that of the variances, taken from at most
    1,024 images of 64 parts of the rows. 1 where all columns of an orthonormal transform are kept, as a few
    images tell then. With it, a distance in the kept columns is told as the RMS difference in grey levels that it
    stands for.
    """
    if kept.columns is None and len(rows) > FEW and abs(_share(kept, rows[:FEW]) - 1.0) < 1e-9:
        return 1.0
    return _share(kept, spread(rows, 1024)) if len(rows) else 1.0


def _share(kept: Kept, sample: np.ndarray) -> float:
    pixels = take(kept.run, "images", sample).reshape(len(sample), -1)
    whole = float(pixels.var(axis=0, dtype=np.float64).sum())
    if whole == 0.0:
        return 1.0
    share = float(gather(kept, sample).var(axis=0, dtype=np.float64).sum()) * kept.scale**2 / whole
    return 1.0 if abs(share - 1.0) < 1e-9 else share


def load(run: Run, *parts: str) -> np.ndarray:
    """A partial result of this stage."""
    return run.load("partial", STAGE, *parts)
