"""What this machine offers, and the memory that a tree of processes uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Thread

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
        self._tree: Callable[[], int] = _ProcTree() if os.path.exists("/proc/self/statm") else _psutil_tree
        self._stop = Event()
        self._lock = Lock()  # a lap is asked for while the thread looks
        self._thread = Thread(target=self._watch, name="daskim-memory", daemon=True)

    def lap(self) -> int:
        """The peak since the last lap (or the start)."""
        self._sample()
        with self._lock:
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
        with self._lock:
            total = self._tree()
            self.bytes = max(self.bytes, total)
            self._lap = max(self._lap, total)


class _ProcTree:
    """Resident bytes of this process and all below it, from Linux's /proc.

    The parent of a process is read once, when it is first seen: a look costs a listing of /proc and one small file for
    each process of the tree (0.1 ms with 100 processes on the machine; psutil, which reads every process, 2 to 7 ms).
    """

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._parents: dict[str, str] = {}
        self()

    def __call__(self) -> int:
        there = {name for name in os.listdir("/proc") if name.isdecimal()}
        known = self._parents
        for name in known.keys() - there:
            del known[name]
        me = str(os.getpid())
        for name in there - known.keys():
            stat = _first_line(f"/proc/{name}/stat")
            if stat:  # the name of the program, in brackets, may hold anything
                known[name] = stat.rpartition(")")[2].split()[1]
        below: dict[str, list[str]] = {}
        for name, parent in known.items():
            below.setdefault(parent, []).append(name)
        total, at = 0, [me]
        for name in at:
            at += below.get(name, ())
            statm = _first_line(f"/proc/{name}/statm").split()
            total += int(statm[1]) * self._page if len(statm) > 1 else 0
        return total


def _first_line(path: str) -> str:
    """Empty where the process has ended."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline()
    except OSError:
        return ""


def _psutil_tree() -> int:
    """What `_ProcTree` tells, on any system."""
    total = 0
    try:
        me = psutil.Process()
        tree = [me, *me.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it ended between listing and asking
            continue
    return total
