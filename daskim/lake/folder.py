"""What lies below a folder: every file once, in a fixed order, and nothing outside it."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from daskim.lake.names import RUN_MARK, escape, extension, split_of_folder
from daskim.lake.place import Place, etag_of, failure_of_store, mtime_of, size_of
from daskim.lake.rows import make_rows
from daskim.lake.signature import HEAD, IMAGE_EXTENSIONS, sniff

__all__ = ["Entry", "Found", "label_of", "list_folder", "walk"]


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


@dataclass
class Found:
    """All of a walk: `entries` sorted by `rel`, `ignored` as in `Listing`; `lone`: the INPUT is this one file."""

    entries: list[Entry] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    lone: bool = False


Progress = Callable[[int], None]


def walk(root: Place, progress: Progress | None = None) -> Found:
    """Every file below `root`, by the rules below.

    Hidden files, and all files below hidden folders, are counted, not listed. Links to folders are never followed
    (they may loop); a link to a file is followed when it resolves inside `root`, else its entry has status
    outside-source. FIFOs, sockets and devices have status not-a-file. A folder that cannot be listed is an entry
    whose name ends in "/". A folder named ``*.zarr`` is one entry. A folder below `root` that is a run of daskim (it
    holds a file `RUN_MARK`) is counted as a whole: a run may lie inside its own source.
    """
    found = _walk_local(root, progress) if root.fs is None else _walk_remote(root, progress)
    found.entries.sort(key=lambda entry: entry.rel)
    return found


def _walk_local(root: Place, progress: Progress | None) -> Found:
    found = Found()
    real_root = os.path.realpath(root.path)
    todo: list[tuple[str, str, bool]] = [(root.path, "", False)]
    while todo:
        folder, rel, hidden = todo.pop()
        try:
            with os.scandir(folder) as scan:
                items = list(scan)
        except OSError as error:
            if not rel:
                raise
            failure = failure_of_store(error)
            found.entries.append(Entry(escape(rel), root.at(folder), -1, float("nan"), failure.status, failure.reason))
            continue
        if rel and any(item.name == RUN_MARK for item in items):
            found.ignored["daskim-run"] += 1
            continue
        for item in items:
            inner, dark = rel + item.name, hidden or item.name.startswith(".")
            if item.is_dir(follow_symlinks=False) and not item.name.lower().endswith(".zarr"):
                todo.append((item.path, inner + "/", dark))
            elif dark:
                found.ignored["hidden"] += 1
            else:
                _add_local(found, root, real_root, item, inner)
        if progress is not None:
            progress(len(found.entries) + found.ignored.total())
    return found


def _add_local(found: Found, root: Place, real_root: str, item: os.DirEntry[str], rel: str) -> None:
    place, name = root.at(item.path), escape(rel)
    try:
        if item.is_symlink():
            target = os.path.realpath(item.path)
            inside = os.path.commonpath([real_root, target]) == real_root
            if not inside:
                if os.path.isdir(target):
                    found.ignored["directory-link"] += 1
                    return
                found.entries.append(
                    Entry(name, place, status="outside-source", reason="a link that leads out of its INPUT")
                )
                return
            place = root.at(target)
            about = os.stat(target)
            if stat.S_ISDIR(about.st_mode):
                found.ignored["directory-link"] += 1
                return
        else:
            about = item.stat(follow_symlinks=False)
    except OSError as error:
        failure = failure_of_store(error)
        found.entries.append(Entry(name, place, status=failure.status, reason=failure.reason))
        return
    if stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode):
        found.entries.append(Entry(name, place, about.st_size, about.st_mtime))
    else:
        found.entries.append(Entry(name, place, status="not-a-file", reason="a FIFO, socket or device: not opened"))


def _walk_remote(root: Place, progress: Progress | None) -> Found:
    found = Found()
    base = root.path.rstrip("/") + "/"
    groups: set[str] = set()
    listed = root.fs.find(root.path, detail=True)
    runs = tuple(
        path.removesuffix(RUN_MARK) for path in listed if path.endswith("/" + RUN_MARK) and path != base + RUN_MARK
    )
    found.ignored.update({"daskim-run": len(runs)} if runs else {})
    for path, entry in listed.items():
        if runs and path.startswith(runs):
            continue
        rel = path[len(base) :] if path.startswith(base) else path.lstrip("/")
        parts = rel.split("/")
        if not rel or rel.endswith("/"):
            continue  # object stores keep markers of empty folders
        if any(part.startswith(".") for part in parts) and ".zarr/" not in rel.lower():
            found.ignored["hidden"] += 1
            continue
        cut = next((i for i, part in enumerate(parts[:-1]) if part.lower().endswith(".zarr")), None)
        if cut is not None:
            group = "/".join(parts[: cut + 1])
            if group not in groups:
                groups.add(group)
                found.entries.append(Entry(escape(group), root.join(group)))
            continue
        found.entries.append(Entry(escape(rel), root.at(path), size_of(entry), mtime_of(entry), etag=etag_of(entry)))
        if progress is not None and len(found.entries) % 1000 == 0:
            progress(len(found.entries))
    return found


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
    keep = []
    bare = [e for e in found.entries if e.ext == "" and e.status == "ok" and e.bytes != 0]
    images = _images_among(bare)
    for entry in found.entries:
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
    if bare[0].place.fs is None:
        heads: list[bytes | None] = []
        for entry in bare:
            try:
                heads.append(entry.place.read(0, HEAD))
            except OSError:
                heads.append(None)
    else:
        paths = [entry.place.path for entry in bare]
        got = bare[0].place.fs.cat_ranges(paths, [0] * len(paths), [HEAD] * len(paths), on_error="return")
        heads = [bytes(head) if not isinstance(head, Exception) else None for head in got]
    # What cannot be read may well be an image: it becomes a row that says so.
    return {entry.rel for entry, head in zip(bare, heads) if head is None or sniff(head) is not None}


def rows_of_entries(entries: list[Entry], kind: str) -> pa.Table:
    """Rows for files that are one image each."""
    where = [label_of(entry.rel) for entry in entries]
    status = [entry.status for entry in entries]
    reason = [entry.reason for entry in entries]
    for index, entry in enumerate(entries):
        if entry.bytes == 0 and entry.status == "ok":
            status[index], reason[index] = "empty", "the file holds no bytes"
    urls = [entry.place.url for entry in entries]
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
        status=status,
        reason=reason,
    )
