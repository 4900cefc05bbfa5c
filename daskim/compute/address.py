"""`--cluster address:tcp://host:port`: a Dask scheduler that is already running."""

from __future__ import annotations

from distributed import Client

from daskim.compute.client import Behind
from daskim.errors import SettingsError, SourceError

__all__ = ["OPTIONS", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = ()


def start(rest: str, *, workers: int | None, memory: int | None) -> Behind:
    if not rest:
        raise SettingsError("--cluster address: names no scheduler", "Write --cluster address:tcp://host:8786.")
    if memory is not None:
        raise SettingsError(
            "--memory does not reach the workers of --cluster address", "Give it where the workers are started."
        )
    try:
        client = Client(rest, timeout="20s", set_as_default=False)
        client.wait_for_workers(workers or 1, timeout=60)
    except (OSError, TimeoutError, ValueError) as error:
        raise SourceError(
            f"--cluster address:{rest}: no scheduler with {workers or 1} workers answers ({error})",
            "Start `dask scheduler` and `dask worker`, and check the address.",
        ) from error
    return Behind(f"address:{rest}", client)
