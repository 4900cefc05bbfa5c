"""What the places in Kubernetes have in common: how a worker fills its pod, and how long is waited for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskim.compute.workers import CONFIG, ENVIRONMENT
from daskim.errors import SettingsError

__all__ = ["ENV", "seconds_of", "worker_memory"]

# What every worker that daskim starts has in common, as environment variables; Dask reads its settings from DASK_*.
ENV: dict[str, str] = ENVIRONMENT | {
    f"DASK_{key.upper().replace('.', '__').replace('-', '_')}": str(value)
    for key, value in CONFIG.items()
    if not isinstance(value, dict)
}
# Bytes of a worker pod that are not the worker's: the nanny that restarts it (measured: 125 MB), and room for the
# kernel's pages, so that Dask ends a task that eats too much before Kubernetes ends the pod.
NANNY = 200_000_000
# Seconds until the workers must be there: nodes may have to be added, and an image of 1 GB pulled.
TIMEOUT = 300.0


def worker_memory(limit: int) -> int:
    """Bytes for the worker in a pod that may use `limit`."""
    return max(limit - NANNY, limit // 2)


def seconds_of(options: Mapping[str, Any]) -> float:
    """The value of --k8s-timeout.

    Raises
    ------
    SettingsError
        It is not above 0.
    """
    seconds = options.get("k8s_timeout")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise SettingsError(f"--k8s-timeout {seconds}: no number of seconds", "Give one above 0, such as 600.")
    return TIMEOUT if seconds is None else float(seconds)
