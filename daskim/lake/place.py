"""Where files are: local paths and fsspec URLs behind one small interface. The only module that opens anything.

Local files are read through `os`, so that names that are not UTF-8, links and devices are seen as they are;
everything else goes through fsspec.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.utils import get_protocol

from daskim.errors import SettingsError, SourceError, nearest
from daskim.lake.failures import Changed, failure_of_store, is_beyond
from daskim.lake.names import escape, unescape
from daskim.lake.streams import PatientFile, open_regular, pread, read_stream
from daskim.remote import missing_package, open_options, refuse_credentials, secrets_of
from daskim.retry import READS, STORE

__all__ = ["UNKNOWN", "Place", "batches", "etag_of", "is_local", "locate", "mtime_of", "size_of"]

UNKNOWN = 8_000_000  # bytes that a file of unknown size is given room for, at first


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
    etag, mtime : str or None, float
        Of the version that was listed, where it must be that one (`pinned`); not for local files.

    Notes
    -----
    What fails for the moment in a store is tried again, for a minute at most (`daskim.retry.READS`).
    """

    path: str
    fs: Any = field(default=None, repr=False, compare=False)
    prefix: str = ""
    suffix: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    etag: str | None = None
    mtime: float = float("nan")

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
        other = object.__new__(Place)  # a listing makes millions: the constructor takes five times as long
        other.__dict__.update(path=path, fs=self.fs, prefix=self.prefix, suffix=self.suffix, secrets=self.secrets)
        return other

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
        entry = self.entry()
        return entry.get("type") == "directory", size_of(entry), mtime_of(entry)

    def entry(self) -> Mapping[str, Any]:
        """What the store says of the file now: an fsspec info record. Not for local paths."""
        if self.web and self.path.endswith("/"):
            return {"name": self.path, "size": None, "type": "directory"}  # fsspec takes an index page for a file
        return READS.call(self.fs.info, self.path)

    @property
    def web(self) -> bool:
        """Whether this is a URL of a web server."""
        return self.path.startswith(("http://", "https://"))

    def open(self, *, ahead: int = 0) -> IO[bytes]:
        """The file, open for reading. Raises what the store raises.

        Parameters
        ----------
        ahead : int
            Bytes that a store is asked for beyond each read, for files that are read from front to back.
        """
        if self.fs is None:
            return os.fdopen(open_regular(self.path), "rb")
        if not getattr(self.fs, "async_impl", False):
            return READS.call(self.fs.open, self.path, "rb")
        # fsspec reads ahead by 5 to 50 MB where it is not told: for a row group of 1 MB that is many times too much.
        how = {"cache_type": "readahead", "block_size": ahead} if ahead else {"cache_type": "none"}
        file: Any = PatientFile(READS.call(self.fs.open, self.path, "rb", **how))
        return file

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the file, fewer where it ends before. Raises what the store raises.

        Raises
        ------
        Changed
            The place is pinned, and the file is another one by now.
        """
        if self.fs is None:
            fd = open_regular(self.path)
            try:
                return pread(fd, start, stop)
            finally:
                os.close(fd)
        data = READS.call(self._read_once, start, stop)
        self.verify()
        return data

    def _read_once(self, start: int, stop: int) -> bytes:
        if not self.web:
            try:
                return bytes(self.fs.cat_file(self.path, start=start, end=stop))
            except Exception as error:
                if is_beyond(error):
                    return b""
                raise
        # A server without range requests answers with the whole file: its stream is cut here, and a start refused.
        if start:
            with self.fs.open(self.path, "rb", cache_type="none") as file:
                file.seek(start)
                return bytes(file.read(stop - start))
        return read_stream(self.fs, self.path, stop)

    def pinned(self, etag: str | None, mtime: float) -> Place:
        """This place, of which only the version with this entity tag (or, without one, this time) is to be read."""
        return replace(self, etag=etag, mtime=mtime)

    def verify(self) -> None:
        """Make sure, after a read, that what was read is the version that the place is pinned to.

        Compared are what the store says of the file, then and now, and never a clock of this machine.

        Raises
        ------
        Changed
        """
        if self.fs is None or (self.etag is None and self.mtime != self.mtime):
            return
        now = self.entry()
        if self.etag is not None:
            same = etag_of(now) == self.etag
        else:
            same = mtime_of(now) == self.mtime
        if not same:
            raise Changed("it is no longer the file that was listed")

    def copy(self, target: Place) -> None:
        """Copy the file to another place of the same store, inside the store."""
        STORE.call(self.fs.cp_file, self.path, target.path)

    def remove(self) -> None:
        """Remove the file from its store."""
        with contextlib.suppress(FileNotFoundError):  # an answer may be lost: the second try finds nothing
            STORE.call(self.fs.rm_file, self.path)

    def exists(self) -> bool:
        """Whether something is there. A store that does not say so is no answer, and its error is raised."""
        try:
            self.info()
        except OSError as error:
            if self.fs is None or isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
                return False
            raise
        return True


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
        if value is not None and hasattr(value, "timestamp"):
            return float(value.timestamp())
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return parsedate_to_datetime(entry["Last-Modified"]).timestamp()
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
    refuse_credentials(url)
    options = dict(storage_options or {})
    protocol = get_protocol(url.partition("::")[0]) if "://" in url.partition("::")[0] else url.partition("::")[0]
    if protocol not in fsspec.available_protocols():
        raise SettingsError(f"unknown protocol in {url!r}", nearest(protocol, fsspec.available_protocols()))
    try:
        fs, path = fsspec.core.url_to_fs(url, **open_options(url, options))
    except SettingsError:
        raise
    except Exception as error:
        failure = failure_of_store(error, secrets_of(options))
        hint = missing_package(url, error) or "Check the URL and --storage-option."
        raise SourceError(f"cannot reach {url!r}: {failure.reason}", hint) from None
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


def batches(sizes: Sequence[int], max_items: int = 256, max_bytes: int = 64_000_000) -> Iterator[tuple[int, int]]:
    """Runs [start, stop) of `sizes` within both bounds (one item may exceed the second); -1 counts as `UNKNOWN`."""
    start = total = 0
    for index, size in enumerate(sizes):
        cost = size if size >= 0 else UNKNOWN
        if index > start and (index - start >= max_items or total + cost > max_bytes):
            yield start, index
            start, total = index, 0
        total += cost
    if start < len(sizes):
        yield start, len(sizes)
