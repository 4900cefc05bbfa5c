"""What lies below a prefix of a store: page by page where the store has pages, else folder by folder.

Nothing of a page or folder stays in memory but the columns of `Entries`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit

from daskim.lake.entries import Entries, Entry, Found
from daskim.lake.failures import failure_of_store
from daskim.lake.fetch import CONNECTIONS
from daskim.lake.names import RUN_MARK, escape
from daskim.lake.place import Place, etag_of, mtime_of, size_of
from daskim.retry import READS

__all__ = ["walk_remote"]

_DEPTH = 100
Info = Mapping[str, Any]


def walk_remote(root: Place, progress: Callable[[int], None] | None = None) -> Found:
    """Every file below `root`, by the rules of `daskim.lake.folder.walk`; not sorted."""
    walk = _Walk(root, progress)
    names = {root.fs.protocol} if isinstance(root.fs.protocol, str) else set(root.fs.protocol)
    if "s3" in names and not getattr(root.fs, "version_aware", False):
        for info in _pages(root):
            walk.take(_rel(root, str(info["name"])), info)
        walk.forget_runs()
    else:
        walk.folder(root.path, "", 0)
    return walk.found


def _rel(root: Place, path: str) -> str:
    base = root.path.rstrip("/") + "/"
    return path[len(base) :] if path.startswith(base) else path.lstrip("/")


def _pages(root: Place) -> Iterator[Info]:
    """Objects below a prefix of S3, by pages of a thousand, in the order of their names."""
    bucket, key, _ = root.fs.split_path(root.path)
    prefix = key.rstrip("/") + "/" if key else ""
    more: dict[str, str] = {}
    while True:
        page = READS.call(root.fs.call_s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        for item in page.get("Contents", ()):
            yield {**item, "name": f"{bucket}/{item['Key']}", "size": item["Size"]}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


class _Walk:
    """The state of one walk."""

    def __init__(self, root: Place, progress: Callable[[int], None] | None) -> None:
        self.root, self.progress = root, progress
        self.entries = Entries(root)
        self.found = Found(self.entries)
        self.runs: list[str] = []
        self.group = ""  # the Zarr hierarchy that the names are in

    def take(self, rel: str, info: Info, *, runs: bool = True) -> None:
        """One file."""
        if not rel or rel.endswith("/"):
            return  # object stores keep markers of empty folders
        folder, _, name = rel.rpartition("/")
        if runs and name == RUN_MARK and folder:
            self.runs.append(folder + "/")
            self.found.ignored["daskim-run"] += 1
        if self.runs and rel.startswith(tuple(self.runs)):
            return
        if self.group and rel.startswith(self.group):
            return
        cut = rel.lower().find(".zarr/")
        if cut >= 0:
            self._group(rel[: cut + len(".zarr")])
        elif rel.startswith(".") or "/." in rel:
            self.found.ignored["hidden"] += 1
        else:
            self.entries.add_file(rel, str(info["name"]), size_of(info), mtime_of(info), etag_of(info))
            self._tell()

    def _group(self, rel: str) -> None:
        """A Zarr hierarchy: one entry."""
        self.group = rel + "/"
        self.entries.add_file(rel, self.root.join(rel).path, -1, float("nan"))
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None and len(self.entries) % 1000 == 0:
            self.progress(len(self.entries))

    def forget_runs(self) -> None:
        """What sorts before a run's mark was taken for images."""
        if self.runs:
            self.entries.drop([escape(run) for run in self.runs])

    def folder(self, path: str, rel: str, depth: int) -> None:
        """All below one folder, in the order of the names."""
        try:
            listed = READS.call(self.root.fs.ls, path, detail=True)
        except Exception as error:
            if not rel:
                raise
            failure = failure_of_store(error, self.root.secrets)
            place = self.root.at(path)
            self.entries.add(Entry(escape(rel), place, status=failure.status, reason=failure.reason))
            return
        items = sorted(self._below(path, rel, listed), key=lambda item: item[0])
        if rel and any(name == rel + RUN_MARK for name, _ in items):
            self.found.ignored["daskim-run"] += 1
            return
        if self.root.web:
            items = _asked(self.root.fs, items)
        for name, info in items:
            if not name.endswith("/"):
                self.take(name, info, runs=False)
            elif name.lower().endswith(".zarr/"):
                self._group(name.rstrip("/"))
            elif depth < _DEPTH:
                self.folder(str(info["name"]), name, depth + 1)

    def _below(self, path: str, rel: str, listed: list[Info]) -> Iterator[tuple[str, Info]]:
        """(name relative to the INPUT, with "/" at the end of a folder's; info) of what is in the folder."""
        seen: set[str] = set()
        for info in listed:
            inner = str(info["name"])
            if self.root.web:
                parts = urlsplit(inner)
                if parts.query or parts.fragment or not inner.startswith(path.rstrip("/") + "/"):
                    continue  # the links by which a page is sorted, and those that lead elsewhere
            name = unquote(inner) if self.root.web else inner
            name = name.rstrip("/").rpartition("/")[2]
            if not name or name in (".", "..") or inner.rstrip("/") == path.rstrip("/"):
                continue
            name = rel + name + ("/" if info.get("type") == "directory" else "")
            if name not in seen:
                seen.add(name)
                yield name, info


def _asked(fs: Any, items: list[tuple[str, Info]]) -> list[tuple[str, Info]]:
    """With size, time and entity tag, which an index page does not tell: one request a file."""

    def ask(item: tuple[str, Info]) -> tuple[str, Info]:
        name, info = item
        if name.endswith("/"):
            return item
        try:
            return name, READS.call(fs.info, info["name"])
        except Exception:
            return item  # its row will say why when it is read

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(ask, items))
