"""What all workers that daskim starts have in common: one thread of BLAS, bounded memory, spill in a place of its own.

The workers are the parallelism: sums then have one order, and ten processes do not start a hundred threads. Results of
tasks are small, so spilling is the last resort before a worker is ended; it never goes into the run's store.
"""

from __future__ import annotations

from typing import Any

import dask

__all__ = ["CONFIG", "ENVIRONMENT", "LOST_SECONDS", "configured", "environment"]

# Environment of every worker process, before NumPy is imported.
ENVIRONMENT: dict[str, str] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    # Of glibc: arrays are made in memory that is there already. Dask's own setting, 64 kB, has each one mapped anew and
    # its pages filled with zeros: a fifth to a quarter of the time of a run. Those of 4 MB and more, for which NumPy
    # asks for huge pages, still are: within the heap a small leftover would hold a huge page. What a stage has freed
    # goes back at its end (`daskim.release`).
    "MALLOC_ARENA_MAX": "2",  # each has leftovers of its own; one thread computes, some few read
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
    "MALLOC_MMAP_THRESHOLD_": str(2**22),
}

# After this long without an acknowledged byte the kernel gives a connection up, and the worker at its other end is
# lost: what a host that is cut off costs. It is the kernel that answers, so a worker busy in a kernel of NumPy or a
# decoder is not taken for lost; hence it may be short, and `worker-ttl`, which counts heartbeats, stays long.
LOST_SECONDS = 30

# Settings of Dask for schedulers and workers that daskim starts.
CONFIG: dict[str, Any] = {
    "distributed.worker.daemon": True,
    "distributed.worker.memory.target": 0.6,
    "distributed.worker.memory.spill": 0.7,
    "distributed.worker.memory.pause": 0.85,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.comm.timeouts.tcp": f"{LOST_SECONDS}s",
    "distributed.comm.timeouts.connect": "30s",
    "distributed.scheduler.worker-ttl": "5 minutes",
    # A task whose worker ended is tried on one other; then the engine decides (it tries again, or goes image by image).
    "distributed.scheduler.allowed-failures": 1,
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
}


def configured() -> Any:
    """A context within which Dask has these settings."""
    return dask.config.set(CONFIG)


def environment() -> dict[str, str]:
    """The same settings as environment variables, for workers that a command line starts."""
    names = {"DASK_" + key.upper().replace(".", "__").replace("-", "_"): value for key, value in CONFIG.items()}
    return {**ENVIRONMENT, **{name: str(value) for name, value in names.items() if not isinstance(value, dict)}}
