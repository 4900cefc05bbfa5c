"""`--cluster threads`: this process. The kernels spend their time in code that lets other threads run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any

import dask

from daskim.compute.machine import cores, memory_limit
from daskim.errors import SettingsError

__all__ = ["OPTIONS", "Threads", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = ()
# Seconds after which a thread in Python's own code lets another one on. A decoder gives up the interpreter lock for
# some microseconds an image, and would then wait Python's usual 5 ms for it.
SWITCH = 0.0005


class Threads:
    """A pool of threads, at most two tasks waiting for each."""

    name = "threads"
    processes = 1

    def __init__(self, workers: int, memory: int) -> None:
        self.workers = workers
        self.memory = memory
        self.notes: list[str] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="daskim")
        self._switch = sys.getswitchinterval()
        if workers > 1:
            sys.setswitchinterval(min(SWITCH, self._switch))

    def unordered(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any, BaseException | None]]:
        waiting: dict[Future[Any], int] = {}
        queue = enumerate(calls)
        try:
            while True:
                while len(waiting) < 2 * self.workers and (item := next(queue, None)) is not None:
                    waiting[self._pool.submit(function, *item[1])] = item[0]
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    index, error = waiting.pop(future), future.exception()
                    yield index, None if error else future.result(), error
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)

    def everywhere(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        return {}  # there is no other process

    def scheduler(self) -> AbstractContextManager[Any]:
        return dask.config.set(scheduler="threads", num_workers=self.workers)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        sys.setswitchinterval(self._switch)


def start(rest: str, *, workers: int | None, memory: int | None) -> Threads:
    if rest:
        raise SettingsError(f"--cluster threads:{rest}: threads takes nothing after it", "Use --workers for a number.")
    return Threads(workers or cores(), memory or memory_limit())
