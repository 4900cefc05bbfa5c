"""What a process gives back when a stage has ended: the next one is promised its memory without what this one read."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import TypeVar

__all__ = ["kept_for_a_stage", "let_go"]

Forget = TypeVar("Forget", bound=Callable[[], None])

_FORGET: list[Callable[[], None]] = []


def kept_for_a_stage(forget: Forget) -> Forget:
    """Have `forget`, which empties a cache of this process, called when a stage has ended; also a decorator."""
    _FORGET.append(forget)
    return forget


def let_go() -> None:
    """Forget what this process keeps for a stage, and return freed memory to the system."""
    for forget in _FORGET:
        forget()
    if "pyarrow" in sys.modules:
        import pyarrow as pa

        pa.default_memory_pool().release_unused()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # of the C library, where it is glibc
    except (AttributeError, OSError, TypeError):
        return
