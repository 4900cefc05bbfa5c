"""Work on one image after another that no image can stop: neither one that never ends nor one that ends its process.

The usual path costs one thread a block. That thread reads and works; the caller watches how long it has been at one
image. C code cannot be interrupted in a thread: after `max_seconds` the caller leaves the thread to itself (it ends
with its image, if that ever ends, and keeps a processor busy until then) and goes on with the rest of the block in
child processes (`daskim.lake.alone`), which can be killed. A block that has ended its process before is worked on in
child processes from the start.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.lake.alone import Quarantined, in_children
from daskim.lake.read import read_images
from daskim.lake.records import Raw
from daskim.lake.stderr import quiet_native_stderr

__all__ = ["Job", "Quarantined", "each_image"]

# Decoding a tiny JPEG gives up the interpreter lock for about 8 microseconds, and taking it back from another
# thread costs more than that: two threads took 46 us an image together where one alone took 33. So runs of small
# images are decoded by one thread at a time; reading, and larger images, go on side by side.
_SMALL_BYTES = 8192
_SMALL_BATCH = 64
# Seconds between two looks at a thread at work.
_LOOK = 1.0


@dataclass(frozen=True)
class Job:
    """What is done with each image. Picklable.

    Attributes
    ----------
    work : callable
        Raw to a `Standard`, or to bytes or None. Bad input gives a result, never an exception.
    max_seconds : float
        Bound on the time of one image, reading not counted.
    max_bytes : int, optional
        Larger files are not read.
    max_pixels : int
        Bound on width * height that `work` keeps; it decides the memory of a child process.
    """

    work: Callable[[Raw], Any]
    max_seconds: float
    max_bytes: int | None = None
    max_pixels: int = 100_000_000


def each_image(
    rows: pa.Table, job: Job, storage_options: Mapping[str, Any] | None = None, *, alone: bool = False
) -> list[Any]:
    """`job.work` of what each row holds, in row order. Safe to call from several threads.

    Parameters
    ----------
    rows : pyarrow.Table
        A slice of `Listing.table`.
    storage_options : mapping, optional
        For fsspec.
    alone : bool
        In child processes from the start: some image of these rows may end the process that works on it.

    Returns
    -------
    list
        Of each row its result, or a `Quarantined`: `timeout` or `killed-worker`.

    Raises
    ------
    StoreDown
        A store that answers nothing at all.
    BlockFailed
        So many images end their process that it can hardly be the images.
    """
    options = storage_options or {}
    if alone:
        return in_children(rows, job, options)
    course = _Course(rows, job, options)
    found = list(course.watch())
    if len(found) < rows.num_rows:
        found += in_children(rows.slice(len(found)), job, options)
    return found


class _Turn:
    """A lock that can be taken from a thread that never gives it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def take(self) -> threading.Lock:
        while True:
            lock = self._lock
            if lock.acquire(timeout=_LOOK):
                if lock is self._lock:
                    return lock
                lock.release()

    def forsake(self, lock: threading.Lock) -> None:
        """Whoever holds this lock counts no more."""
        if self._lock is lock:
            self._lock = threading.Lock()


_SMALL = _Turn()


class _Course:
    """One thread's way through the images of a block."""

    def __init__(self, rows: pa.Table, job: Job, options: Mapping[str, Any]) -> None:
        self._rows, self._job, self._options = rows, job, options
        self._found: list[Any] = []
        self._since: float | None = None  # when work on the image at hand began
        self._turn: threading.Lock | None = None
        self._left = False
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def watch(self) -> list[Any]:
        """Results in row order: of all rows, or of those before an image that took too long."""
        threading.Thread(target=self._run, name="daskim-images", daemon=True).start()
        look = min(_LOOK, self._job.max_seconds / 2)
        while not self._ended.wait(look):
            since = self._since
            if since is None or time.monotonic() - since <= self._job.max_seconds:
                continue
            self._left = True
            if self._turn is not None:
                _SMALL.forsake(self._turn)
            return list(self._found)  # what the thread may still append counts no more
        if self._error is not None:
            raise self._error
        return self._found

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def _work(self) -> None:
        raws = read_images(self._rows, self._options, max_bytes=self._job.max_bytes)
        work, clock, found = self._job.work, time.monotonic, self._found
        with quiet_native_stderr():
            for batch, small in _batches(raws):
                with self._in_turn() if small else contextlib.nullcontext():
                    for raw in batch:
                        self._since = clock()
                        found.append(work(raw))
                        if self._left:
                            return
                    self._since = None

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        lock = self._turn = _SMALL.take()
        try:
            yield
        finally:
            self._turn = None
            lock.release()


def _batches(raws: Iterator[Raw]) -> Iterator[tuple[list[Raw], bool]]:
    """Runs of small images, at most 64, flagged True, and larger ones one by one."""
    batch: list[Raw] = []
    for raw in raws:
        size = raw.nbytes if isinstance(raw, np.ndarray) else len(raw) if isinstance(raw, bytes) else 0
        if size > _SMALL_BYTES:
            if batch:
                yield batch, True
            yield [raw], False
            batch = []
            continue
        batch.append(raw)
        if len(batch) == _SMALL_BATCH:
            yield batch, True
            batch = []
    if batch:
        yield batch, True
