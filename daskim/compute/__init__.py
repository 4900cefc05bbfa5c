"""Where work runs: one file a place, the values of `--cluster`.

A place hands out tasks, each a picklable function with its arguments, and gives back their results as they come. What
a task does with Dask inside (the graph of one block) it does serially; dask-ml's own graphs run on the place's
scheduler, through `place.scheduler()`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from daskim.errors import SettingsError, nearest

__all__ = ["Place", "open_place"]

PLACES = ("threads", "local", "address")


class Place(Protocol):
    """What the engine needs of a place.

    Attributes
    ----------
    name : str
    workers : int
        Tasks at a time.
    processes : int
        Processes that share the work (1 for threads): each has its own `memory`.
    memory : int
        Bytes that one worker process may use.
    """

    name: str
    workers: int
    processes: int
    memory: int

    def unordered(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any, BaseException | None]]:
        """Run the calls, a bounded number at a time; yield (index, result, error) as they finish."""
        ...

    def scheduler(self) -> AbstractContextManager[Any]:
        """Within it, `dask.compute` runs on this place."""
        ...

    def close(self) -> None: ...


def open_place(
    name: str, *, workers: int | None = None, memory: int | None = None, options: Mapping[str, Any] | None = None
) -> Place:
    """The place of a `--cluster` value: threads, local, address:tcp://host:port, ...

    Parameters
    ----------
    workers : int, optional
        Threads or processes; by default one a core.
    memory : int, optional
        Bytes for all workers of this machine together; by default what the machine (or its control group) has.
    options : mapping, optional
        Further options by the name they have on the command line without its dashes in front, such as "tls". Each
        place's module names those that it takes in `OPTIONS`.

    Raises
    ------
    SettingsError
        An unknown place, or an option that it does not take.
    SourceError
        The place cannot be reached.
    """
    if workers is not None and workers < 1:
        raise SettingsError(f"--workers {workers}: at least one is needed", "Leave it out for one a core.")
    if memory is not None and memory < 1:
        raise SettingsError(f"memory of {memory} bytes is none", "Leave it out for what the machine has.")
    kind, _, rest = name.partition(":")
    if kind not in PLACES:
        raise SettingsError(f"--cluster {name}: there is no such place", nearest(kind, PLACES))
    module = importlib.import_module(f"daskim.compute.{kind.replace('-', '_')}")
    given = dict(options or {})
    for option in given:
        if option not in module.OPTIONS:
            takes = ", ".join(f"--{known}" for known in module.OPTIONS) or "no options of its own"
            raise SettingsError(f"--{option} says nothing to --cluster {kind}", f"{kind} takes {takes}.")
    return module.start(rest, workers=workers, memory=memory, **{k.replace("-", "_"): v for k, v in given.items()})
