"""Tasks through a client: what comes back, and what it means when something does not."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed.comm import CommClosedError

from daskim.compute import WorkerEnded
from daskim.errors import BlockFailed, SourceError

__all__ = ["NO_WORKERS", "in_flow", "told_losses"]

# Seconds between two looks at a scheduler that says nothing, and how long there may be no worker at all: as long as it
# takes to get a new machine.
LOOK = 10.0
NO_WORKERS = 300.0


def in_flow(
    client: Client, place: str, window: int, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[int, Any, BaseException | None]]:
    """Run the calls, at most `window` under way; yield (index, result, error) as they finish.

    The error of a call whose workers ended while they were at it is a `WorkerEnded`. How often it is tried by itself is
    the scheduler's setting `allowed-failures`.

    Raises
    ------
    SourceError
        The scheduler is gone, or there is no worker any more.
    """
    coming = enumerate(calls)
    under_way: dict[Any, tuple[int, Future]] = {}
    done: queue.SimpleQueue[Future] = queue.SimpleQueue()
    alone_since: float | None = None

    def more() -> None:
        item = next(coming, None)
        if item is not None:
            future = client.submit(function, *item[1], pure=False)
            under_way[future.key] = item[0], future
            future.add_done_callback(done.put)

    try:
        with told_losses(client, place):
            for _ in range(window):
                more()
        while under_way:
            with told_losses(client, place):
                future = None
                try:
                    future = done.get(timeout=LOOK)
                    error = future.exception(timeout=LOOK)
                    result = None if error is not None else future.result(timeout=LOOK)
                except (queue.Empty, TimeoutError):
                    # Nothing has come, or a result was lost with the worker that held it: its task is done again.
                    if future is not None:
                        future.add_done_callback(done.put)
                    alone_since = _alone_since(client, place, alone_since)
                    continue
                alone_since = None
                index, _ = under_way.pop(future.key)
                future.release()
            yield index, result, _told(client, error)
            with told_losses(client, place):
                more()
    finally:
        for _, future in under_way.values():
            future.release()


@contextmanager
def told_losses(client: Client, place: str) -> Iterator[None]:
    """Within it the loss of the scheduler is a SourceError, and that of a task's workers a BlockFailed."""
    try:
        yield
    except KilledWorker as error:
        raise BlockFailed(f"--cluster {place}: {_told(client, error)}", _REMEDY) from None
    except (CancelledError, CommClosedError) as error:
        raise _gone(place, error) from None
    except (RuntimeError, OSError) as error:
        if client.status == "running":
            raise
        raise _gone(place, error) from None


# What helps where workers end for want of memory.
_REMEDY = "Give them more memory (--memory, or fewer --workers on a machine), or make blocks smaller (blocks.rows)."


def _gone(place: str, error: BaseException) -> SourceError:
    # The client's attempts to come back end with it, and it would log a traceback about that.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    words = getattr(error, "reason", None) or str(error) or type(error).__name__
    return SourceError(
        f"--cluster {place}: the scheduler is gone ({words})",
        "Finished blocks are kept: when there is a scheduler again, the same command goes on from there.",
    )


def _alone_since(client: Client, place: str, since: float | None) -> float | None:
    """Since when there has been no worker; ends the run where that is too long, or nobody answers."""
    if client.status != "running":
        raise CommClosedError(f"the connection is {client.status}")
    try:
        if client.scheduler_info(n_workers=-1)["workers"]:
            return None
    except OSError as error:
        raise CommClosedError(str(error)) from error
    now = time.monotonic()
    if since is not None and now - since > NO_WORKERS:
        raise SourceError(
            f"--cluster {place}: there has been no worker for {NO_WORKERS:.0f} s",
            "Finished blocks are kept: start workers, then give the same command again.",
        )
    return now if since is None else since


def _told(client: Client, error: BaseException | None) -> BaseException | None:
    """A worker's end in the words of `WorkerEnded`; any other error as it is."""
    if not isinstance(error, KilledWorker):
        return error
    last = error.last_worker.address
    return WorkerEnded(error.allowed_failures + 1, last, _memory_at_end(client, last))


def _memory_at_end(client: Client, worker: str) -> int | None:
    """Bytes that a worker held when its nanny ended it for want of memory; None where it ended otherwise."""
    try:
        events = client.get_events("worker-restart-memory")
    except (OSError, CancelledError, RuntimeError):
        return None
    held = [event["rss"] for _, event in events if event.get("worker") == worker]
    return int(held[-1]) if held else None
