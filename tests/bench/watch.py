"""A command run in a process of its own, with the CPU time and the memory of all processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread

import psutil

__all__ = ["Sample", "Watched", "cores", "processes_below", "watched"]

INTERVAL = 0.1  # seconds between two looks
# A look at shared memory goes through the pages of a process and holds it up: at most one part in so many of the time.
LOOKING = 20


@dataclass(frozen=True)
class Sample:
    """The process tree at one moment.

    Attributes
    ----------
    at : float
        Seconds since the epoch, as the times of files.
    cpu : float
        Seconds of user and system time so far, of the living processes and of those they have waited for.
    memory : int
        Resident bytes; where there are several processes, what they share is counted once (PSS).
    largest : int
        The most that any one of the processes has held so far, by the kernel.
    """

    at: float
    cpu: float
    memory: int
    largest: int = 0


@dataclass(frozen=True)
class Watched:
    """How a command went.

    Attributes
    ----------
    wall, cpu : float
        Seconds from start to exit; seconds of user and system time of the tree.
    peak : int
        Bytes of the tree at most, sampled ten times a second (less often where that takes time); at least what the
        kernel says of any one process.
    stopped : str
        Why it was ended from here; empty if it was not.
    """

    code: int
    out: str
    err: str
    wall: float
    cpu: float
    peak: int
    samples: tuple[Sample, ...]
    stopped: str = ""

    @property
    def use(self) -> float:
        """Share of the cores' time that was used."""
        return self.cpu / (self.wall * cores())

    def between(self, start: float, end: float) -> tuple[float, int]:
        """CPU seconds from one time to another, interpolated, and the bytes at most of the samples between them."""
        inside = [sample.memory for sample in self.samples if start <= sample.at <= end]
        nearest = min(self.samples, key=lambda sample: abs(sample.at - (start + end) / 2)).memory
        return max(0.0, self._cpu_at(end) - self._cpu_at(start)), max(inside, default=nearest)

    def _cpu_at(self, at: float) -> float:
        before = self.samples[0]
        for sample in self.samples:
            if sample.at >= at:
                share = (at - before.at) / (sample.at - before.at) if sample.at > before.at else 1.0
                return before.cpu + max(0.0, share) * (sample.cpu - before.cpu)
            before = sample
        return before.cpu


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def watched(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    most_bytes: int | None = None,
    most_seconds: float | None = None,
) -> Watched:
    """Run a command to its end, or until its processes take more memory or time than they may.

    POSIX only: the kernel's own account of the ended processes (`wait4`) gives the CPU time.
    """
    with TemporaryFile("w+", errors="replace") as out, TemporaryFile("w+", errors="replace") as err:
        begun, start = time.time(), time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd, env=env, start_new_session=True)
        samples, why, over = [Sample(begun, 0.0, 0)], [""], Event()
        limits = (most_bytes or float("inf"), most_seconds or float("inf"))
        watcher = Thread(target=_watch, args=(process.pid, samples, over, limits, why), daemon=True)
        watcher.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _end(process.pid)
            process.wait()
            raise
        wall, ended = time.perf_counter() - start, time.time()
        process.returncode = os.waitstatus_to_exitcode(status)
        over.set()
        watcher.join()
        cpu = usage.ru_utime + usage.ru_stime
        samples.append(Sample(ended, max(cpu, samples[-1].cpu), 0))
        # Not usage.ru_maxrss: it counts what this process held when the other was forked from it.
        peak = max(max(sample.memory, sample.largest) for sample in samples)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return Watched(process.returncode, texts[0], texts[1], wall, cpu, peak, tuple(samples), why[0])


def _watch(pid: int, samples: list[Sample], over: Event, limits: tuple[float, float], why: list[str]) -> None:
    most_bytes, most_seconds = limits
    took = 0.0
    while not over.wait(max(INTERVAL, LOOKING * took)):
        begun = time.perf_counter()
        sample = _sample(pid)
        took = time.perf_counter() - begun
        if sample is None:
            return
        samples.append(sample)
        if sample.memory > most_bytes:
            why[0] = f"stopped at {sample.memory / 1e9:.1f} GB"
        elif sample.at - samples[0].at > most_seconds:
            why[0] = f"stopped after {most_seconds:g} s"
        if why[0]:
            _end(pid)
            return


def _end(group: int) -> None:
    """The command's own session: it was made its leader."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _sample(pid: int) -> Sample | None:
    tree = [pid, *processes_below(pid)]
    at, cpu, memory, largest, alive = time.time(), 0.0, 0, 0, False
    for one in tree:
        try:
            process = psutil.Process(one)
            with process.oneshot():
                cpu += sum(process.cpu_times()[:4])  # user, system, and both of the children that were waited for
                resident = process.memory_info().rss
                memory += _told(one, "smaps_rollup", "Pss:", resident) if len(tree) > 1 else resident
                largest = max(largest, _told(one, "status", "VmHWM:", resident))
            alive = True
        except psutil.Error:  # it ended between listing and asking
            continue
    return Sample(at, cpu, memory, largest) if alive else None


def processes_below(pid: int) -> list[int]:
    """Processes below one. The kernel's lists of children cost a tenth of a search through all processes."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        texts = []
    if texts:
        children = [int(word) for text in texts for word in text.split()]
        return [found for child in children for found in (child, *processes_below(child))]
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _told(pid: int, file: str, what: str, other: int) -> int:
    """Bytes that a file of the kernel tells of a process; another figure where it cannot be read."""
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return other
