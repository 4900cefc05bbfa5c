"""Rows of the arrays of a run, read by whole blocks and kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np

from daskim.store import Run

__all__ = ["BlockCache"]


class BlockCache:
    """Rows of an array through a bounded cache of decoded blocks, shared by the threads of a process.

    Parameters
    ----------
    limit : int
        Bytes of decoded blocks that are kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: OrderedDict[tuple[str, str, str, int], np.ndarray] = OrderedDict()
        self.bytes = 0
        self.reads = 0
        self.lock = Lock()

    def block(self, run: Run, name: str, array: Any, index: int) -> np.ndarray:
        key = (run.url, name, str(array.attrs["made"]), index)  # an array made again is another one
        with self.lock:
            if key in self.held:
                self.held.move_to_end(key)
                return self.held[key]
        rows = (array.shards or array.chunks)[0]
        data = np.asarray(array[index * rows : (index + 1) * rows])
        with self.lock:
            self.reads += 1
            if key not in self.held:
                self.held[key] = data
                self.bytes += data.nbytes
            while self.bytes > self.limit and len(self.held) > 1:
                _, old = self.held.popitem(last=False)
                self.bytes -= old.nbytes
        return data

    def take(self, run: Run, name: str, rows: np.ndarray) -> np.ndarray:
        """The given rows of an array (any order, repeats allowed), block by block; the first ones of the run below."""
        below = run.below()
        if below is not None:
            base, n = below
            theirs = np.asarray(rows) < n
            if theirs.any():
                first = self.take(base, name, np.asarray(rows)[theirs])
                out = np.empty((len(rows), *first.shape[1:]), dtype=first.dtype)
                out[theirs] = first
                if not theirs.all():
                    out[~theirs] = self.take(run, name, np.asarray(rows)[~theirs])
                return out
        array = run.array(name)
        size = (array.shards or array.chunks)[0]
        out = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
        owner = np.asarray(rows) // size
        for index in np.unique(owner).tolist():
            mine = np.flatnonzero(owner == index)
            out[mine] = self.block(run, name, array, index)[np.asarray(rows)[mine] - index * size]
        return out

    def clear(self) -> None:
        with self.lock:
            self.held.clear()
            self.bytes = 0
