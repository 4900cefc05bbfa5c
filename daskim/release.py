"""What a process gives back when a stage has ended: the next one is promised its memory without what this one read."""

from __future__ import annotations

from daskim import kept
from daskim.compute.machine import give_back
from daskim.lake.cache import SHARED

__all__ = ["let_go"]


def let_go() -> None:
    """Forget the blocks and row groups that this process keeps, and return freed memory to the system."""
    kept.forget()
    SHARED.clear()
    give_back()
