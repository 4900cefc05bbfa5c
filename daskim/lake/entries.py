"""The files of an INPUT: kept as Arrow columns, shown as records. A million of them take about 100 MB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from daskim.lake.names import escape, extension, unescape
from daskim.lake.place import Place
from daskim.statuses import STATUSES

__all__ = ["CHUNK", "Entries", "Entry", "Found"]

# Files that are in memory as Python objects at a time.
CHUNK = 1 << 14
_STATUSES = list(STATUSES)  # ok is the first
_SCHEMA = pa.schema(
    [
        ("rel", pa.string()),
        ("path", pa.string()),  # in stored form; null where it is what `rel` says
        ("bytes", pa.int64()),
        ("mtime", pa.float64()),
        ("etag", pa.string()),
        ("status", pa.int8()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its path relative to the INPUT (stored form), where to open it, and what is known of it."""

    rel: str
    place: Place
    bytes: int = -1
    mtime: float = float("nan")
    status: str = "ok"
    reason: str = ""
    etag: str | None = None

    @property
    def ext(self) -> str:
        """Lower-case extension with its dot."""
        return extension(self.rel)


class Entries(Sequence[Entry]):
    """Entries below `root`, made when asked for. Add all, then `sort`; then read."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self._base = root.join("").path
        self._open: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
        self._chunks: list[pa.RecordBatch] = []
        self._count, self._last, self._ascending = 0, "", True

    def add(self, entry: Entry) -> None:
        """Take a copy of what the entry says."""
        about = (entry.bytes, entry.mtime, entry.etag, _STATUSES.index(entry.status), entry.reason)
        self._take(entry.rel, entry.place.path, unescape(entry.rel), about)

    def add_file(self, rel: str, path: str, size: int, mtime: float, etag: str | None = None) -> None:
        """A file with nothing wrong; `rel` as the store gives it."""
        self._take(escape(rel), path, rel, (size, mtime, etag, 0, ""))

    def _take(self, name: str, path: str, rel: str, about: tuple[Any, ...]) -> None:
        usual = path == self._base + rel
        for column, value in zip(self._open.values(), (name, None if usual else escape(path), *about)):
            column.append(value)
        self._ascending = self._ascending and (self._count == 0 or name > self._last)
        self._last = name
        self._count += 1
        if len(self._open["rel"]) == CHUNK:
            self._close_chunk()

    def _close_chunk(self) -> None:
        if self._open["rel"]:
            self._chunks.append(pa.record_batch(list(self._open.values()), schema=_SCHEMA))
            self._open = {name: [] for name in _SCHEMA.names}

    def sort(self) -> None:
        """Bring them into the order of their names (code points)."""
        self._close_chunk()
        if not self._ascending:
            table = self._table()
            table = table.take(pc.sort_indices(table["rel"]))
            self._chunks = table.combine_chunks().to_batches(max_chunksize=CHUNK)
        self._ascending = True

    def drop(self, prefixes: Sequence[str]) -> None:
        """Forget all whose name starts with one of the prefixes."""
        self._close_chunk()
        kept = []
        for chunk in self._chunks:
            names = chunk.column("rel").to_pylist()
            kept.append(chunk.filter(pa.array([not name.startswith(tuple(prefixes)) for name in names], pa.bool_())))
        self._chunks = [chunk for chunk in kept if chunk.num_rows]
        self._count = sum(chunk.num_rows for chunk in self._chunks)

    def _table(self) -> pa.Table:
        return pa.Table.from_batches(self._chunks, _SCHEMA)

    def chunks(self) -> Iterator[list[Entry]]:
        """All, a bounded number at a time."""
        self._close_chunk()
        for chunk in self._chunks:
            columns = [column.to_pylist() for column in chunk.columns]
            yield [self._entry(*values) for values in zip(*columns)]

    def names(self) -> Iterator[str]:
        """Names of the files with nothing wrong, without the records."""
        self._close_chunk()
        for chunk in self._chunks:
            yield from chunk.column("rel").filter(pc.equal(chunk.column("status"), 0)).to_pylist()

    def _entry(
        self, rel: str, path: str | None, size: int, mtime: float, etag: str | None, status: int, reason: str
    ) -> Entry:
        place = self.root.at(self._base + unescape(rel) if path is None else unescape(path))
        return Entry(rel, place, size, mtime, _STATUSES[status], reason, etag)

    def __iter__(self) -> Iterator[Entry]:
        for chunk in self.chunks():
            yield from chunk

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return list(self)[index]
        self._close_chunk()
        row = self._table().slice(range(len(self))[index], 1).to_pylist()[0]
        return self._entry(*row.values())

    @property
    def bytes(self) -> int:
        """Memory that the columns take."""
        self._close_chunk()
        return sum(chunk.get_total_buffer_size() for chunk in self._chunks)


@dataclass
class Found:
    """All of a walk: `entries` sorted by `rel`, `ignored` as in `Listing`; `lone`: the INPUT is this one file."""

    entries: Sequence[Entry] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    lone: bool = False

    def chunks(self) -> Iterator[Sequence[Entry]]:
        """The entries, a bounded number at a time."""
        if isinstance(self.entries, Entries):
            yield from self.entries.chunks()
        elif self.entries:
            yield self.entries

    def names(self) -> Iterator[str]:
        """Names of the entries with nothing wrong."""
        if isinstance(self.entries, Entries):
            return self.entries.names()
        return (entry.rel for entry in self.entries if entry.status == "ok")
