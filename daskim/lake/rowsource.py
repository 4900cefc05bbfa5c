"""Arrays of images, row by row: from a range of a file, from memory, or from Zarr."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskim.lake.place import Place, batches
from daskim.lake.records import Failure

__all__ = ["MemoryRows", "RangeRows", "RowSource", "ZarrRows", "plan_ranges"]

_GAP = 65_536  # bytes between two wanted ranges that are read through rather than asked for apart
_SPAN = 16_000_000  # bytes of one request


def plan_ranges(offsets: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, int, list[int]]]:
    """Requests (start, stop, indexes served) that cover ranges [offset, offset + size), in the order given.

    Neighbours in ascending order with small gaps share a request.
    """
    plan: list[tuple[int, int, list[int]]] = []
    for index, (offset, size) in enumerate(zip(offsets, sizes)):
        stop = offset + size
        if plan:
            first, last, served = plan[-1]
            if last <= offset <= last + _GAP and stop - first <= _SPAN:
                served.append(index)
                plan[-1] = (first, stop, served)
                continue
        plan.append((offset, stop, [index]))
    return plan


@dataclass(frozen=True)
class RangeRows:
    """Rows of a C-ordered array that lies uncompressed in a file.

    Attributes
    ----------
    place : Place
    offset : int
        Where row 0 begins, in bytes.
    dtype : numpy.dtype
    shape : tuple of int
        (n, h, w) or (n, h, w, c), as the header claims.
    whole : int
        How many of the n rows the file holds in full; -1 when its size is unknown.
    """

    place: Place
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    whole: int

    def rows(self, items: Sequence[int]) -> Iterator[np.ndarray | Failure]:
        """The rows `items`, in that order."""
        step = self.dtype.itemsize * math.prod(self.shape[1:])
        for start, stop in batches([step] * len(items), max_items=4096, max_bytes=_SPAN):
            part = items[start:stop]
            plan = plan_ranges([self.offset + item * step for item in part], [step] * len(part))
            for first, last, served in plan:
                data = self.place.read(first, last)
                for index in served:
                    at = self.offset + part[index] * step - first
                    yield self._row(data[at : at + step], step)

    def _row(self, data: bytes, step: int) -> np.ndarray | Failure:
        if len(data) < step:
            return Failure("truncated", "the file ends before this row does")
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])


@dataclass(frozen=True)
class MemoryRows:
    """Rows of an array that had to be unpacked as a whole (npz, gzip)."""

    array: np.ndarray
    shape: tuple[int, ...]

    @property
    def whole(self) -> int:
        """Rows that were there to unpack."""
        return len(self.array)

    def rows(self, items: Sequence[int]) -> Iterator[np.ndarray | Failure]:
        """The rows `items`, in that order."""
        for item in items:
            if item < len(self.array):
                yield self.array[item]
            else:
                yield Failure("truncated", "the file ends before this row does")


@dataclass(frozen=True)
class ZarrRows:
    """Rows of a Zarr array; a chunk is decoded once a call."""

    array: Any
    shape: tuple[int, ...]

    @property
    def whole(self) -> int:
        """All: Zarr fills what is not stored."""
        return self.shape[0]

    def rows(self, items: Sequence[int]) -> Iterator[np.ndarray | Failure]:
        """The rows `items`, in that order."""
        step = self.array.dtype.itemsize * math.prod(self.shape[1:])
        for start, stop in batches([step] * len(items), max_items=65_536):
            part = np.asarray(items[start:stop])
            first, last = int(part.min()), int(part.max()) + 1
            if last - first == len(part) and bool((np.diff(part) == 1).all()):
                block = self.array[first:last]
            else:
                unique, back = np.unique(part, return_inverse=True)
                block = self.array.oindex[unique][back]
            yield from np.asarray(block)


RowSource = RangeRows | MemoryRows | ZarrRows
