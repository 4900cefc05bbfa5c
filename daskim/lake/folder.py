"""What lies below a folder: every file once, in a fixed order, and nothing outside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

import pyarrow as pa

from daskim.lake.entries import Entries, Entry, Found
from daskim.lake.failures import failure_of_store
from daskim.lake.fetch import CONNECTIONS
from daskim.lake.names import RUN_MARK, escape, split_of_folder
from daskim.lake.place import Place
from daskim.lake.remote_walk import walk_remote
from daskim.lake.rows import make_rows
from daskim.lake.signature import HEAD, IMAGE_EXTENSIONS, sniff
from daskim.retry import READS

__all__ = ["label_of", "list_folder", "rows_of_entries", "walk"]


Progress = Callable[[int], None]


def walk(root: Place, progress: Progress | None = None) -> Found:
    """Every file below `root`, by the rules below.

    Hidden files, and all files below hidden folders, are counted, not listed. Links to folders are never followed
    (they may loop); a link to a file is followed when it resolves inside `root`, else its entry has status
    outside-source. FIFOs, sockets and devices have status not-a-file. A folder that cannot be listed is an entry
    whose name ends in "/". A folder named ``*.zarr`` is one entry. A folder below `root` that is a run of daskim (it
    holds a file `RUN_MARK`) is counted as a whole: a run may lie inside its own source.
    """
    found = _walk_local(root, progress) if root.fs is None else walk_remote(root, progress)
    assert isinstance(found.entries, Entries)
    found.entries.sort()
    return found


def _walk_local(root: Place, progress: Progress | None) -> Found:
    entries = Entries(root)
    found = Found(entries)
    real_root = os.path.realpath(root.path)
    todo: list[tuple[str, str, bool]] = [(root.path, "", False)]
    while todo:
        folder, rel, hidden = todo.pop()
        if rel and os.path.lexists(os.path.join(folder, RUN_MARK)):
            found.ignored["daskim-run"] += 1
            continue
        try:
            with os.scandir(folder) as scan:
                for item in scan:
                    inner, dark = rel + item.name, hidden or item.name.startswith(".")
                    if item.is_dir(follow_symlinks=False) and not item.name.lower().endswith(".zarr"):
                        todo.append((item.path, inner + "/", dark))
                    elif dark:
                        found.ignored["hidden"] += 1
                    else:
                        _add_local(found, root, real_root, item, inner)
        except OSError as error:
            if not rel:
                raise
            failure = failure_of_store(error)
            entries.add(Entry(escape(rel), root.at(folder), -1, float("nan"), failure.status, failure.reason))
        if progress is not None:
            progress(len(entries) + found.ignored.total())
    return found


def _add_local(found: Found, root: Place, real_root: str, item: os.DirEntry[str], rel: str) -> None:
    entry = _entry_of(found, root, real_root, item, rel)
    if entry is not None:
        assert isinstance(found.entries, Entries)
        found.entries.add(entry)


def _entry_of(found: Found, root: Place, real_root: str, item: os.DirEntry[str], rel: str) -> Entry | None:
    place, name = root.at(item.path), escape(rel)
    try:
        if item.is_symlink():
            target = os.path.realpath(item.path)
            inside = os.path.commonpath([real_root, target]) == real_root
            if not inside:
                if os.path.isdir(target):
                    found.ignored["directory-link"] += 1
                    return None
                return Entry(name, place, status="outside-source", reason="a link that leads out of its INPUT")
            place = root.at(target)
            about = os.stat(target)
            if stat.S_ISDIR(about.st_mode):
                found.ignored["directory-link"] += 1
                return None
        else:
            about = item.stat(follow_symlinks=False)
    except OSError as error:
        failure = failure_of_store(error)
        return Entry(name, place, status=failure.status, reason=failure.reason)
    if stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode):
        return Entry(name, place, about.st_size, about.st_mtime)
    return Entry(name, place, status="not-a-file", reason="a FIFO, socket or device: not opened")


def label_of(rel: str) -> tuple[str | None, str | None]:
    """(split, label) by the rule ``[split/]class/.../file``: the class is the first folder after the split."""
    split = split_of_folder(rel)
    parts = rel.split("/")[1:] if split else rel.split("/")
    return split, parts[0] if len(parts) > 1 else None


def list_folder(found: Found) -> pa.Table:
    """Rows of a folder of images; what is no image moves to `found.ignored`.

    Candidates are files with an image extension in any case, and files without an extension whose first bytes are
    those of an image. (A file with an image's extension that holds something else is a row, and a bad one.)
    """
    tables = [_rows_of_chunk(found, chunk) for chunk in found.chunks()]
    return pa.concat_tables(tables) if tables else make_rows(0, id=[], uri=[], format="folder", container=[])


def _rows_of_chunk(found: Found, chunk: Sequence[Entry]) -> pa.Table:
    keep = []
    images = _images_among([e for e in chunk if e.ext == "" and e.status == "ok" and e.bytes != 0])
    for entry in chunk:
        unlisted = entry.rel.endswith("/")
        if entry.ext in IMAGE_EXTENSIONS or unlisted or entry.rel in images:
            keep.append(entry)
        else:
            found.ignored[entry.ext] += 1
    return rows_of_entries(keep, "folder")


def _images_among(bare: list[Entry]) -> set[str]:
    """Names of the files whose first bytes are an image's."""
    if not bare:
        return set()
    fs = bare[0].place.fs
    heads: list[bytes | None] = []
    if fs is None:
        for entry in bare:
            try:
                heads.append(entry.place.read(0, HEAD))
            except OSError:
                heads.append(None)
    else:
        paths = [entry.place.path for entry in bare]
        bounded = {"batch_size": CONNECTIONS} if getattr(fs, "async_impl", False) else {}
        zeros, ends = [0] * len(paths), [HEAD] * len(paths)
        got = READS.call(fs.cat_ranges, paths, zeros, ends, on_error="return", **bounded)
        heads = [bytes(head[:HEAD]) if not isinstance(head, Exception) else None for head in got]
    # What cannot be read may well be an image: it becomes a row that says so.
    return {entry.rel for entry, head in zip(bare, heads) if head is None or sniff(head) is not None}


def rows_of_entries(entries: Sequence[Entry], kind: str) -> pa.Table:
    """Rows for files that are one image each."""
    where = [label_of(entry.rel) for entry in entries]
    status = [entry.status for entry in entries]
    reason = [entry.reason for entry in entries]
    for index, entry in enumerate(entries):
        if entry.bytes == 0 and entry.status == "ok":
            status[index], reason[index] = "empty", "the file holds no bytes"
    urls = pa.array([entry.place.url for entry in entries], pa.string())  # one array for both columns
    return make_rows(
        len(entries),
        id=[entry.rel for entry in entries],
        uri=urls,
        split=[pair[0] for pair in where],
        label=[pair[1] for pair in where],
        format=kind,
        container=urls,
        bytes=[entry.bytes for entry in entries],
        mtime=[entry.mtime for entry in entries],
        etag=[entry.etag for entry in entries],
        status=status if any(word != "ok" for word in status) else "ok",
        reason=reason if any(reason) else "",
    )
