"""One bounded, thread-safe cache a process for what several blocks share: a row group, an unpacked array."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from daskim.release import kept_for_a_stage

__all__ = ["SHARED", "Cache"]


class Cache:
    """Least recently used values within a bound of bytes; concurrent requests for one key load it once.

    Parameters
    ----------
    max_bytes : int
        Bound on the sum of the sizes that loaders report. One value larger than it is kept alone, until the
        next one comes: its readers are at work, and loading it for each block would cost far more.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._loading: dict[Hashable, threading.Lock] = {}

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        return Cache, (self.max_bytes,)

    def get(self, key: Hashable, load: Callable[[], tuple[Any, int]]) -> Any:
        """The value of `key`; `load` returns (value, size in bytes) and is called at most once at a time."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
            gate = self._loading.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                if key in self._entries:
                    return self._entries[key][0]
            try:
                value, size = load()
                self._put(key, value, size)
            finally:
                with self._lock:
                    self._loading.pop(key, None)
        return value

    def _put(self, key: Hashable, value: Any, size: int) -> None:
        with self._lock:
            self._entries[key] = (value, size)
            total = sum(entry[1] for entry in self._entries.values())
            while total > self.max_bytes and len(self._entries) > 1:
                total -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


# Blocks that follow one another need the same row group or the next one: a few small ones are enough, and a larger one
# is kept alone. More would only fill up with what is never asked for again: memory that grows with the source.
SHARED = Cache(64_000_000)
kept_for_a_stage(SHARED.clear)
