"""Catch what native decoders write to file descriptor 2, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any

__all__ = ["quiet_native_stderr"]

_log = logging.getLogger(__name__)
_MAX_CAUGHT = 65_536  # bytes of chatter that are logged of each catch; the rest is counted


class _Capture:
    """The one redirection of fd 2 of this process, shared by all threads that are inside.

    Python's own stream on fd 2 is given a `write` that goes to the real descriptor, so that a progress display
    and log handlers that hold the stream go on working. (Replacing `sys.stderr` would not reach such holders.)
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.file: IO[bytes] | None = None
        self.real = -1
        self.stream: Any = None

    def enter(self) -> None:
        with self.lock:
            self.depth += 1
            if self.depth > 1:
                return
            try:
                self.real = os.dup(2)
            except OSError:
                self.real = -1  # the process has no fd 2 (a daemon): nothing can be written there
                return
            self._divert_stream()
            # Append mode: after a truncation the next write starts at 0 again.
            self.file = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115
            os.dup2(self.file.fileno(), 2)

    def exit(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.file is None:
                return
            last = self.depth == 0
            if last:
                os.dup2(self.real, 2)
                self._restore_stream()
            caught = self._drain()
            if last:
                self.file.close()
                self.file = None
                os.close(self.real)
                self.real = -1
        _report(caught)

    def _drain(self) -> bytes:
        assert self.file is not None
        size = os.fstat(self.file.fileno()).st_size
        if not size:
            return b""
        caught = os.pread(self.file.fileno(), _MAX_CAUGHT, 0)
        os.ftruncate(self.file.fileno(), 0)
        return caught if size <= _MAX_CAUGHT else caught + b"\n(%d bytes more)" % (size - _MAX_CAUGHT)

    def _divert_stream(self) -> None:
        stream = sys.stderr
        try:
            if stream is None or stream.fileno() != 2:
                return
            stream.flush()
            encoding, errors, real = stream.encoding, stream.errors or "backslashreplace", self.real

            def write(text: str) -> int:
                _write_all(real, text.encode(encoding, errors))
                return len(text)

            stream.write = write  # type: ignore[method-assign]
            self.stream = stream
        except (OSError, ValueError, AttributeError):
            self.stream = None

    def _restore_stream(self) -> None:
        if self.stream is not None:
            with contextlib.suppress(AttributeError):
                del self.stream.write
            self.stream = None


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _report(caught: bytes) -> None:
    if caught and _log.isEnabledFor(logging.DEBUG):
        for line in dict.fromkeys(caught.decode("utf-8", "backslashreplace").splitlines()):
            if line.strip():
                _log.debug("native decoder: %s", line)


_capture = _Capture()


@contextlib.contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Catch what C libraries write to fd 2 meanwhile; the lines go to this module's logger at level debug.

    Re-entrant, and shared by threads: fd 2 comes back when the last one leaves. Python's own `sys.stderr` keeps
    working. A child process started meanwhile would inherit the capture, so start none inside.
    """
    _capture.enter()
    try:
        yield
    finally:
        _capture.exit()
