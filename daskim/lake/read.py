"""The bytes, or the array, of each row of a listing: in order, in bounded batches, failures as data."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from daskim.errors import DaskimError
from daskim.lake.arrays import open_array
from daskim.lake.cache import SHARED
from daskim.lake.failures import failure_of_store
from daskim.lake.fetch import Answer, StoreDown, Wanted, fetch, refuse_if_down
from daskim.lake.idx import open_idx
from daskim.lake.manifest import NO_OPTIONS
from daskim.lake.parquet import read_parquet
from daskim.lake.place import Place, batches, is_local, locate
from daskim.lake.records import Failure, Raw
from daskim.lake.rowsource import plan_ranges
from daskim.remote import secrets_of
from daskim.retry import GaveUp

__all__ = ["read_images"]

_COLUMNS = ("format", "container", "item", "member", "bytes", "mtime", "etag", "status", "reason")
_FILES = ("folder", "manifest")


@dataclass(frozen=True)
class _Run:
    """Consecutive rows that one reader serves; lists are parallel."""

    format: str
    containers: list[str]
    items: list[int]
    members: list[str | None]
    sizes: list[int]
    etags: list[str | None]
    mtime: float
    options: Mapping[str, Any]
    max_bytes: int

    @property
    def place(self) -> Place:
        place = locate(self.containers[0], _options_for(self.containers[0], self.options), stored=True)
        return place.pinned(self.etags[0], self.mtime)

    @property
    def token(self) -> tuple[Any, ...]:
        """What tells this version of the container, as seen with these options, from another."""
        return self.containers[0], repr(self.mtime), self.etags[0], hash(repr(sorted(self.options.items(), key=str)))


def read_images(
    rows: pa.Table, storage_options: Mapping[str, Any] | None = None, *, max_bytes: int | None = None
) -> Iterator[Raw]:
    """What each row holds, in row order.

    Parameters
    ----------
    rows : pyarrow.Table
        A slice of `Listing.table`.
    storage_options : mapping, optional
        For fsspec.
    max_bytes : int, optional
        Larger files are not read, but reported as too-large.

    Yields
    ------
    bytes, numpy.ndarray or Failure
        A file's bytes; a raw array (h, w) or (h, w, c); or why there is neither. Nothing is raised for an image
        or container that cannot be read. Memory: one batch of at most 256 files and about 64 MB, or one row
        group, or one unpacked array.

    Raises
    ------
    StoreDown
        A store that answers nothing at all, after a minute of trying.
    """
    columns = {name: rows.column(name).to_pylist() for name in _COLUMNS}
    bound = max_bytes if max_bytes is not None else 1 << 62
    keys = list(zip(columns["format"], columns["container"], columns["member"]))
    for index, key in enumerate(keys):
        if key[0] in _FILES:
            keys[index] = (key[0], "", None)
        elif key[0] == "webdataset":
            keys[index] = (key[0], key[1], None)
    edges = [0, *(i for i in range(1, len(keys)) if keys[i] != keys[i - 1]), len(keys)]
    for start, stop in pairwise(edges):
        if start < stop:
            yield from _read_span(columns, start, stop, storage_options or {}, bound)


def _read_span(
    columns: dict[str, list[Any]], start: int, stop: int, options: Mapping[str, Any], bound: int
) -> Iterator[Raw]:
    """Rows [start, stop) of one run: known failures in their places, the rest from the run's reader."""
    known: list[Failure | None] = []
    for index in range(start, stop):
        if columns["status"][index] != "ok":
            known.append(Failure(columns["status"][index], columns["reason"][index]))
        elif columns["bytes"][index] > bound:
            known.append(Failure("too-large", f"{columns['bytes'][index]} bytes are more than {bound}"))
        else:
            known.append(None)
    wanted = [start + i for i, failure in enumerate(known) if failure is None]
    run = _Run(
        columns["format"][start],
        [columns["container"][i] for i in wanted],
        [columns["item"][i] for i in wanted],
        [columns["member"][i] for i in wanted],
        [columns["bytes"][i] for i in wanted],
        [columns["etag"][i] for i in wanted],
        columns["mtime"][start],
        options,
        bound,
    )
    got = _guarded(run, len(wanted))
    for failure in known:
        yield failure if failure is not None else next(got)


def _guarded(run: _Run, count: int) -> Iterator[Raw]:
    """Exactly `count` answers of the run's reader; after an exception the rest are failures."""
    done = 0
    failure = Failure("truncated", "the container holds fewer images than were listed")
    try:
        for raw in _READERS[run.format](run) if count else ():
            yield raw
            done += 1
    except (GeneratorExit, StoreDown):
        raise
    except Exception as error:
        if isinstance(error, GaveUp):
            refuse_if_down(run.place.fs, run.place.path, error, secrets_of(run.options))
        failure = _failure(error, run.options)
    for _ in range(done, count):
        yield failure


def _failure(error: Exception, options: Mapping[str, Any]) -> Failure:
    if isinstance(error, pa.ArrowException):
        return Failure("corrupt", failure_of_store(error).reason)
    if isinstance(error, DaskimError):
        return Failure("corrupt", error.what)
    return failure_of_store(error, secrets_of(options))


def _options_for(url: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if is_local(url) else options


def _read_files(run: _Run) -> Iterator[Raw]:
    for start, stop in batches(run.sizes):
        group = run.containers[start:stop]
        remote = [i for i, url in enumerate(group) if not is_local(url)]
        answers = dict(zip(remote, _fetch(run, [start + i for i in remote])))
        for i, url in enumerate(group):
            if i not in answers:
                yield _read_local(url, run.sizes[start + i], run.max_bytes)
                continue
            answer = answers.pop(i)
            yield answer() if callable(answer) else answer


def _read_local(url: str, size: int, max_bytes: int) -> bytes | Failure:
    try:
        data = locate(url, stored=True).read(0, max_bytes + 1)
        if 0 <= size != len(data) <= max_bytes:
            return Failure("changed", f"{size} bytes when it was listed, {len(data)} now")
        return _bounded(data, max_bytes)
    except (OSError, MemoryError, ValueError) as error:
        return failure_of_store(error)


def _bounded(data: bytes, max_bytes: int) -> bytes | Failure:
    if len(data) > max_bytes:
        return Failure("too-large", f"more than {max_bytes} bytes")
    return data


def _fetch(run: _Run, rows: Sequence[int]) -> list[Answer]:
    """Remote files, store by store."""
    answers: list[Answer] = [Failure("read-error", "not asked")] * len(rows)
    stores: dict[int, tuple[Place, list[int], list[Wanted]]] = {}
    for index, row in enumerate(rows):
        options = {} if run.members[row] == NO_OPTIONS else run.options
        try:
            place = locate(run.containers[row], options, stored=True)
        except DaskimError as error:
            answers[index] = Failure("unsupported", error.what)
            continue
        _, indexes, wanted = stores.setdefault(id(place.fs), (place, [], []))
        indexes.append(index)
        wanted.append(Wanted(place.path, run.sizes[row], run.etags[row]))
    for place, indexes, wanted in stores.values():
        for index, answer in zip(indexes, fetch(place.fs, wanted, run.max_bytes, place.secrets)):
            answers[index] = answer
    return answers


def _read_shard(run: _Run) -> Iterator[Raw]:
    place = run.place
    for start, stop in batches(run.sizes):
        offsets, sizes = run.items[start:stop], run.sizes[start:stop]
        for first, last, served in plan_ranges(offsets, sizes):
            data = place.read(first, last)
            for index in served:
                at = offsets[index] - first
                piece = data[at : at + sizes[index]]
                if len(piece) < sizes[index]:
                    yield Failure("truncated", "the shard ends inside this member")
                else:
                    yield piece


def _read_parquet(run: _Run) -> Iterator[Raw]:
    def read_path(folder: Place, path: str) -> bytes | Failure:
        rel = posixpath.normpath(path)
        if rel.startswith("../") or rel == ".." or posixpath.isabs(rel) or "://" in path:
            return Failure("outside-source", f"the path {path!r} leads out of the Parquet file's folder")
        target = folder.join(rel)
        try:
            if target.fs is None:
                real, root = os.path.realpath(target.path), os.path.realpath(folder.path)
                if os.path.commonpath([real, root]) != root:
                    return Failure("outside-source", f"the link {path!r} leads out of the Parquet file's folder")
                target = target.at(real)
            return _bounded(target.read(0, min(run.max_bytes + 1, 1 << 40)), run.max_bytes)
        except (OSError, ValueError) as error:
            return failure_of_store(error, folder.secrets)

    for data in read_parquet(run.place, run.members[0] or "image", run.items, run.token, read_path):
        yield _bounded(data, run.max_bytes) if isinstance(data, bytes) else data


def _read_array(run: _Run) -> Iterator[Raw]:
    place, member = run.place, run.members[0]
    source = SHARED.get(("array", *run.token, member), lambda: (open_array(place, member, run.options), 10_000))
    yield from source.rows(run.items)


def _read_idx(run: _Run) -> Iterator[Raw]:
    place = run.place
    source = SHARED.get(("idx", *run.token), lambda: (open_idx(place), 10_000))
    yield from source.rows(run.items)


_READERS = {
    "folder": _read_files,
    "manifest": _read_files,
    "webdataset": _read_shard,
    "parquet": _read_parquet,
    "array": _read_array,
    "idx": _read_idx,
}
