"""`--cluster local`: processes on this machine, through the same scheduler that a cluster uses."""

from __future__ import annotations

import logging

import dask
from distributed import Client, LocalCluster

from daskim.compute.client import Behind
from daskim.compute.machine import cores, memory_limit
from daskim.errors import SettingsError

__all__ = ["OPTIONS", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = ()


def start(rest: str, *, workers: int | None, memory: int | None) -> Behind:
    if rest:
        raise SettingsError(f"--cluster local:{rest}: local takes nothing after it", "Use --workers for a number.")
    count = workers or cores()
    share = (memory or memory_limit()) // count
    with dask.config.set({"distributed.worker.daemon": True}):
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=share,
            dashboard_address="127.0.0.1:0",  # None would be port 8787, and a warning where it is taken
            host="127.0.0.1",
            silence_logs=logging.ERROR,
        )
    client = Client(cluster, set_as_default=False)
    return Behind("local", client, (cluster,))
