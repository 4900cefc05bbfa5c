"""A place behind a `distributed.Client`: shared by every place that has a scheduler."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import dask
from distributed import Client
from distributed.versions import VersionMismatchWarning

from daskim.compute.flow import in_flow, told_losses
from daskim.compute.versions import check_versions

__all__ = ["Behind", "connect"]


def connect(address: Any, security: Any = None, timeout: str = "20s") -> Client:
    """A client of a scheduler or cluster. What it would warn of, `Behind` checks itself, and says in plain words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)
        return Client(address, security=security, timeout=timeout, set_as_default=False)


class Behind:
    """Tasks through a client, at most three a worker thread under way.

    Parameters
    ----------
    name : str
        The value of `--cluster`.
    client : distributed.Client
    owned : tuple
        What `close` closes after the client: the cluster, if daskim started it.

    Attributes
    ----------
    notes : list of str
        What the user should know of this place, such as packages that differ and may.

    Raises
    ------
    SourceError
        The workers run other software than this process; client and `owned` are then closed.
    """

    def __init__(self, name: str, client: Client, owned: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.client = client
        self._owned = owned
        try:
            self.notes = check_versions(client, name)
        except BaseException:
            self.close()
            raise
        info = client.scheduler_info(n_workers=-1)["workers"].values()
        self.workers = max(1, sum(worker["nthreads"] for worker in info))
        self.processes = max(1, len(info))
        self.memory = min((worker["memory_limit"] for worker in info), default=0) or 0

    def unordered(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any, BaseException | None]]:
        """See `daskim.compute.Place`; at most three calls a worker thread are under way."""
        return in_flow(self.client, self.name, 3 * self.workers, function, calls)

    def everywhere(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """`function(*args)` once in every worker process: its result, or the exception it raised, by address."""
        found: dict[str, Any] = self.client.run(function, *args, on_error="return")
        return found

    def scheduler(self) -> AbstractContextManager[Any]:
        stack = ExitStack()
        # Rows that are in this process's memory go out with the graph; there is nothing that a user could do about it.
        stack.enter_context(dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}))
        stack.enter_context(told_losses(self.client, self.name))
        stack.enter_context(self.client.as_current())
        return stack

    def close(self) -> None:
        """Close the client and what is owned, all of it, in this order, whatever fails or interrupts."""
        with ExitStack() as last:
            for thing in reversed(self._owned):
                last.callback(thing.close)
            self.client.close()
