"""What a figure was measured on, how it was timed, and the table that shows both."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from threadpoolctl import threadpool_info

__all__ = ["Table", "Timing", "machine", "peak_of", "show", "speed_up", "timed"]

LIBRARIES = ("numpy", "scipy", "scikit-learn", "dask", "dask-ml", "pillow", "simplejpeg", "PyWavelets", "zarr")


@dataclass
class Table:
    """One comparison.

    Attributes
    ----------
    title : str
    facts : dict
        n, d, block rows, the data: what besides the machine the figures depend on.
    columns : list of str
    rows : list of list
        Text or numbers; None prints as a dash.
    checks : list of (str, bool)
        What the contenders must agree on. One that does not hold ends the command with code 1.
    """

    title: str
    facts: dict[str, Any]
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    checks: list[tuple[str, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class Timing:
    """Median and extremes of wall time in seconds, and what the last call returned."""

    seconds: float
    least: float
    most: float
    result: Any


def timed(contenders: Mapping[str, Callable[[], Any]], repeat: int) -> dict[str, Timing]:
    """Time the contenders in turn, `repeat` rounds: what else the machine does falls on all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Any] = {}
    for _ in range(repeat):
        for name, contender in contenders.items():
            results.pop(name, None)  # two results at once would count against the contender's memory
            gc.collect()
            start = time.perf_counter()
            results[name] = contender()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: Timing(statistics.median(taken), min(taken), max(taken), results[name])
        for name, taken in seconds.items()
    }


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


def machine() -> dict[str, Any]:
    """Cores, CPU model, load, versions and BLAS threads: no name of the machine, no path."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    blas = sorted({(pool["internal_api"], pool["num_threads"]) for pool in threadpool_info()})
    return {
        "cores": cores,
        "cpu": _cpu_model(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": {name: count for name, count in blas},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def show(table: Table, context: Mapping[str, Any], *, first: bool) -> None:
    """Print one table as Markdown, its context line before it; versions once."""
    if first:
        print("Versions: " + ", ".join(f"{name} {text}" for name, text in context["versions"].items()))
    print(f"\n### {table.title}\n")
    threads = ", ".join(f"{name} {count} thread{'s' * (count > 1)}" for name, count in context["threads"].items())
    facts = "; ".join(f"{name}: {_text(value)}" for name, value in table.facts.items())
    print(f"{context['cores']} cores, {context['cpu']}, load {context['load']} at the start; {threads}; {facts}\n")
    cells = [table.columns, *([_text(value) for value in row] for row in table.rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(table.columns))]
    for index, row in enumerate(cells):
        padded = [cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        print("| " + " | ".join(padded) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 1) + (":" if at else "-") for at, width in enumerate(widths)) + "|")
    for claim, holds in table.checks:
        print(f"\n{'holds' if holds else 'DOES NOT HOLD'}: {claim}", end="")
    print(flush=True)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")
