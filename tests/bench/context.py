"""What a figure was measured on, and how it was timed."""

from __future__ import annotations

import gc
import os
import platform
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from threadpoolctl import threadpool_info

from tests.bench.measured import Measured
from tests.bench.watch import cores

__all__ = ["Timing", "load", "machine", "peak_of", "speed_up", "timed"]

LIBRARIES = ("numpy", "scipy", "scikit-learn", "dask", "dask-ml", "pillow", "simplejpeg", "PyWavelets", "zarr")


@dataclass(frozen=True)
class Timing:
    """Median wall time in seconds, with that of each round, and what the last call returned."""

    seconds: Measured
    result: Any


def timed(contenders: Mapping[str, Callable[[], Any]], repeat: int) -> dict[str, Timing]:
    """Time the contenders in turn, `repeat` rounds: what else the machine does falls on all of them alike.

    Each round starts with another contender, so that none always pays for cold caches or follows the same one.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, Any] = {}
    for round_ in range(repeat):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            results.pop(name, None)  # two results of one contender at once would take memory for nothing
            gc.collect()
            start = time.perf_counter()
            results[name] = contenders[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(Measured(seconds[name]), results[name]) for name in names}


def peak_of(contender: Callable[[], Any]) -> int:
    """Bytes that a call takes at its peak beyond what was there, as Python and numpy ask for them (untimed)."""
    gc.collect()
    tracemalloc.start()
    try:
        contender()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def speed_up(naive: float, seconds: float) -> str:
    """How many times faster than the naive form."""
    return f"{naive / seconds:.2f} x" if seconds > 0 else "-"


def load() -> float | None:
    """How many processes wanted a core in the last minute, on average."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """Cores, CPU model, load, versions and BLAS threads: no name of the machine, no path."""
    blas = sorted({(pool["internal_api"], pool["num_threads"]) for pool in threadpool_info()})
    return {
        "cores": cores(),
        "cpu": _cpu_model(),
        "load": load(),
        "threads": dict(blas),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()
