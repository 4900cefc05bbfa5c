"""What `--plan` foretells, against runs at three sizes: seconds of processors and of the clock, and tasks."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daskim.cost import Prices, estimate, rates_of
from daskim.stages import Need
from tests.bench import Options
from tests.bench.calibrate import METHODS, WORKERS, Measured, kept, measure
from tests.bench.inputs import source
from tests.bench.table import Table

SIZES = (5_000, 20_000, 50_000)


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=None, metavar="N", help="[5000 20000 50000] images")
    parser.add_argument("--grown", type=Path, metavar="FOLDER", help="that `growth --folder` left: its runs as well")
    parser.add_argument("--rates", type=Path, metavar="FILE", help="of `calibrate`, in place of the built-in rates")


def run(options: Options) -> Iterator[Table]:
    sizes = getattr(options.more, "sizes", None) or ((500, 1000, 2000) if options.small else SIZES)
    path = getattr(options.more, "rates", None)
    rates = rates_of(None if path is None else path.read_text(encoding="utf-8"))
    for method in METHODS:
        facts = {"workers": WORKERS, "rates": "built in" if path is None else "of this machine"}
        runs = {n: measure(n, method) for n in sizes}
        yield compared(method, runs, rates, {"data": source(), **facts})
        lakes = kept(getattr(options.more, "grown", None), method)
        if lakes:
            yield compared(f"{method}, lakes", lakes, rates, {"data": "synthetic lakes", **facts})


def compared(title: str, runs: dict[int, list[Measured]], rates: dict[str, float], facts: dict[str, Any]) -> Table:
    table = Table(f"cost: {title}, core seconds foretold and measured", facts, ["stage"])
    for n in runs:
        table.columns += [f"{n:,} foretold", "measured", "error", "tasks", "at most"]
    first = next(iter(runs.values()))
    prices, nothing = Prices(WORKERS), Need(blocks=0, read=0, write=0, task=0, driver=0)
    sums = {n: [0.0] * 6 for n in runs}
    for at, stage in enumerate(first):
        row: list[Any] = [stage.stage]
        for n, stages in runs.items():
            part = stages[at]
            told = estimate(part.work, nothing, prices, rates)
            values = (told.core_seconds, part.core_seconds, told.seconds, part.seconds, part.tasks or 0, told.tasks)
            sums[n] = [total + value for total, value in zip(sums[n], values)]
            row += [told.core_seconds, part.core_seconds, _error(told.core_seconds, part.core_seconds)]
            row += [part.tasks, told.tasks]
        table.rows.append(row)
    cores, clock = ["all, core seconds"], ["all, by the clock"]
    for n in runs:
        told, took, seconds, wall, tasks, most = sums[n]
        cores += [told, took, _error(told, took), int(tasks) or None, int(most)]
        clock += [seconds, wall, _error(seconds, wall), None, None]
    table.rows += [cores, clock]
    return table


def _error(told: float, measured: float) -> str:
    return f"{100 * (told / measured - 1):+.0f} %" if measured > 0 else "-"
