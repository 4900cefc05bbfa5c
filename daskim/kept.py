"""What earlier stages left, as later ones read it: kept columns, exact duplicates, rows through one cache a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from daskim.blocks import BlockCache
from daskim.release import kept_for_a_stage
from daskim.store import Run

__all__ = [
    "CACHE_BYTES",
    "LEFT_BYTES",
    "NAMES",
    "ORDER",
    "SIDE_BY_SIDE",
    "Kept",
    "exact_groups",
    "forget",
    "gather",
    "kept_of",
    "order_of",
    "parts_of",
    "take",
    "whole_block",
]

# Where a delivery leaves the place of each row in the listing.
ORDER = ("frozen", "index", "order.npy")
# And where it leaves what the ids of a run that is against another one begin with.
NAMES = ("frozen", "index", "names.json")
# Where the stage candidates leaves the searched rows in an order in which candidates stand together; until a delivery.
SIDE_BY_SIDE = ("frozen", "candidates", "order.npy")
# Decoded blocks that a worker process keeps while it looks rows up.
CACHE_BYTES = 384_000_000
# What the C library keeps of freed arrays until a stage ends, where tasks make many of them: measured, as what workers
# held beyond all else, up to 2,000,000 images.
LEFT_BYTES = 192_000_000


@dataclass(frozen=True)
class Kept:
    """The columns of W that are kept, and where W is.

    Attributes
    ----------
    columns : tuple of int, or None
        None for all.
    scale : float
        Stored coefficients times scale are the true ones.
    """

    run: Run
    columns: tuple[int, ...] | None
    scale: float

    def select(self, block: np.ndarray) -> np.ndarray:
        """The kept columns of some rows of W."""
        return block if self.columns is None else block[:, np.array(self.columns, dtype=np.intp)]


def kept_of(run: Run) -> Kept:
    """What the stage `columns` decided."""
    kept = np.asarray(run.read_table("columns", ["kept"])["kept"])
    columns = None if kept.all() else tuple(np.flatnonzero(kept).tolist())
    return Kept(run, columns, float(str(run.array("wavelets").attrs["scale"])))


def parts_of(run: Run, table: str, mark: str) -> list[str]:
    """Keys of the parts of a table that the delivery `mark` left, in order; before the first one they bear no mark."""
    keys = run.parts(table)
    return [key for key in keys if (key.startswith(mark) if mark != "d00000" else key[0] != "d")]


def order_of(run: Run, n: int) -> np.ndarray:
    """The place of each of n rows in the listing of the source: what decides where all else is equal; (n,), int64.

    Of a run that has had no delivery the rows themselves; images that have left the source come last.
    """
    return run.load(*ORDER) if run.exists(*ORDER) else np.arange(n)


def exact_groups(run: Run, n: int) -> np.ndarray:
    """The group of exact duplicates that each of n images is in, -1 for none; shape (n,), int64."""
    group = np.full(n, -1, dtype=np.int64)
    exact = run.read_table("exact", ["row", "group"])
    group[np.asarray(exact["row"])] = np.asarray(exact["group"])
    return group


@lru_cache(maxsize=1)
def _cache() -> BlockCache:
    return BlockCache(CACHE_BYTES)


@kept_for_a_stage
def forget() -> None:
    """Empty the cache of this process."""
    _cache().clear()


def take(run: Run, name: str, rows: np.ndarray) -> np.ndarray:
    """Rows of an array of the run, in any order; shape (len(rows), ...)."""
    return _cache().take(run, name, rows)


def whole_block(kept: Kept, index: int) -> np.ndarray:
    """Kept coefficients of one block of W, as stored; not to be written to. Of a run that has none below it."""
    return kept.select(_cache().block(kept.run, "wavelets", kept.run.array("wavelets"), index))


def gather(kept: Kept, rows: np.ndarray) -> np.ndarray:
    """Kept coefficients of some images, as stored; shape (len(rows), m)."""
    return kept.select(take(kept.run, "wavelets", rows))
