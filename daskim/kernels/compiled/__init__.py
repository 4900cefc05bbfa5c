"""Loops that numba compiles, where the array form is bound by memory; the door to numba.

Nothing is imported before a kernel is asked for. What was compiled is kept on disk: beside the source, or where that
is read-only in the user's cache folder (`NUMBA_CACHE_DIR`), or else not at all. Two processes that compile at once
each write a file of their own and rename it.

No kernel uses fastmath: sums run in the order that is written, so that they are the same on every processor. LLVM then
vectorises loops over independent elements, but no sum of floats: hence sums go column by column into a row, which is
added up at the end.

A kernel calls kernels of its own file only: whether what is kept is still right is told by the date of that file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, TypeVar

__all__ = ["SWITCH", "Engine", "compiled", "engine"]

Engine = Literal["numba", "numpy"]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])
# Environment variable that, if 0, keeps to the array forms.
SWITCH = "DASKIM_COMPILED"


@lru_cache(maxsize=1)
def _importable() -> bool:
    try:
        import numba  # noqa: F401
    except (ImportError, OSError):  # not there, not made for this numpy, or its library does not load
        return False
    return True


def engine() -> Engine:
    """What kernels that have both forms run as in this process."""
    return "numba" if os.environ.get(SWITCH, "1") != "0" and _importable() else "numpy"


def compiled(function: Kernel) -> Kernel:
    """The function, compiled at its first call with arguments of some types; it does not hold the GIL.

    Divisions by zero give what numpy gives.
    """
    import numba

    def form(*, cache: bool) -> Any:
        return numba.njit(function, nogil=True, error_model="numpy", cache=cache)

    try:
        return form(cache=True)
    except RuntimeError:  # no folder to keep it in
        return form(cache=False)
