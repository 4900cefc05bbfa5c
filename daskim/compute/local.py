"""`--cluster local`: processes on this machine, through the same scheduler that a cluster uses."""

from __future__ import annotations

import logging
import tempfile

from distributed import LocalCluster

from daskim.compute import Described
from daskim.compute.client import Behind, connect
from daskim.compute.machine import cores, memory_limit
from daskim.compute.tls import make_certificates
from daskim.compute.workers import configured
from daskim.errors import SettingsError

__all__ = ["OPTIONS", "describe", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = ("tls",)


class _Spill:
    """A directory of the workers' own, closed after them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="daskim-spill-", ignore_cleanup_errors=True)
        self.name = self._folder.name

    def close(self) -> None:
        self._folder.cleanup()


def describe(rest: str, *, workers: int | None, memory: int | None, tls: bool = False) -> Described:
    """What `start` would start."""
    if rest:
        raise SettingsError(f"--cluster local:{rest}: local takes nothing after it", "Use --workers for a number.")
    count = workers or cores()
    return Described("local", count, count, (memory or memory_limit()) // count)


def start(rest: str, *, workers: int | None, memory: int | None, tls: bool = False) -> Behind:
    place = describe(rest, workers=workers, memory=memory)
    security = make_certificates().security() if tls else None
    spill = _Spill()
    try:
        with configured():
            cluster = LocalCluster(
                n_workers=place.processes,
                threads_per_worker=1,
                processes=True,
                memory_limit=place.memory,
                local_directory=spill.name,
                dashboard_address="127.0.0.1:0",  # None would be port 8787, and a warning where it is taken
                host="127.0.0.1",
                protocol="tls://" if tls else "tcp://",
                security=security,
                silence_logs=logging.CRITICAL,  # what ends a worker is told by the run
            )
        client = connect(cluster, security)
    except BaseException:
        spill.close()
        raise
    return Behind("local", client, (cluster, spill))
