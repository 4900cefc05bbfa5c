"""What this machine offers, and the memory that a tree of processes uses."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread

import psutil

__all__ = ["PeakMemory", "cores", "memory_limit"]


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit() -> int:
    """Bytes of memory of the machine or of its control group, the smaller."""
    limit = int(psutil.virtual_memory().total)
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            limit = min(limit, int(text))
    return limit


class PeakMemory:
    """Peak of the resident memory of this process and its children together, sampled; a context manager.

    Attributes
    ----------
    bytes : int
        The peak so far; memory that processes share is counted in each of them.
    """

    def __init__(self, interval: float = 0.1) -> None:
        self.bytes = 0
        self._lap = 0
        self._interval = interval
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="daskim-memory", daemon=True)

    def lap(self) -> int:
        """The peak since the last lap (or the start)."""
        self._sample()
        peak, self._lap = self._lap, 0
        return peak

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        total = 0
        try:
            me = psutil.Process()
            tree = [me, *me.children(recursive=True)]
        except psutil.Error:
            return
        for process in tree:
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it ended between listing and asking
                continue
        self.bytes = max(self.bytes, total)
        self._lap = max(self._lap, total)
