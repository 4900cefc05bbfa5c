"""A place behind a `distributed.Client`: shared by every place that has a scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from distributed import Client, as_completed

__all__ = ["Behind"]


class Behind:
    """Tasks through a client, at most three a worker thread under way.

    Parameters
    ----------
    name : str
        The value of `--cluster`.
    client : distributed.Client
    owned : tuple
        What `close` closes after the client: the cluster, if daskim started it.
    """

    def __init__(self, name: str, client: Client, owned: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.client = client
        self._owned = owned
        info = client.scheduler_info(n_workers=-1)["workers"].values()
        self.workers = max(1, sum(worker["nthreads"] for worker in info))
        self.processes = max(1, len(info))
        self.memory = min((worker["memory_limit"] for worker in info), default=0) or 0

    def unordered(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any, BaseException | None]]:
        queue = enumerate(calls)
        index_of: dict[Any, int] = {}
        flow = as_completed(loop=self.client.loop)

        def more() -> bool:
            item = next(queue, None)
            if item is None:
                return False
            future = self.client.submit(function, *item[1], pure=False)
            index_of[future.key] = item[0]
            flow.add(future)
            return True

        try:
            for _ in range(3 * self.workers):
                if not more():
                    break
            for future in flow:
                index = index_of.pop(future.key)
                error = future.exception()
                result = None if error is not None else future.result()
                future.release()
                yield index, result, error
                more()
        finally:
            flow.clear()

    def scheduler(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.client.asynchronous else self.client.as_current()

    def close(self) -> None:
        self.client.close()
        for thing in self._owned:
            thing.close()
