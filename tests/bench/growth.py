"""Growth with the number of images: seconds, CPU seconds and memory by stage on synthetic lakes, and the exponents.

What is finished is kept in --folder; the same command goes on with what is not. 2,000,000 images take hours.
"""

from __future__ import annotations

import math
from argparse import _ArgumentGroup
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from daskim.synthetic import write_lake
from tests.bench import Options
from tests.bench.growing import Grown, Took, grown
from tests.bench.jobs import warm
from tests.bench.table import Table, Target

SIZES = (10_000, 50_000, 200_000)
SMALL = (200, 300, 400)  # by threads, so that it takes seconds
SHARD = 10_000
JOBS = ("wavelet", "threshold", "similarity")
PLACES = {
    "threads": ["--cluster", "threads"],
    "local": ["--cluster", "local", "--workers", "2"],
}
# Exponents at most, and of which stages and steps. The join of method similarity is a step of its stage.
TARGETS = {
    1.05: ("index", "images", "exact", "wavelets", "columns"),
    1.15: ("candidates: signatures", "candidates: band", "similarities", "plan"),
    1.5: ("clusters", "candidates"),
}
# From where on exponents and equal memory are asked for; how many sizes make an exponent; seconds below which a stage
# is start-up and no growth.
FROM, POINTS, LEAST = 50_000, 3, 1.0
EQUAL = 1.2


def add_options(group: _ArgumentGroup) -> None:
    group.add_argument("--sizes", nargs="+", type=int, metavar="N", help=f"[{' '.join(map(str, SIZES))}] images")
    group.add_argument("--folder", type=Path, help="where the lake and what was measured are kept [temporary]")
    group.add_argument(
        "--jobs",
        nargs="+",
        choices=JOBS,
        default=["wavelet", "similarity"],
        help="[wavelet similarity] wavelet with 0.94 n clusters; similarity, threshold: spectral clusters, or by links",
    )
    group.add_argument("--place", choices=list(PLACES), default="local", help="[local] 2 worker processes, or threads")


def run(options: Options) -> Iterator[Table]:
    more = options.more
    place = "threads" if options.small else more.place
    sizes = sorted(set(SMALL if options.small else more.sizes or ((options.n,) if options.n else SIZES)))
    with TemporaryDirectory() as made:
        folder = more.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        shard = min(SHARD, sizes[0])
        lake = write_lake(folder / f"lake-{sizes[-1]}", sizes[-1], shard=shard)  # a smaller one is its beginning
        version = int(str(lake.facts["version"]))
        warm()
        found: dict[str, list[Grown]] = {}
        for n in sizes:
            for job in more.jobs:
                inputs = lake.files[: -(-n // shard)]
                found.setdefault(job, []).append(grown(folder, job, inputs, n, PLACES[place], version))
        facts = {"data": "synthetic lake", "seed": lake.seed, "place": place}
        for job, runs in found.items():
            yield whole(job, runs, facts)
            yield by_stage(job, runs, facts)
            yield exponents(job, runs, facts)


def whole(job: str, runs: Sequence[Grown], facts: dict[str, object]) -> Table:
    """A row for each size."""
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    table = Table(
        f"growth, {job}: whole runs",
        dict(facts),
        ["n", "seconds", "CPU seconds", "us per image", "largest worker, MB", "driver, MB", *names],
    )
    for run in runs:
        worker = max(took.worker for took in run.stages.values())
        driver = max(took.driver for took in run.stages.values())
        row = [run.n, run.wall, run.cpu, run.wall / run.n * 1e6, worker / 1e6, driver / 1e6]
        table.rows.append([*row, *(run.facts.get(name) for name in names)])
    return table


def by_stage(job: str, runs: Sequence[Grown], facts: dict[str, object]) -> Table:
    """A row for each stage and size, for a plot over n; with what --plan promised."""
    table = Table(
        f"growth, {job}: by stage",
        dict(facts),
        ["stage", "n", "seconds", "CPU seconds", "worker, MB", "of the promised", "driver, MB", "of the driver's"],
    )
    most = 0.0
    for stage in runs[0].stages:
        for run in runs:
            took = run.stages[stage]
            shares = [took.worker / took.promised, took.driver / took.promised_driver]
            most = max(most, *shares)
            row = [stage, run.n, took.seconds, took.cpu, took.worker / 1e6, shares[0], took.driver / 1e6, shares[1]]
            table.rows.append(row)
    table.targets.append(Target(f"{job}: memory of a process, share of what --plan promised", most, 1.0))
    large = [run for run in runs if run.n >= FROM]
    peaks = [max(took.worker for took in run.stages.values()) for run in large or runs]
    why = "" if len(large) > 1 else f"asked of several sizes from {FROM:,} on"
    table.targets.append(
        Target(f"{job}: memory of a worker, most over least", max(peaks) / min(peaks), EQUAL, unjudged=why)
    )
    return table


def exponents(job: str, runs: Sequence[Grown], facts: dict[str, object]) -> Table:
    """Exponent of each stage and step, with its standard error, and its target."""
    large = [run for run in runs if run.n >= FROM]
    used = large if len(large) >= POINTS else list(runs)
    why = "" if used is large else f"fitted to fewer than {POINTS} sizes from {FROM:,} on, or smaller ones"
    table = Table(
        f"growth, {job}: exponents",
        {**facts, "fitted to n": " ".join(f"{run.n:,}" for run in used)},
        ["stage or step", "exponent of time", "standard error", "exponent of CPU time", "its standard error", "aim"],
    )
    aims = {name: limit for limit, names in TARGETS.items() for name in names}
    named: dict[str, list[Took | None]] = {
        name: [run.stages.get(name) or run.steps.get(name) for run in used]
        for name in list(dict.fromkeys(name for run in used for part in (run.stages, run.steps) for name in part))
    }
    n = [run.n for run in used]
    for name, all_took in named.items():
        took = [one for one in all_took if one is not None]
        if len(took) < len(used):
            continue
        time, error = fitted(n, [one.seconds for one in took])
        cpu, cpu_error = fitted(n, [one.cpu for one in took])
        table.rows.append([name, time, error, cpu, cpu_error, aims.get(name)])
        if name in aims and time is not None:
            short = "" if took[-1].seconds >= LEAST else f"less than {LEAST:g} s at n = {n[-1]:,}"
            told = f"{job}: exponent of {name}" + ("" if error is None else f" (standard error {error:.2f})")
            table.targets.append(Target(told, time, aims[name], unjudged=why or short))
    return table


def fitted(n: Sequence[int], values: Sequence[float]) -> tuple[float | None, float | None]:
    """Exponent b of a n^b by least squares of the logarithms, and its standard error; None where it has none."""
    if len(n) < 2 or min(values) <= 0:
        return None, None
    x = np.log(np.asarray(n, dtype=np.float64))
    y = np.log(np.asarray(values, dtype=np.float64))
    x -= x.mean()
    power = float(x @ y / (x @ x))
    if len(n) < 3:
        return power, None
    rest = y - y.mean() - power * x
    return power, math.sqrt(float(rest @ rest) / (len(n) - 2) / float(x @ x))
