"""Images worked on in child processes, so that one that ends its process, or never ends, is found and left out.

A child goes through a range of rows and says before each image that it begins, and after it what came out. Where it
dies, what it has finished is kept. The image that it was at is tried alone; where it dies again, that image is the
cause. Where it died between images, reading, the range is halved until one image is left. So k such images cost about
2 k deaths, or k log2(range) where reading is what kills.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa

from daskim.errors import BlockFailed
from daskim.lake.fetch import StoreDown
from daskim.lake.records import Standard

__all__ = ["Quarantined", "in_children"]

# Deaths among the rows of one block above which it is not for the images.
_MOST_DEATHS = 256


@dataclass(frozen=True)
class Quarantined:
    """An image that was not worked on to its end, and must not be tried again in a process that is needed.

    Attributes
    ----------
    status : {"timeout", "killed-worker"}
    size : int
        Bytes of the file; 0 where not even reading it ended.
    file_digest : bytes
        As of `Standard`.
    """

    status: str
    reason: str
    size: int = 0
    file_digest: bytes = b""


@dataclass(frozen=True)
class _End:
    """How a child ended before its rows did.

    Attributes
    ----------
    what : Quarantined
        What that is for the image it was at.
    decoding : bool
        Whether it was at an image, and not reading.
    """

    what: Quarantined
    decoding: bool


def in_children(rows: pa.Table, job: Any, options: Mapping[str, Any]) -> list[Any]:
    """`daskim.lake.guard.each_image`, all of it in child processes, one after another.

    Raises
    ------
    StoreDown
        A child says so.
    BlockFailed
        More than 256 children died.
    """
    found: list[Any] = []
    span, deaths = rows.num_rows, 0
    while len(found) < rows.num_rows:
        span = max(1, min(span, rows.num_rows - len(found)))
        end = _one_child(rows.slice(len(found), span), job, options, found)
        if end is None:
            span *= 2
            continue
        deaths += 1
        if end.what.status == "timeout" or span == 1:
            found.append(end.what)
            span = rows.num_rows if end.decoding else 1
        else:
            span = 1 if end.decoding else span // 2
        if deaths > _MOST_DEATHS:
            raise BlockFailed(
                f"{deaths} processes ended while they decoded {rows.num_rows} images, the last: "
                f"{end.what.reason}, near {rows['id'][min(len(found), rows.num_rows - 1)].as_py()}",
                "That is hardly for the images: look at the memory of the machine and at the decoders (pip check).",
            )
    return found


def _one_child(rows: pa.Table, job: Any, options: Mapping[str, Any], found: list[Any]) -> _End | None:
    """Append the results of one child; how it ended early, or None."""
    with _Child(pickle.dumps((rows, job, dict(options)))) as child:
        at = Quarantined("killed-worker", "")
        decoding = False
        while True:
            try:
                message, data = child.messages.get(timeout=job.max_seconds if decoding else None)
            except queue.Empty:
                return _End(_with(at, "timeout", f"more than {job.max_seconds:g} s (images.max_seconds)"), True)
            kind = message["kind"]
            if kind == "begin":
                at = Quarantined("killed-worker", "", message["bytes"], bytes.fromhex(message["file_digest"]))
                decoding = True
            elif kind == "done":
                found.append(_result(message, data))
                decoding = False
            elif kind == "all":
                return None
            elif kind == "down":
                raise StoreDown(message["what"], message["hint"])
            elif kind == "bug":
                raise RuntimeError(f"in a child process: {message['text']}")
            else:
                doing = "decoding" if decoding else "reading"
                return _End(_with(at, "killed-worker", f"{doing} it ends the process ({child.how()})"), decoding)


def _with(at: Quarantined, status: str, reason: str) -> Quarantined:
    return Quarantined(status, reason, at.size, at.file_digest)


def _result(message: dict[str, Any], data: bytes) -> Any:
    """A result as the child told it; it is only data, whatever an image made of the child."""
    told = message["standard"]
    if told is None:
        return data if message["data"] else None
    pixels = np.frombuffer(data, np.uint8).reshape(told["shape"]) if message["data"] else None
    return Standard(
        pixels=pixels,
        width=int(told["width"]),
        height=int(told["height"]),
        bytes=int(told["bytes"]),
        file_digest=bytes.fromhex(told["file_digest"]),
        digest=bytes.fromhex(told["digest"]),
        full=bool(told["full"]),
        status=str(told["status"]),
        reason=str(told["reason"]),
    )


class _Child:
    """A child process, and what it says, as it comes; the last message has the kind "ended"."""

    def __init__(self, request: bytes) -> None:
        paths = [*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path for path in paths if path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "daskim.lake.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.messages: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue(64)
        self._request = request
        self._stop = False
        self._thread = threading.Thread(target=self._listen, name="daskim-child", daemon=True)
        self._thread.start()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._process.kill()
        while self._thread.is_alive():  # it may wait for room
            try:
                self.messages.get(timeout=0.05)
            except queue.Empty:
                continue
        self._process.wait()

    def how(self) -> str:
        """How it ended, in words."""
        code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{name}, as when memory runs out" if name == "SIGKILL" else name

    def _listen(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin:
                process.stdin.write(self._request)
            for item in _frames(process.stdout):
                if self._stop:
                    break
                self.messages.put(item)
        except (OSError, ValueError):
            pass  # it died: it says no more
        finally:
            process.stdout.close()
            if not self._stop:
                self.messages.put(({"kind": "ended"}, b""))


def _frames(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Messages, each a line of JSON and `data` bytes; ends where the stream does, in the midst of one too."""
    while line := stream.readline():
        if not line.endswith(b"\n"):
            return
        message = json.loads(line)
        data = stream.read(message["data"])
        if len(data) < message["data"]:
            return
        yield message, data
