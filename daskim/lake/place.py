"""Where files are: local paths and fsspec URLs behind one small interface. The only module that opens anything.

Local files are read through `os`, so that names that are not UTF-8, links and devices are seen as they are;
everything else goes through fsspec.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.utils import get_protocol

from daskim.errors import SettingsError, SourceError, nearest
from daskim.lake.names import escape, unescape
from daskim.lake.records import Failure

__all__ = ["Place", "batches", "etag_of", "failure_of_store", "is_local", "locate", "secrets_of"]

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_FOLLOW |= getattr(os, "O_BINARY", 0)
_SLICE = 16_000_000  # bytes asked of the system at once


@dataclass(frozen=True)
class Place:
    """A path on a file system.

    Attributes
    ----------
    path : str
        Local: an absolute path, as the system gives it (undecodable bytes as surrogates). Else: fsspec's path.
    fs : fsspec file system or None
        None for local paths.
    prefix, suffix : str
        What stands before and after the path in the URL (chained URLs have both).
    """

    path: str
    fs: Any = field(default=None, repr=False, compare=False)
    prefix: str = ""
    suffix: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def url(self) -> str:
        """The path or URL in stored form (`names.escape`); `locate(place.url)` comes back here."""
        if self.fs is None:
            return escape(self.path)
        path = self.path if self.prefix and self.path.startswith(self.prefix) else self.prefix + self.path
        return escape(path + self.suffix)

    @property
    def name(self) -> str:
        """Last part of the path, unescaped."""
        return posixpath.basename(self.path.rstrip("/"))

    def at(self, path: str) -> Place:
        """Another path on the same file system."""
        return Place(path, self.fs, self.prefix, self.suffix, self.secrets)

    def join(self, rel: str) -> Place:
        """`rel` (with "/" between its parts) below this path."""
        if self.fs is None:
            return self.at(os.path.join(self.path, *rel.split("/")))
        return self.at(self.path.rstrip("/") + "/" + rel)

    def parent(self) -> Place:
        """The folder that holds this path."""
        return self.at(os.path.dirname(self.path) if self.fs is None else self.path.rpartition("/")[0])

    def info(self) -> tuple[bool, int, float]:
        """(is a folder, size in bytes or -1, mtime or nan). Raises what the store raises."""
        if self.fs is None:
            found = os.stat(self.path)
            return stat.S_ISDIR(found.st_mode), found.st_size, found.st_mtime
        entry = self.fs.info(self.path)
        return entry.get("type") == "directory", size_of(entry), mtime_of(entry)

    def open(self) -> IO[bytes]:
        """The file, open for reading. Raises what the store raises."""
        if self.fs is None:
            return os.fdopen(_open_regular(self.path), "rb")
        return self.fs.open(self.path, "rb")

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the file, fewer where it ends before. Raises what the store raises."""
        if self.fs is None:
            fd = _open_regular(self.path)
            try:
                return _pread(fd, start, stop)
            finally:
                os.close(fd)
        return bytes(self.fs.cat_file(self.path, start=start, end=stop))

    def exists(self) -> bool:
        """Whether something is there."""
        try:
            self.info()
        except OSError:
            return False
        return True


def _open_regular(path: str) -> int:
    """A descriptor of a regular file; a FIFO, socket, device or a link put there since is refused, not opened."""
    fd = os.open(path, os.O_RDONLY | _NO_FOLLOW)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFile(f"not a regular file: {escape(path)}")
    return fd


class NotAFile(OSError):
    """A path that is not a regular file."""


def _pread(fd: int, start: int, stop: int) -> bytes:
    stop = min(stop, max(start, os.fstat(fd).st_size))
    first = os.pread(fd, min(stop - start, _SLICE), start)
    if len(first) == stop - start:
        return first
    parts, at = [first], start + len(first)
    while at < stop and parts[-1]:
        parts.append(os.pread(fd, min(stop - at, _SLICE), at))
        at += len(parts[-1])
    return b"".join(parts)


def size_of(entry: Mapping[str, Any]) -> int:
    """Size in an fsspec info record; -1 when it gives none."""
    size = entry.get("size")
    return int(size) if isinstance(size, int | float) and size >= 0 else -1


def mtime_of(entry: Mapping[str, Any]) -> float:
    """Time of last change in an fsspec info record, seconds since the epoch; nan when it gives none."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = entry.get(key)
        if isinstance(value, int | float):
            return float(value)
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            return float(value.timestamp())  # type: ignore[union-attr]
    return float("nan")


def etag_of(entry: Mapping[str, Any]) -> str | None:
    """The entity tag in an fsspec info record, without quotes; None when it gives none."""
    value = entry.get("ETag", entry.get("etag"))
    return value.strip('"') if isinstance(value, str) and value else None


def is_local(url: str) -> bool:
    """Whether `url` is a plain path or a file:// URL."""
    return get_protocol(url) in ("file", "local") and "::" not in url


def locate(url: str, storage_options: Mapping[str, Any] | None = None, *, stored: bool = False) -> Place:
    """The place that a path or fsspec URL names.

    Parameters
    ----------
    url : str
        A path, ``file://`` URL, or any fsspec URL, chained ones included (``zip://::s3://bucket/a.zip``).
    storage_options : mapping, optional
        For fsspec. Ignored for local paths, which need none.
    stored : bool
        `url` is in stored form (`names.escape`).

    Raises
    ------
    SettingsError
        An unknown protocol, or a password inside the URL, which would end in tables and logs.
    SourceError
        The file system cannot be set up (a missing package, refused credentials).
    """
    if stored:
        url = unescape(url)
    if is_local(url):
        path = unquote(urlsplit(url).path) if url.startswith(("file://", "local://")) else url
        return Place(os.path.abspath(os.path.expanduser(path) if not stored else path))
    if re.search(r"://[^/@:]*:[^/@]*@", url):
        raise SettingsError(
            f"a password inside a URL ({re.sub(r'://[^@]*@', '://...@', url)}) would end in tables and logs",
            "Give credentials with --storage-option key=value.",
        )
    options = dict(storage_options or {})
    protocol = get_protocol(url.partition("::")[0]) if "://" in url.partition("::")[0] else url.partition("::")[0]
    if protocol not in fsspec.available_protocols():
        raise SettingsError(f"unknown protocol in {url!r}", nearest(protocol, fsspec.available_protocols()))
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except Exception as error:
        failure = failure_of_store(error, secrets_of(options))
        raise SourceError(f"cannot reach {url!r}: {failure.reason}", "Check the URL and --storage-option.") from None
    before, after = _around(url, fs, path)
    return Place(path, fs, before, after, secrets_of(options))


def _around(url: str, fs: Any, path: str) -> tuple[str, str]:
    """What stands before and after `path` in `url`."""
    parts = url.split("::")
    if len(parts) == 1:
        full = fs.unstrip_protocol(path)
        return full[: len(full) - len(path)] if full.endswith(path) else "", ""
    wrappers = [part for part in parts[: len(parts)] if "://" not in part]
    rest = [part for part in parts if "://" in part]
    head = rest[0].partition("://")[0] + "://"
    path_has_head = path.startswith(head)
    before = "".join(part + "::" for part in wrappers) + ("" if path_has_head else head)
    return before, "".join("::" + part for part in rest[1:])


def secrets_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    found: list[str] = []
    for value in options.values():
        if isinstance(value, Mapping):
            found += secrets_of(value)
        elif isinstance(value, str) and len(value) >= 4:
            found.append(value)
    return tuple(found)


def failure_of_store(error: BaseException, secrets: Sequence[str] = ()) -> Failure:
    """The status for an exception that a store raised; storage options are blotted out of the reason."""
    words = str(error).strip()
    for secret in secrets:
        words = words.replace(secret, "***")
    words = re.sub(r"\?\S+", "?***", words)  # a signed URL's signature
    reason = escape(f"{type(error).__name__}: {words}" if words else type(error).__name__)[:300]
    if isinstance(error, NotAFile):
        return Failure("not-a-file", reason)
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return Failure("not-a-file" if isinstance(error, IsADirectoryError) else "missing", reason)
    if isinstance(error, FileNotFoundError):
        return Failure("missing", reason)
    if isinstance(error, PermissionError):
        return Failure("no-permission", reason)
    if isinstance(error, TimeoutError) or "timeout" in type(error).__name__.lower():
        return Failure("timeout", reason)
    return Failure("read-error", reason)


def batches(sizes: Sequence[int], max_items: int = 256, max_bytes: int = 64_000_000) -> Iterator[tuple[int, int]]:
    """Runs [start, stop) of `sizes` within both bounds (one item may exceed the second); -1 counts as 1 MB."""
    start = total = 0
    for index, size in enumerate(sizes):
        cost = size if size >= 0 else 1_000_000
        if index > start and (index - start >= max_items or total + cost > max_bytes):
            yield start, index
            start, total = index, 0
        total += cost
    if start < len(sizes):
        yield start, len(sizes)
