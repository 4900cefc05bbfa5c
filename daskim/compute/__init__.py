"""Where work runs: one file a place, the values of `--cluster`.

A place hands out tasks, each a picklable function with its arguments, and gives back their results as they come. What
a task does with Dask inside (the graph of one block) it does serially; dask-ml's own graphs run on the place's
scheduler, through `place.scheduler()`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

from daskim.errors import SettingsError, nearest

__all__ = ["Described", "Place", "WorkerEnded", "describe_place", "open_place", "serve_place"]

PLACES = ("threads", "local", "address", "ssh", "slurm", "k8s", "k8s-job")


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
    notes : list of str
        What the user should know of it.
    """

    name: str
    workers: int
    processes: int
    memory: int
    notes: list[str]

    def unordered(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any, BaseException | None]]:
        """Run the calls, a bounded number at a time; yield (index, result, error) as they finish.

        The error is a `WorkerEnded` where the process that ran a call ended.
        """
        ...

    def everywhere(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Call it once in each worker process other than this one: the result, or the exception, by address."""
        ...

    def scheduler(self) -> AbstractContextManager[Any]:
        """Within it, `dask.compute` runs on this place."""
        ...

    def close(self) -> None: ...


class WorkerEnded(Exception):
    """The worker process that was at a task ended, again and again: the error of a call of `Place.unordered`.

    Parameters
    ----------
    times : int
        Workers that ended.
    last : str
        Address of the last one.
    memory : int, optional
        Bytes that it held, where it was ended for want of memory.
    """

    def __init__(self, times: int, last: str, memory: int | None = None) -> None:
        super().__init__(times, last, memory)
        self.times, self.last, self.memory = times, last, memory

    def __str__(self) -> str:
        why = f"out of memory, at {self.memory / 1e9:.2f} GB" if self.memory else "a crash, or out of memory"
        return f"{self.times} worker processes ended while they were at it, the last at {self.last} ({why})"


@dataclass(frozen=True)
class Described:
    """What a place will be, for --plan: nothing is started, so nothing can run on it.

    Attributes
    ----------
    name, workers, processes, memory, notes
        As of `Place`; a memory of 0 is not known.
    """

    name: str
    workers: int
    processes: int
    memory: int
    notes: list[str] = field(default_factory=list)

    def unordered(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any, BaseException | None]]:
        raise RuntimeError(f"place {self.name} was described, not opened")

    def everywhere(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        raise RuntimeError(f"place {self.name} was described, not opened")

    def scheduler(self) -> AbstractContextManager[Any]:
        raise RuntimeError(f"place {self.name} was described, not opened")

    def close(self) -> None:
        pass


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
    module, rest, arguments = _chosen(name, workers, memory, options)
    return module.start(rest, **arguments)


def describe_place(
    name: str, *, workers: int | None = None, memory: int | None = None, options: Mapping[str, Any] | None = None
) -> Place:
    """The place of a `--cluster` value as `open_place` would make it, without making it.

    A module that starts something has `describe`, with the arguments of `start`. A place without it is cheap to open,
    and is opened.

    Raises
    ------
    SettingsError, SourceError
        As of `open_place`.
    """
    module, rest, arguments = _chosen(name, workers, memory, options)
    return getattr(module, "describe", module.start)(rest, **arguments)


def serve_place(
    name: str, *, workers: int | None = None, memory: int | None = None, options: Mapping[str, Any] | None = None
) -> bool:
    """Where the same command is given to all machines: work for the one that drives, if this is another.

    Returns
    -------
    bool
        Whether this process only worked, and is done: then it has nothing else to do.
    """
    module, rest, arguments = _chosen(name, workers, memory, options)
    serve = getattr(module, "serve", None)
    return serve is not None and serve(rest, **arguments)


def _chosen(
    name: str, workers: int | None, memory: int | None, options: Mapping[str, Any] | None
) -> tuple[ModuleType, str, dict[str, Any]]:
    """The module of a place, what stands after the colon, and the arguments of its functions."""
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
    named = {option.replace("-", "_"): value for option, value in given.items()}
    return module, rest, {"workers": workers, "memory": memory, **named}
