"""Parquet files with image bytes: one row a picture, read by row group and only the columns that matter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from daskim.errors import SettingsError, SourceError
from daskim.lake.cache import SHARED
from daskim.lake.entries import Entry
from daskim.lake.failures import failure_of_store
from daskim.lake.names import escape, split_of_prefix, unescape
from daskim.lake.place import Place
from daskim.lake.records import Failure
from daskim.lake.rows import broken_rows, make_rows

__all__ = ["image_column", "list_parquet", "read_parquet"]

_BINARY_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "bytes")
_GROUP_BOUND = 128_000_000  # uncompressed bytes of a row group that is kept whole; larger ones are streamed
_STREAM_ROWS = 64
_AHEAD = 4_000_000  # bytes that a store is asked for beyond a small read of a large row group


def image_column(schema: pa.Schema, where: str = "") -> str | None:
    """Name of the column that holds the images, or None.

    That is ``image``, or else the only struct with a binary field ``bytes``, or else the only binary column with
    a usual name.

    Raises
    ------
    SettingsError
        Several columns would do.
    """
    structs = [f.name for f in schema if _is_struct(f.type)]
    binaries = [f.name for f in schema if _is_binary(f.type)]
    if "image" in structs or "image" in binaries:
        return "image"
    for found in (structs, [name for name in binaries if name.lower() in _BINARY_NAMES]):
        if len(found) > 1:
            raise SettingsError(
                f"{where or 'the Parquet file'} has several image columns: " + ", ".join(found),
                "Name the one to use `image`.",
            )
        if found:
            return found[0]
    return None


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)


def list_parquet(entries: Iterable[Entry], progress: Callable[[int], None] | None = None) -> list[pa.Table]:
    """Rows of each file; image bytes are not read. A file that cannot be read is one row with a status.

    The id is the column ``daskim_id`` (which `daskim.jobs.apply` writes), else ``image.path``, or where that is null
    the file's name, "#" and the row. The label is the ``label`` column as text; with a ClassLabel in the "huggingface"
    schema metadata, its names (and -1 is no label).
    """
    tables, done = [], 0
    for entry in entries:
        if entry.status != "ok":
            tables.append(broken_rows(entry.rel, entry.place.url, "parquet", entry.status, entry.reason))
            continue
        try:
            tables.append(_list_file(entry))
        except (OSError, pa.ArrowException, ValueError) as error:
            failure = failure_of_store(error, entry.place.secrets)
            status = "corrupt" if isinstance(error, pa.ArrowException) else failure.status
            tables.append(
                broken_rows(entry.rel, entry.place.url, "parquet", status, failure.reason, entry.mtime, entry.etag)
            )
        done += tables[-1].num_rows
        if progress is not None:
            progress(done)
    return tables


def _list_file(entry: Entry) -> pa.Table:
    with entry.place.open() as file:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        column = image_column(schema, entry.place.url)
        if column is None:
            raise SourceError(
                f"{entry.place.url} has no image column (image {{bytes, path}} or binary)",
                "It has: " + ", ".join(schema.names) + ".",
            )
        wanted = [name for name in ("label", "split", "daskim_id") if name in schema.names and name != column]
        kind = schema.field(column).type
        paths = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        table = parquet.read(columns=wanted + ([f"{column}.path"] if paths else []))
        count = parquet.metadata.num_rows
    ids = _ids(entry.rel, table[column] if paths else None, count)
    if "daskim_id" in wanted:
        given = _strings(table["daskim_id"]).to_pylist()
        ids = [own if text is None else escape(unescape(text)) for own, text in zip(ids, given)]
    url = entry.place.url
    split = _strings(table["split"]) if "split" in wanted else split_of_prefix(entry.rel)
    label = _labels(table["label"], schema) if "label" in wanted else None
    return make_rows(
        count,
        id=ids,
        uri=[f"{url}#{row}" for row in range(count)],
        label=label,
        split=split,
        format="parquet",
        container=url,
        item=np.arange(count, dtype=np.int64),
        member=column,
        mtime=entry.mtime,
        etag=entry.etag,
    )


def _ids(rel: str, structs: pa.ChunkedArray | None, count: int) -> list[str]:
    given = [None] * count
    if structs is not None:
        given = [row["path"] if row else None for row in structs.to_pylist()]
    return [escape(path) if path else f"{rel}#{row:08d}" for row, path in enumerate(given)]


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_binary(column.type) or pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([_text(v) for v in column.to_pylist()], pa.string())])
    return column.cast(pa.string())


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if value is None else str(value)


def _labels(column: pa.ChunkedArray, schema: pa.Schema) -> pa.ChunkedArray:
    names = _class_names(schema)
    if names is None or not pa.types.is_integer(column.type):
        return _strings(column)
    values = [names[v] if v is not None and 0 <= v < len(names) else _beyond(v) for v in column.to_pylist()]
    return pa.chunked_array([pa.array(values, pa.string())])


def _beyond(value: int | None) -> str | None:
    return None if value is None or value == -1 else str(value)


def _class_names(schema: pa.Schema) -> list[str] | None:
    """Names of a ClassLabel ``label``, as the `datasets` library stores them in the schema's metadata."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        feature = about["info"]["features"]["label"]
        names = feature["names"] if feature.get("_type") == "ClassLabel" else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def read_parquet(
    place: Place,
    column: str,
    items: Sequence[int],
    token: tuple[Any, ...],
    read_path: Callable[[Place, str], bytes | Failure],
) -> Iterator[bytes | Failure]:
    """The bytes of rows `items` of one file, in that order.

    Consecutive calls for rows of one row group decode it once: it is kept in the process's shared cache, unless
    it is larger than 128 MB, and then it is streamed for each call.

    Parameters
    ----------
    place, column : the file and its image column
    items : rows
    token : what tells this version of the file from another (part of the cache's key)
    read_path : how to read a file, given a folder and the ``image.path`` of a row without bytes
    """
    footer = SHARED.get(("footer", *token), lambda: _footer(place))
    starts = np.cumsum([0] + [footer.row_group(g).num_rows for g in range(footer.num_row_groups)])
    groups = np.searchsorted(starts, items, side="right") - 1
    for first, last in _runs(groups):
        group = int(groups[first])
        local = [item - int(starts[group]) for item in items[first:last]]
        if group >= footer.num_row_groups:
            yield from (Failure("truncated", "the file has fewer rows than were listed") for _ in local)
            continue
        for data, path in _rows_of_group(place, footer, column, group, local, token):
            if data is not None:
                yield data
            elif path:
                yield read_path(place.parent(), path)
            else:
                yield Failure("missing", "the row has neither bytes nor a path")


def _runs(groups: np.ndarray) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(groups)) + 1
    bounds = [0, *edges.tolist(), len(groups)]
    return pairwise(bounds) if len(groups) else iter(())


def _footer(place: Place) -> tuple[pq.FileMetaData, int]:
    with place.open() as file:
        footer = pq.ParquetFile(file).metadata
    place.verify()
    return footer, footer.serialized_size * 4


def _rows_of_group(
    place: Place, footer: pq.FileMetaData, column: str, group: int, local: list[int], token: tuple[Any, ...]
) -> Iterator[tuple[bytes | None, str | None]]:
    about = footer.row_group(group)
    size = sum(
        about.column(c).total_uncompressed_size
        for c in range(about.num_columns)
        if about.column(c).path_in_schema.partition(".")[0] == column
    )
    if size <= _GROUP_BOUND:
        data, paths = SHARED.get(
            ("group", *token, column, group), lambda: (_load_group(place, footer, column, group), size)
        )
        for row in local:
            yield data[row].as_py(), None if paths is None else paths[row].as_py()
        return
    yield from _stream_group(place, footer, column, group, local)


def _load_group(place: Place, footer: pq.FileMetaData, column: str, group: int) -> tuple[Any, Any]:
    with place.open() as file:
        table = pq.ParquetFile(file, metadata=footer).read_row_group(group, columns=[column], use_threads=False)
    place.verify()
    return _split_column(table[column])


def _split_column(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """(bytes, paths or None) as arrays of Arrow scalars; paths only where some bytes are null."""
    if not pa.types.is_struct(column.type):
        return _joined(column), None
    data = pc.struct_field(column, "bytes")
    has_path = column.type.get_field_index("path") >= 0
    paths = pc.struct_field(column, "path") if has_path and data.null_count else None
    return _joined(data), paths


def _joined(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column


def _stream_group(
    place: Place, footer: pq.FileMetaData, column: str, group: int, local: list[int]
) -> Iterator[tuple[bytes | None, str | None]]:
    """Rows of a group too large to keep: decoded in small batches up to the last one that is wanted.

    `local` is in any order; only the wanted rows are held.
    """
    wanted, at = set(local), 0
    found: dict[int, tuple[bytes | None, str | None]] = {}
    with place.open(ahead=_AHEAD) as file:
        parquet = pq.ParquetFile(file, metadata=footer)
        order = iter(local)
        due = next(order, None)
        take = found.pop if len(wanted) == len(local) else found.__getitem__
        for batch in parquet.iter_batches(
            batch_size=_STREAM_ROWS, row_groups=[group], columns=[column], use_threads=False
        ):
            place.verify()
            data, paths = _split_column(pa.chunked_array([batch.column(0)]))
            for row in range(len(batch)):
                if at + row in wanted:
                    found[at + row] = (data[row].as_py(), None if paths is None else paths[row].as_py())
            at += len(batch)
            while due is not None and due in found:
                yield take(due)
                due = next(order, None)
            if due is None:
                return
