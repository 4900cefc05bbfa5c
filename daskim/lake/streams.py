"""Files as streams of bytes: local ones by their descriptors, those of stores patiently."""

from __future__ import annotations

import io
import os
import stat
from typing import Any

from daskim.lake.failures import Changed, NotAFile
from daskim.lake.names import escape
from daskim.retry import READS

__all__ = ["PatientFile", "open_regular", "pread", "read_stream"]

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_FOLLOW |= getattr(os, "O_BINARY", 0)
_SLICE = 16_000_000  # bytes asked of the system at once


def open_regular(path: str) -> int:
    """A descriptor of a regular file; a FIFO, socket, device or a link put there since is refused, not opened."""
    fd = os.open(path, os.O_RDONLY | _NO_FOLLOW)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFile(f"not a regular file: {escape(path)}")
    return fd


def pread(fd: int, start: int, stop: int) -> bytes:
    before = os.fstat(fd)
    data = _pread_all(fd, start, min(stop, max(start, before.st_size)))
    after = os.fstat(fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Changed("written to while it was read")
    return data


def _pread_all(fd: int, start: int, stop: int) -> bytes:
    first = os.pread(fd, min(stop - start, _SLICE), start)
    if len(first) == stop - start:
        return first
    parts, at = [first], start + len(first)
    while at < stop and parts[-1]:
        parts.append(os.pread(fd, min(stop - at, _SLICE), at))
        at += len(parts[-1])
    return b"".join(parts)


class PatientFile(io.RawIOBase):
    """A file of a store, whose reads are tried again: after a failure they begin where they began."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, size: int | None = -1) -> bytes:
        at = self._file.tell()

        def again() -> bytes:
            if self._file.seekable():
                self._file.seek(at)
            return bytes(self._file.read(-1 if size is None else size))

        return READS.call(again)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def read_stream(fs: Any, path: str, most: int) -> bytes:
    """The first `most` bytes that a web server sends, whatever it sends after them."""
    parts, left = [], most
    with fs.open(path, "rb", block_size=0) as file:
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)
