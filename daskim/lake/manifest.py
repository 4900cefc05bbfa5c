"""Manifests: a CSV, TSV, JSON-lines or Parquet table that names images one by one.

Columns: ``file_name`` or ``uri``, and optionally ``label`` and ``split``; others are left alone.

* ``file_name`` is relative to the manifest's folder and must stay inside it, links resolved; else its row has
  status outside-source. An absolute URL (``scheme://``) is treated as a ``uri``.
* ``uri`` may be any URL, and, where the manifest itself is a local file, an absolute local path or ``file://``
  URL. A manifest that lies on a remote store cannot make us read local files: outside-source. A relative ``uri``
  is a ``file_name``. What fsspec would do more than read for, such as to follow a set of references, is unsupported.
* ``daskim_id``, where a manifest has it, is the id of the image, and ``file_name`` and ``uri`` are then in stored form
  (`daskim.lake.names`): so `daskim.jobs.apply` writes them.
* ``--storage-option`` is used for every URL that a local manifest names. A manifest that lies on a remote store
  gets it only for URLs of its own protocol: the others are read without (`NO_OPTIONS` in column ``member``).
"""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import get_protocol

from daskim.errors import SourceError
from daskim.lake.entries import CHUNK, Entry
from daskim.lake.failures import failure_of_store
from daskim.lake.folder import rows_of_entries
from daskim.lake.names import escape, unescape
from daskim.lake.place import Place, is_local, locate
from daskim.remote import refuse_credentials

__all__ = ["MANIFEST_EXTENSIONS", "NO_OPTIONS", "list_manifest", "manifest_columns"]

MANIFEST_EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq"})
NO_OPTIONS = "without-options"
_NAMES = ("file_name", "uri", "label", "split", "daskim_id")
_LOCAL = frozenset({"file", "local"})
# What a manifest may name: stores of files, and archives in them. Left out are protocols that interpret what they read,
# as a set of references to other files does, and caches, which write.
_STORES = frozenset(["http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "webhdfs", "hf"])
_STORES |= frozenset(["ftp", "sftp", "ssh", "smb", "oci", "oss", "memory", "zip", "tar"])
Table = dict[str, list[str | None]]


def list_manifest(place: Place, ext: str) -> pa.Table:
    """Rows for the images that the manifest at `place` names, in its order.

    Raises
    ------
    SourceError
        It cannot be read, or has neither ``file_name`` nor ``uri``.
    """
    folder, tables, row = _Folder(place.parent()), [], 0
    for batch in _batches(place, ext):
        tables.append(_rows(place, folder, batch, row))
        row += tables[-1].num_rows
    return pa.concat_tables(tables)


def _rows(place: Place, folder: _Folder, table: Table, first: int) -> pa.Table:
    """Rows of some lines of a manifest; `first` is the number of the first one."""
    count = len(next(iter(table.values())))
    nothing: list[str | None] = [None] * count
    names, uris = table.get("file_name", nothing), table.get("uri", nothing)
    if "daskim_id" in table:
        names, uris = ([None if text is None else unescape(text) for text in texts] for texts in (names, uris))
    entries = [_entry(place, folder, name, uri, row) for row, (name, uri) in enumerate(zip(names, uris), first)]
    rows = rows_of_entries(entries, "manifest")
    given = table.get("daskim_id", nothing)
    ids = [entry.rel if own is None else escape(unescape(own)) for own, entry in zip(given, entries)]
    bare = [NO_OPTIONS if _is_strange(place, entry.place) else None for entry in entries]
    for column, values in (
        ("id", ids),
        ("label", table.get("label", nothing)),
        ("split", table.get("split", nothing)),
        ("member", bare),
    ):
        index = rows.schema.get_field_index(column)
        rows = rows.set_column(index, column, pa.array(values, pa.string()))
    return rows


def _is_strange(manifest: Place, place: Place) -> bool:
    """Whether a URL in a remote manifest leads to another kind of store."""
    return (
        manifest.fs is not None
        and isinstance(place, Foreign)
        and get_protocol(place.path) != get_protocol(manifest.url)
    )


def manifest_columns(place: Place, ext: str) -> Table:
    """The columns that matter, as text; empty text is None."""
    batches = list(_batches(place, ext))
    return {name: [text for batch in batches for text in batch[name]] for name in batches[0]}


def _batches(place: Place, ext: str) -> Iterator[Table]:
    """`manifest_columns` of at most `CHUNK` lines after another; one of no lines where there are none."""
    try:
        if ext in (".parquet", ".pq"):
            yield from _read_parquet(place)
        elif ext in (".csv", ".tsv"):
            with _text_of(place) as text:
                yield from _read_csv(text, "\t" if ext == ".tsv" else ",", place.url)
        else:
            with _text_of(place) as text:
                table = _read_lines(text.read(), place.url)
            count = len(next(iter(table.values())))
            for start in range(0, max(1, count), CHUNK):
                yield {name: values[start : start + CHUNK] for name, values in table.items()}
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        failure = failure_of_store(error, place.secrets)
        raise SourceError(f"cannot read the manifest {place.url}: {failure.reason}") from None


def _text_of(place: Place) -> io.TextIOWrapper:
    """The manifest as text: a local one line by line, one of a store as a whole."""
    if place.fs is None:
        return io.TextIOWrapper(place.open(), encoding="utf-8-sig", newline="")
    with place.open() as file:
        return io.TextIOWrapper(io.BytesIO(file.read()), encoding="utf-8-sig", newline="")


def _check(header: Iterable[str], where: str) -> None:
    header = list(header)
    if "file_name" not in header and "uri" not in header:
        raise SourceError(
            f"the manifest {where} has neither a file_name nor a uri column",
            "It has: " + (", ".join(header) or "no column") + ".",
        )


def _read_csv(text: Iterable[str], delimiter: str, where: str) -> Iterator[Table]:
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(reader, [])]
    _check(header, where)
    at = {name: header.index(name) for name in header if name in _NAMES}
    rows = (row for row in reader if row)
    batch = list(islice(rows, CHUNK))
    while True:
        yield {
            name: [row[index] if index < len(row) and row[index] != "" else None for row in batch]
            for name, index in at.items()
        }
        batch = list(islice(rows, CHUNK))
        if not batch:
            return


def _read_lines(text: str, where: str) -> Table:
    records: list[dict[str, Any]] = []
    names: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"line {number} of {where} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise SourceError(f"line {number} of {where} is not a JSON object")
        records.append(record)
        names.update(record)
    _check(sorted(names), where)
    return {name: [_text(record.get(name)) for record in records] for name in _NAMES if name in names}


def _read_parquet(place: Place) -> Iterator[Table]:
    with place.open() as file:
        parquet = pq.ParquetFile(file)
        header = parquet.schema_arrow.names
        _check(header, place.url)
        names = [name for name in _NAMES if name in header]
        none = parquet.schema_arrow.empty_table().select(names).to_batches() or [
            pa.RecordBatch.from_pylist([], parquet.schema_arrow).select(names)
        ]
        batches = parquet.iter_batches(batch_size=CHUNK, columns=names) if parquet.metadata.num_rows else none
        for batch in batches:
            yield {name: [_text(value) for value in batch.column(name).to_pylist()] for name in names}


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return None if value is None or value == "" else str(value)


class _Folder:
    """The folder of a manifest, which knows the real places of the folders below it: each is resolved once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.root = os.path.realpath(place.path) if place.fs is None else ""
        self._within = self.root if self.root.endswith(os.sep) else self.root + os.sep
        self._real: dict[str, str] = {}

    def regular(self, rel: str) -> tuple[str, int, float] | None:
        """(real path, size, mtime) of a regular file inside the folder that is no link; None for anything else."""
        above, _, name = rel.rpartition("/")
        if name in ("", ".", ".."):
            return None
        real = self._real.get(above)
        if real is None:
            if len(self._real) >= CHUNK:
                self._real.clear()
            real = self._real[above] = os.path.join(os.path.realpath(self.place.join(above).path), "")
        target = real + name
        try:
            found = os.lstat(target)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode) or not target.startswith(self._within):
            return None
        return target, found.st_size, found.st_mtime


def _entry(place: Place, folder: _Folder, name: str | None, uri: str | None, row: int) -> Entry:
    given = name or uri
    if given is None:
        return Entry(
            f"{escape(place.name)}#{row:08d}", place, status="missing", reason="neither file_name nor uri is given"
        )
    if "://" in given or (given is uri and not name and os.path.isabs(given)):
        return _entry_of_uri(place, given)
    rel = posixpath.normpath(given.replace("\\", "/") if os.sep == "\\" else given)
    if rel.startswith("../") or rel == ".." or posixpath.isabs(rel):
        return Entry(escape(given), place, status="outside-source", reason="leads out of the manifest's folder")
    if folder.place.fs is not None:
        return Entry(escape(rel), folder.place.join(rel))
    found = folder.regular(rel)
    if found is not None:
        return Entry(escape(rel), folder.place.at(found[0]), found[1], found[2])
    return _odd(folder, folder.place.join(rel), escape(rel))


def _odd(folder: _Folder, place: Place, rel: str) -> Entry:
    """A name that does not lead straight to a regular file."""
    target = os.path.realpath(place.path)
    if os.path.commonpath([folder.root, target]) != folder.root:
        return Entry(rel, place, status="outside-source", reason="a link that leads out of the manifest's folder")
    return _stat_local(place.at(target), rel)


def _stat_local(place: Place, rel: str) -> Entry:
    try:
        folder, size, mtime = place.info()
    except (OSError, ValueError) as error:
        failure = failure_of_store(error)
        return Entry(rel, place, status=failure.status, reason=failure.reason)
    if folder or not os.path.isfile(place.path):
        return Entry(rel, place, status="not-a-file", reason="not a regular file")
    return Entry(rel, place, size, mtime)


def _entry_of_uri(manifest: Place, uri: str) -> Entry:
    """An absolute URI; a remote one is opened when it is read, by its own protocol."""
    refuse_credentials(uri)
    protocols = _protocols(uri)
    if not _LOCAL.isdisjoint(protocols) and manifest.fs is not None:
        reason = "a local path in a manifest that is not local"
        return Entry(escape(uri), manifest, status="outside-source", reason=reason)
    for protocol in protocols:
        if protocol not in _LOCAL | _STORES and protocol != get_protocol(manifest.url):
            reason = f"{protocol}:// is not read because a manifest says so: give such a URL as INPUT"
            return Entry(escape(uri), manifest, status="unsupported", reason=reason)
    if not is_local(uri):
        return Entry(escape(uri), Foreign(uri))
    path = os.path.realpath(locate(uri).path)
    return _stat_local(Place(path), escape(uri))


def _protocols(uri: str) -> list[str]:
    """What fsspec would open to read a URI: one protocol for each part of a chain (``zip://a.png::s3://b/c.zip``)."""
    *outer, last = uri.split("::")
    return [get_protocol(part) if "://" in part else part for part in outer] + [get_protocol(last)]


class Foreign(Place):
    """A URL on another store than the manifest's, not opened while listing."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)

    @property
    def url(self) -> str:
        """The URL as given, in stored form."""
        return escape(self.path)
