"""A hundred workers and more on one machine: what the scheduler, the driver and the workers take for a task.

The scheduler is a process of its own, the workers are Dask's own `Worker` objects with one thread each in two
processes, and this one drives them by `daskim.engine` through `daskim.compute.client`, as a run does: windowed
submission, a marker of each block, results as small as in a run. Tasks sleep as long as those of a run of that size
would compute, on a clock that is sped up. What is lost by scheduling is then larger than it would be, by as much.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from distributed import Scheduler, Worker

from daskim.compute.client import Behind, connect
from daskim.compute.workers import configured
from daskim.cost import RATES, Work, work_of
from daskim.engine import Engine
from daskim.pipeline import settled, size_of, stages_of
from daskim.resolve import resolve
from daskim.settings import Settings
from daskim.stages import Size
from daskim.stages.index import block_rows
from daskim.store import Run
from tests.bench import Options
from tests.bench.table import Table

__all__ = ["counted", "seconds_per_task"]

# Images and bytes of one of them: ImageNet, Google Landmarks v2, and a web-sized set.
SETS = {
    "1.28 M (ImageNet)": (1_281_167, 110_000),
    "4.13 M (Landmarks v2)": (4_132_914, 130_000),
    "5 M": (5_000_000, 110_000),
}
LIMIT = 200_000
# Seconds that a simulated run may take, and tasks of it: a part of each stage, in the proportion of the whole.
SECONDS, TASKS = 40.0, 4000
PROCESSES = 2


def _silent() -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def _serve(pipe: Connection) -> None:
    _silent()

    async def serve() -> None:
        with configured():
            async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
                pipe.send(scheduler.address)
                await scheduler.finished()

    asyncio.run(serve())


def _work(address: str, count: int, folder: str) -> None:
    _silent()

    async def work() -> None:
        with configured():
            here = partial(Worker, address, nthreads=1, memory_limit=0, local_directory=folder, dashboard=False)
            workers = [here(name=f"{os.getpid()}-{number}") for number in range(count)]
            await asyncio.gather(*workers)
            await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(work())


@contextmanager
def simulated(workers: int) -> Iterator[tuple[Behind, psutil.Process]]:
    """A place of so many workers, and the process of its scheduler."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    scheduler = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    scheduler.start()
    address = ours.recv()
    with TemporaryDirectory(prefix="daskim-workers-") as folder:
        counts = [workers // PROCESSES + (at < workers % PROCESSES) for at in range(PROCESSES)]
        crowd = [spawn.Process(target=_work, args=(address, count, folder), daemon=True) for count in counts]
        for process in crowd:
            process.start()
        client = connect(address)
        try:
            client.wait_for_workers(workers, timeout=120)
            place = Behind("simulated", client)
            yield place, psutil.Process(scheduler.pid)
            client.close()
        finally:
            for process in [*crowd, scheduler]:
                process.terminate()
                process.join()


def asleep(
    run: Run, key: str, lo: int, hi: int, settings: Settings, options: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """What a block is given and gives back, and nothing of its work."""
    time.sleep(seconds)
    return {"rows": hi - lo, "status": {"ok": hi - lo}}


def size_at(n: int, bytes_of_one: int, settings: Settings) -> tuple[Settings, Size]:
    shape = (32, 32, 3)
    facts = {"n": n, "height": 32, "width": 32, "channels": 3, "bytes": n * bytes_of_one, "splits": {}}
    facts["rows"] = block_rows(settings, n, shape)
    settings = settled(settings, facts)
    return settings, size_of(settings, facts)


def counted(method: str, n: int, bytes_of_one: int) -> dict[str, Work]:
    """The work of each stage of a run of n images, by the model of `--plan`."""
    settings = resolve(
        [("bench", {"source.inputs": ("made",), "method": method, "clusters.n_clusters": _number(method)})]
    )
    settings, size = size_at(n, bytes_of_one, settings)
    stages = stages_of(settings)
    return {stage.name: work_of(stage.name, size, settings, stage.need(size, settings, 100)) for stage in stages}


def _number(method: str) -> float | str:
    return 0.94 if method == "wavelet" else "auto"


def seconds_per_task(workers: int = 4, tasks: int = 1000) -> float:
    """Processor seconds of the scheduler for a task that does nothing."""
    with simulated(workers) as (place, scheduler):
        return _empty(place, scheduler, tasks)["scheduler ms"] / 1e3


def _engine(place: Behind, folder: str) -> Engine:
    return Engine(place, Run(folder))


def _empty(place: Behind, scheduler: psutil.Process, tasks: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        return _drive(_engine(place, folder), scheduler, "empty", [0.0] * tasks)


def _drive(engine: Engine, scheduler: psutil.Process, stage: str, sleeps: list[float]) -> dict[str, float]:
    settings = resolve([("bench", {"source.inputs": ("made",)})])
    keys = [f"{at:06d}" for at in range(len(sleeps))]
    calls = [(at * 2604, (at + 1) * 2604, settings, {}, seconds) for at, seconds in enumerate(sleeps)]
    before, used, start = _used(scheduler), time.process_time(), time.perf_counter()
    engine.each(stage, "block", keys, calls, asleep)
    wall = time.perf_counter() - start
    each = 1e3 / max(1, len(sleeps))
    return {
        "wall": wall,
        "scheduler ms": (_used(scheduler) - before) * each,
        "driver ms": (time.process_time() - used) * each,
        "scheduler MB": scheduler.memory_info().rss / 1e6,
        "driver MB": psutil.Process().memory_info().rss / 1e6,
    }


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def run(options: Options) -> Iterator[Table]:
    yield counts()
    yield empty_tasks(options)
    yield whole_runs(options)


def counts() -> Table:
    methods = ("wavelet", "similarity")
    work = {(method, name): counted(method, *SETS[name]) for method in methods for name in SETS}
    table = Table(
        "scheduler: tasks of a run, by stage",
        {"standard size": "32 x 32 x 3", "bound": f"{LIMIT:,} at 5,000,000 images"},
        ["method", "stage", *SETS],
    )
    for method in methods:
        for stage in work[method, "5 M"]:
            table.rows.append([method, stage, *(work[method, name][stage].tasks for name in SETS)])
        sums = [sum(part.tasks for part in work[method, name].values()) for name in SETS]
        table.rows.append([method, "all", *sums])
        table.checks.append((f"{method}: under {LIMIT:,} tasks at 5,000,000 images", sums[-1] < LIMIT))
    return table


def empty_tasks(options: Options) -> Table:
    """As many tasks as they can do: on one machine the workers themselves take most of it."""
    tasks = 200 if options.small else 2000
    table = Table(
        "scheduler: tasks that do nothing",
        {"tasks": tasks, "worker processes": PROCESSES},
        ["workers", "tasks a second", "scheduler CPU ms a task", "driver CPU ms a task", "scheduler MB", "driver MB"],
    )
    for workers in (4, 20) if options.small else (20, 100, 200):
        with simulated(workers) as (place, scheduler):
            _empty(place, scheduler, 4 * workers)  # connections, imports
            found = _empty(place, scheduler, tasks)
        table.rows.append([workers, tasks / found["wall"], found["scheduler ms"], found["driver ms"]])
        table.rows[-1] += [round(found["scheduler MB"]), round(found["driver MB"])]
    return table


def whole_runs(options: Options) -> Table:
    seconds, tasks = (5.0, 200) if options.small else (SECONDS, TASKS)
    table = Table(
        "scheduler: runs of sleeping tasks",
        {"tasks at most": tasks, "ideal seconds": seconds, "note": "all stages, in the proportion of the whole run"},
        [
            "run",
            "workers",
            "tasks",
            "of",
            "clock sped up",
            "ideal s",
            "wall s",
            "lost",
            "lost at real speed",
            "scheduler CPU",
        ],
    )
    table.columns += ["scheduler MB", "driver MB"]
    for workers in (10,) if options.small else (100, 200):
        with simulated(workers) as (place, scheduler):
            _empty(place, scheduler, 4 * workers)
            for method in ("wavelet", "similarity"):
                for name in list(SETS)[:2]:
                    table.rows.append(_whole_run(place, scheduler, method, name, seconds, tasks))
    return table


def _whole_run(
    place: Behind, scheduler: psutil.Process, method: str, name: str, seconds: float, most: int
) -> list[Any]:
    """One simulated run; its row."""
    work = {stage: part for stage, part in counted(method, *SETS[name]).items() if part.shared}
    every = sum(part.tasks for part in work.values())
    share = min(1.0, most / every)
    shares = {stage: max(1, round(part.tasks * share)) for stage, part in work.items()}
    busy = {stage: sum(amount * RATES[rate] for rate, amount in part.shared.items()) for stage, part in work.items()}
    real = share * sum(busy.values()) / place.workers
    speed = max(1.0, real / seconds)
    ideal = real / speed
    wall = used = 0.0
    with TemporaryDirectory() as folder:
        engine = _engine(place, folder)
        for stage, count in shares.items():
            found = _drive(engine, scheduler, stage, [share * busy[stage] / count / speed] * count)
            wall, used = wall + found["wall"], used + found["scheduler ms"] * count / 1e3
    lost = wall - ideal
    done = sum(shares.values())
    row = [f"{method}, {name}", place.workers, done, every, speed, ideal, wall, f"{100 * lost / wall:.0f} %"]
    row += [f"{100 * lost / (real + lost):.1f} %", f"{100 * used / wall:.0f} %"]
    return [*row, round(found["scheduler MB"]), round(found["driver MB"])]
