"""What an INPUT is, by what it holds, and its rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from daskim.errors import DaskimError, SettingsError, SourceError
from daskim.lake import idx
from daskim.lake.entries import Entry, Found
from daskim.lake.failures import failure_of_store
from daskim.lake.folder import list_folder, walk
from daskim.lake.manifest import MANIFEST_EXTENSIONS, list_manifest
from daskim.lake.names import escape, extension
from daskim.lake.parquet import image_column, list_parquet
from daskim.lake.place import Place, etag_of, locate
from daskim.lake.signature import HEAD, IMAGE_EXTENSIONS, sniff
from daskim.lake.stacks import list_arrays, list_idx
from daskim.lake.webdataset import list_shards

__all__ = ["kind_of", "list_input"]

Progress = Callable[[int], None] | None
_MANIFESTS = MANIFEST_EXTENSIONS - {".parquet", ".pq"}
_EXPECTED = "Images, Parquet with an `image` column, .tar shards, .npy, .npz, Zarr or IDX are expected"


def list_input(
    given: str, format: str, options: Mapping[str, Any], progress: Progress
) -> tuple[pa.Table, Mapping[str, int]]:
    """Rows of one INPUT, and what was passed over, counted by extension."""
    place = locate(given, options)
    try:
        return _list_place(given, place, format, options, progress)
    except DaskimError:
        raise
    except OSError as error:
        raise _unreachable(given, error, place) from None
    except Exception as error:
        # Stores raise classes of their own (missing credentials, refused connections), not always OSError.
        if place.fs is None:
            raise
        raise _unreachable(given, error, place) from None


def _list_place(
    given: str, place: Place, format: str, options: Mapping[str, Any], progress: Progress
) -> tuple[pa.Table, Mapping[str, int]]:
    found = _find(given, place, progress)
    if format == "auto":
        format = _recognise(given, found)
    tables = _LISTERS[format](given, found, options, progress)
    if sum(table.num_rows for table in tables) == 0:
        raise SourceError(f"{given!r} holds no image ({_seen(found)})", _EXPECTED + ".")
    table = pa.concat_tables(tables)
    if format not in ("folder", "manifest"):
        _refuse_if_all_broken(given, table)
    return table, found.ignored


def _find(given: str, place: Place, progress: Progress) -> Found:
    """All files of the INPUT; one entry where it is a file or a Zarr hierarchy."""
    name = place.name
    if place.fs is None:
        place = Place(os.path.realpath(place.path))
    folder, size, mtime = place.info()
    if place.fs is None and not folder and not os.path.isfile(place.path):
        raise SourceError(f"{given!r} is a FIFO, socket or device", "Name a file or folder.")
    if folder and not _is_zarr(place):
        return walk(place, progress)
    etag = None if place.fs is None or folder else etag_of(place.entry())
    return Found([Entry(escape(name), place, size, mtime, etag=etag)], lone=True)


def _unreachable(given: str, error: Exception, place: Place) -> SourceError:
    failure = failure_of_store(error, place.secrets)
    if failure.status == "missing":
        return SourceError(f"{given!r} does not exist", "Check the path or URL, and --storage-option.")
    return SourceError(f"cannot read {given!r}: {failure.reason}", "Check permissions and --storage-option.")


def _is_zarr(place: Place) -> bool:
    return any(place.join(name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _refuse_if_all_broken(given: str, table: pa.Table) -> None:
    """A set of containers of which none can be read is an unreachable source, not a set of bad images."""
    bad = [name.endswith("/") for name in table["id"].to_pylist()]
    if all(bad):
        raise SourceError(f"cannot read {given!r}: {table['status'][0]}: {table['reason'][0]}", _EXPECTED + ".")


def kind_of(name: str) -> str:
    """The format that a file's name speaks for; "other" where it says nothing."""
    ext = extension(name)
    if ext in IMAGE_EXTENSIONS:
        return "folder"
    if ext in (".parquet", ".pq"):
        return "parquet"
    if ext in (".npy", ".npz", ".zarr"):
        return "array"
    base = name.rpartition("/")[2]
    if idx.is_idx_name(base):
        return "idx"
    if ext == ".tar" or base.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")):
        return "webdataset" if ext == ".tar" else "packed"
    return "manifest" if ext in _MANIFESTS else "other"


def _recognise(given: str, found: Found) -> str:
    if found.lone:
        return _recognise_file(given, found.entries[0])
    kinds = Counter(kind_of(name) for name in found.names())
    known = [kind for kind in ("folder", "parquet", "webdataset", "array", "idx") if kinds[kind]]
    if len(known) == 1:
        return known[0]
    if len(known) > 1:
        what = ", ".join(f"{kinds[kind]} files for {kind}" for kind in known)
        raise SettingsError(
            f"{given!r} is ambiguous: {what}", "Say which: " + " or ".join(f"--format {kind}" for kind in known) + "."
        )
    if any(entry.ext == "" for entry in found.entries) or any(
        entry.ext in IMAGE_EXTENSIONS or entry.rel.endswith("/") for entry in found.entries
    ):
        return "folder"  # files without extension are looked into there
    raise _nothing(given, found, kinds)


def _nothing(given: str, found: Found, kinds: Counter[str]) -> SourceError:
    hint = _EXPECTED + "; name the kind with --format."
    if kinds["packed"]:
        hint = "Compressed tars cannot be read by offset: unpack them to plain .tar, or to a folder."
    elif kinds["manifest"]:
        hint = "If the CSV or JSONL in it names images, give that file as INPUT, or --format manifest."
    return SourceError(f"{given!r} holds no image ({_seen(found)})", hint)


def _seen(found: Found) -> str:
    seen = Counter(entry.ext or "no extension" for entry in found.entries)
    seen.update({key or "no extension": count for key, count in found.ignored.items()})
    return ", ".join(f"{count} {ext}" for ext, count in seen.most_common(8)) or "it is empty"


def _recognise_file(given: str, entry: Entry) -> str:
    """The format of a lone file: by its name, a Parquet file by its columns, else by its first bytes."""
    kind = kind_of(entry.rel)
    if kind == "parquet":
        try:
            with entry.place.open() as file:
                schema = pq.ParquetFile(file).schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise _broken(given, error, entry.place) from None
        if image_column(schema, given) is not None:
            return "parquet"
        if {"file_name", "uri"} & set(schema.names):
            return "manifest"
        raise SourceError(
            f"{given!r} has neither an image column nor file_name or uri", "It has: " + ", ".join(schema.names) + "."
        )
    if kind == "packed":
        raise SourceError(
            f"{given!r} is a compressed tar: images in it cannot be read by offset", "Unpack it to plain .tar."
        )
    if kind != "other":
        return kind
    if entry.place.fs is None and os.path.isdir(entry.place.path):
        return "array"
    try:
        return _by_head(given, entry.place.read(0, 512))
    except OSError as error:
        if entry.rel.lower().endswith(".zarr") or _is_zarr(entry.place):
            return "array"
        raise _broken(given, error, entry.place) from None


def _broken(given: str, error: Exception, place: Place) -> SourceError:
    return SourceError(f"cannot read {given!r}: {failure_of_store(error, place.secrets).reason}", _EXPECTED + ".")


def _by_head(given: str, head: bytes) -> str:
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"\x93NUMPY":
        return "array"
    if head[257:262] == b"ustar":
        return "webdataset"
    if head[:3] == b"\x00\x00\x08" and head[3:4] in (b"\x03", b"\x04"):
        return "idx"
    if sniff(head[:HEAD]) is not None:
        return "folder"
    raise SourceError(f"{given!r} is not recognised; it starts with {head[:12]!r}", _EXPECTED + "; or use --format.")


def _list_folder(given: str, found: Found, options: Mapping[str, Any], progress: Progress) -> list[pa.Table]:
    return [list_folder(found)]


def _list_manifest(given: str, found: Found, options: Mapping[str, Any], progress: Progress) -> list[pa.Table]:
    root = [e for e in found.entries if "/" not in e.rel and e.status == "ok"]
    named = root if found.lone else [e for e in root if e.ext in MANIFEST_EXTENSIONS]
    if len(named) != 1:
        raise SettingsError(
            f"{given!r} holds {len(named)} files that may be the manifest",
            "Give the manifest file itself as INPUT. Seen: " + (", ".join(e.rel for e in named[:5]) or "none") + ".",
        )
    ext = named[0].ext if named[0].ext in MANIFEST_EXTENSIONS else ".csv"
    return [list_manifest(named[0].place, ext)]


def _containers(found: Found, kind: str) -> list[Entry]:
    """The entries of this kind; a lone file is taken at its word. The rest is counted as ignored."""
    if found.lone:
        return list(found.entries)
    chosen = []
    for entry in found.entries:
        if kind_of(entry.rel) == kind or (entry.status != "ok" and entry.rel.endswith("/")):
            chosen.append(entry)
        else:
            found.ignored[entry.ext] += 1
    return chosen


def _list_parquet(given: str, found: Found, options: Mapping[str, Any], progress: Progress) -> list[pa.Table]:
    return list_parquet(_containers(found, "parquet"), progress)


def _list_shards(given: str, found: Found, options: Mapping[str, Any], progress: Progress) -> list[pa.Table]:
    return list_shards(_containers(found, "webdataset"), found.ignored, progress)


def _list_idx(given: str, found: Found, options: Mapping[str, Any], progress: Progress) -> list[pa.Table]:
    return list_idx(_containers(found, "idx"), found.lone)


def _list_arrays(given: str, found: Found, options: Mapping[str, Any], progress: Progress) -> list[pa.Table]:
    return list_arrays(_containers(found, "array"), found.lone, options)


_LISTERS: dict[str, Callable[[str, Found, Mapping[str, Any], Progress], list[pa.Table]]] = {
    "folder": _list_folder,
    "manifest": _list_manifest,
    "parquet": _list_parquet,
    "webdataset": _list_shards,
    "array": _list_arrays,
    "idx": _list_idx,
}
