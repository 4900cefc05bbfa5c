"""The rates of this machine for `--plan`, from runs at some sizes.

`python -m tests.bench calibrate --sizes 5000 20000 50000 --rates-file daskim/rates.json` makes them the built-in ones.

Amounts are those of `daskim.cost.work_of`, seconds the processor time of each stage as its seal tells. The rates of a
stage are the least squares of its relative errors over all sizes, none of them negative.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.optimize import nnls

from daskim.cost import RATES, Work, work_of
from daskim.lake import ImageSpec, list_images, standardise_block
from daskim.pipeline import settled, size_of, stages_of
from daskim.resolve import from_toml
from tests.bench import Options
from tests.bench.context import machine
from tests.bench.growing import place_name
from tests.bench.growth import PLACES
from tests.bench.inputs import shards, source
from tests.bench.jobs import warm
from tests.bench.made_photos import made_photographs
from tests.bench.scheduler import counted, seconds_per_task
from tests.bench.table import Table

__all__ = ["Measured", "fitted", "kept", "measure"]

SIZES = (2000, 8000)
METHODS = ("wavelet", "similarity")
WORKERS = 2
LAKE_BYTES = 900  # of an image of a synthetic lake


@dataclass(frozen=True)
class Measured:
    """One stage of one run: what it was to do, and what it took."""

    method: str
    stage: str
    n: int
    work: Work
    core_seconds: float
    seconds: float
    tasks: int | None  # of a run that `growth` has kept nobody counted them

    @property
    def amounts(self) -> dict[str, float]:
        return {**self.work.alone, **self.work.shared}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=None, metavar="N", help="[2000 8000] images of the runs"
    )
    parser.add_argument("--grown", type=Path, metavar="FOLDER", help="that `growth --folder` left: its runs count too")
    parser.add_argument("--rates-file", type=Path, metavar="FILE", help="where the rates go, for reduce --plan --rates")


def measure(n: int, method: str) -> list[Measured]:
    """Run once, in a process of its own, and read what its seals tell."""
    warm()
    with TemporaryDirectory() as folder, shards(n) as paths:
        run = Path(folder) / "run"
        words = [sys.executable, "-m", "daskim.jobs.reduce", *paths, "--run", str(run), "--quiet", "--no-report"]
        words += ["--limit", str(n), "--method", method, "--workers", str(WORKERS)]
        if method == "wavelet":
            words += ["--set", "clusters.n_clusters=0.94"]
        subprocess.run(words, check=True)
        settings = from_toml((run / "settings.toml").read_text(encoding="utf-8"), "settings.toml")
        seals = {path.parent.name: json.loads(path.read_text()) for path in run.glob("state/*/sealed.json")}
        facts = seals["index"]["facts"]
        settings, size = settled(settings, facts), size_of(settings, facts)
        found = []
        for stage in stages_of(settings):
            seal, need = seals[stage.name], stage.need(size, settings, WORKERS)
            work = work_of(stage.name, size, settings, need)
            took = (seal["cpu_seconds"], seal["seconds"], seal["blocks"])
            found.append(Measured(method, stage.name, n, work, *took))
    return found


def kept(folder: Path | None, method: str) -> dict[int, list[Measured]]:
    """By n, the runs on synthetic lakes that `growth --folder` has kept, in two worker processes."""
    found = {}
    for path in () if folder is None else folder.glob(f"growth-{method}-*-{place_name(PLACES['local'])}-*.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        works = counted(method, told["n"], LAKE_BYTES)
        stages = [(name, works[name], took["cpu"], took["seconds"]) for name, took in told["stages"].items()]
        found[told["n"]] = [Measured(method, name, told["n"], *took, None) for name, *took in stages]
    return dict(sorted(found.items()))


def fitted(runs: Sequence[Measured]) -> dict[str, float]:
    """Rates by which the stages would have taken what they took, as nearly as can be."""
    rates: dict[str, float] = {}
    for stage in dict.fromkeys(run.stage for run in runs):
        mine = [run for run in runs if run.stage == stage]
        names = [name for name in mine[0].amounts if any(run.amounts[name] for run in mine)]
        if len(mine) < len(names):
            names = [name for name in names if not name.endswith(" once")]
        table = np.array([[run.amounts[name] / run.core_seconds for name in names] for run in mine])
        scale = table.max(axis=0)
        found, _ = nnls(table / scale, np.ones(len(mine)))
        rates.update(zip(names, (found / scale).tolist()))
    return rates


def byte_rate(image: float, n: int) -> float:
    """Seconds for a byte of a photograph beyond the 2 kB that are in the rate of an image."""
    with made_photographs(n) as folder:
        rows = list_images([str(folder)]).table
        least = []
        for _ in range(3):
            start = time.process_time()
            standardise_block(rows, ImageSpec(filter="bilinear"))
            least.append(time.process_time() - start)
        return max(0.0, (min(least) / n - image) / (sum(rows["bytes"].to_pylist()) / n - 2_000))


def run(options: Options) -> Iterator[Table]:
    sizes = getattr(options.more, "sizes", None) or ((500, 1000) if options.small else SIZES)
    runs = [found for method in METHODS for n in sizes for found in measure(n, method)]
    grown = {method: kept(getattr(options.more, "grown", None), method) for method in METHODS}
    runs += [found for lakes in grown.values() for stages in lakes.values() for found in stages]
    rates = fitted(runs)
    rates["images byte"] = byte_rate(rates["images image"], 50 if options.small else 300)
    rates["scheduler task"] = seconds_per_task(tasks=100 if options.small else 1000)
    # of stages that the workers share, where one lasts long enough to tell
    shared = [part for part in runs if part.work.shared and part.seconds > 1]
    if shared:
        rates["busy"] = round(min(1.0, median(part.core_seconds / (part.seconds * WORKERS) for part in shared)), 3)
    rates = {name: float(f"{value:.3g}") for name, value in rates.items()}
    facts: dict[str, Any] = {"data": source(), "n": " and ".join(f"{n:,}" for n in sizes), "workers": WORKERS}
    for method, lakes in grown.items():
        if lakes:
            facts[f"lakes, {method}"] = " and ".join(f"{n:,}" for n in lakes)
    table = Table(
        "calibrate: seconds of one core for one of each", facts, ["rate", "here", "built in", "here / built in"]
    )
    for name, value in rates.items():
        table.rows.append([name, f"{value:.3g}", f"{RATES[name]:.3g}", value / RATES[name] if RATES[name] else None])
    yield table
    path = getattr(options.more, "rates_file", None)
    if path is not None:
        path.write_text(json.dumps({"rates": rates, "context": machine(), **facts}, indent=1) + "\n", encoding="utf-8")
